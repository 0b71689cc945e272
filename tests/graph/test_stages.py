"""Where exits may stand."""

import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.core.errors import PlanError
from penjing.graph.stages import Branch, branches, look
from staged import staged
from tiny import tiny

X = torch.zeros(2, 3, 8, 8)


def test_exits_stand_at_the_end_of_every_stage_but_the_last() -> None:
    found, deepest = branches(look(zoo.resnet20(), torch.zeros(2, 3, 32, 32)))
    assert found == [Branch("layer1", (16, 32, 64), (2, 2), 10), Branch("layer2", (32, 64), (2,), 10)]
    assert deepest.name == "layer3"


def test_looking_leaves_the_network_as_it_was() -> None:
    model = staged().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    look(model, torch.randn(2, 3, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(m.training and not m._forward_hooks for m in model.modules())


def test_a_stem_and_a_pooling_are_no_stages() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 1, 1), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, 1, 1), nn.Conv2d(6, 6, 3, 1, 1), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, 1, 1), nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip
    found, deepest = branches(look(model, torch.zeros(2, 3, 16, 16)))
    assert found == [Branch("3", (6, 8), (2,), 5)] and deepest.name == "5"


class Trunk(nn.Module):
    """A network whose maps are made in one module with a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = zoo.build("shufflenet_v2_cifar"), nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(x))


@pytest.mark.parametrize(
    ("network", "places"),
    [
        ("mobilenet_v2_cifar", ["features.3", "features.6", "features.13"]),
        ("shufflenet_v2_cifar", ["stage2", "stage3"]),
        ("densenet_cifar", ["features.denseblock1", "features.denseblock2"]),
        (Trunk, ["trunk.stage2", "trunk.stage3"]),
    ],
)
def test_a_stage_ends_with_a_whole_block_and_not_inside_the_next(network, places) -> None:
    """A block may compute at its reader's size before it goes on to a smaller one."""
    model = zoo.build(network) if isinstance(network, str) else network()
    assert [one.at for one in branches(look(model, torch.zeros(2, 3, 32, 32)))[0]] == places


def test_named_layers_come_in_the_order_of_execution() -> None:
    found, _ = branches(look(staged(), X), ["layer2.0", "layer1"])
    assert found == [Branch("layer1", (6, 8, 12), (2, 2), 3), Branch("layer2.0", (8, 12), (2,), 3)]
    found, _ = branches(look(tiny(), X), ["bn1"])
    assert found == [Branch("bn1", (32, 16), (1,), 3)]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.relu = nn.Conv2d(3, 3, 3, 1, 1), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.relu(self.conv(x))))
        return self.head(self.relu(self.down(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "layers", "says"),
    [
        (tiny, [], r"one size alone.*layers: \[bn2\]"),
        (staged, ["layer9"], r"no layer 'layer9' for an exit\. Did you mean 'layer3'"),
        (staged, ["head"], r"head returns no map"),
        (staged, ["layer3"], r"layer3 is the end of the network already"),
        (Twice, ["relu"], r"relu runs 3 times"),
        (lambda: nn.Conv2d(3, 4, 3), [], r"returns \[2, 4, 6, 6\] for two pictures"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), ["0"], r"No convolution of the network"),
    ],
)
def test_what_is_no_place_is_refused_by_name(model, layers, says) -> None:
    with pytest.raises(PlanError, match=says):
        branches(look(model(), X), layers)
