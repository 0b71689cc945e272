import copy

import torch
from torch import nn

from penjing.graph.joints import Joints
from penjing.graph.trace import trace


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.an = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.b, self.c = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.an(self.a(x))
        y = self.b(x)
        y += x
        return torch.relu(y + self.c(y)) + 1.0


def test_every_joint_is_heard_once_with_its_values():
    model = Net().eval()
    x = torch.randn(2, 3, 5, 5)
    graph = trace(model, (x,), proof=False)
    heard = []
    with (
        Joints(
            model,
            graph,
            read=lambda i, x: heard.append(("read", i)),
            wrote=lambda i, y: heard.append(("wrote", i)),
            normed=lambda i, y, mean: heard.append(("normed", i, mean is model.an.running_mean)),
            summed=lambda i, y, other: heard.append(("summed", i, y.clone(), other.clone())),
        ),
        torch.no_grad(),
    ):
        model(x)
    assert [h[:2] for h in heard] == [
        ("read", 0), ("wrote", 0), ("normed", 0),
        ("read", 1), ("wrote", 1), ("summed", 1),
        ("read", 2), ("wrote", 2), ("summed", 2),
    ]  # fmt: skip
    assert heard[2][2]
    with torch.no_grad():
        stem = model.an(model.a(x))
        torch.testing.assert_close(heard[5][2], model.b(stem))
        torch.testing.assert_close(heard[5][3], stem)
        torch.testing.assert_close(heard[8][3], model.b(stem) + stem)


def test_a_sum_with_itself_or_of_another_shape_is_none():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.a(x)
            return y + y.mean((2, 3), keepdim=True), y + y

    model, x = Odd().eval(), torch.randn(2, 3, 5, 5)
    heard = []
    with Joints(model, trace(model, (x,), proof=False), summed=lambda *what: heard.append(what)):
        model(x)
    assert not heard


def test_a_sum_may_ask_for_the_layer_to_run_again_with_its_new_weights():
    model, x = Net().eval(), torch.randn(2, 3, 5, 5)
    graph = trace(model, (x,), proof=False)
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.b.weight.mul_(-2)
        changed.c.bias.add_(1)
    parameters = dict(changed.named_parameters())
    heard = []

    def summed(i, y, other):
        name = graph.layers[i].weight.partition(".")[0]
        for kind in ("weight", "bias"):
            getattr(getattr(model, name), kind).copy_(parameters[f"{name}.{kind}"])
        heard.append(i)
        return True

    with torch.no_grad(), Joints(model, graph, read=lambda i, x: heard.append("read"), summed=summed):
        found = model(x)
    assert heard == ["read", "read", 1, "read", 2], "running again is not heard"
    with torch.no_grad():
        torch.testing.assert_close(found, changed(x))


def test_a_value_changed_in_place_is_followed_no_further():
    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.a(x)
            y.relu_()
            return (y + x) + x

    model, x = Bent().eval(), torch.randn(2, 3, 5, 5)
    heard = []
    with Joints(model, trace(model, (x,), proof=False), summed=lambda *what: heard.append(what)):
        model(x)
    assert not heard
