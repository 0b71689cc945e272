"""Networks that may answer early: what they answer, what they compute, and how they are put down."""

import copy
import json

import pytest
import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.graph.exits import Exit, Exiting, Leaving, is_told, joined, parted
from penjing.graph.stages import Branch
from staged import leaving

X = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def by_hand(model: Exiting, x: Tensor) -> tuple[list[int], Tensor]:
    """Run the parts one after the other; the exits see maps before anything writes over them."""
    network = model.network
    first = network.layer1(x)
    second = network.layer2(first.clone().relu())
    maps = [first.clone(), second.clone()]
    said = [one(map) for one, map in zip(model.exits, maps, strict=True)]
    said.append(network.head(network.layer3(second).mean((2, 3))))
    at = []
    for i in range(len(x)):
        sure = [float(logits[i].softmax(0).max()) for logits in said[:-1]]
        at.append(next((k for k, p in enumerate(sure) if p >= model.thresholds[k]), len(sure)))
    return at, torch.stack([said[k][i] for i, k in enumerate(at)])


@torch.no_grad()
def test_each_picture_is_answered_at_the_first_exit_that_is_sure() -> None:
    model = leaving()
    at, expected = by_hand(model, X)
    assert set(at) == {0, 1, 2}
    torch.testing.assert_close(model(X), expected)
    torch.testing.assert_close(torch.cat([model(x[None]) for x in X]), expected)


@torch.no_grad()
def test_what_lies_behind_is_not_computed() -> None:
    model = leaving()
    runs: list[str] = []
    for name in ("layer2", "layer3"):
        model.network.get_submodule(name).register_forward_hook(lambda *_, name=name: runs.append(name))
    for i, at in enumerate(by_hand(copy.deepcopy(model), X)[0]):
        runs.clear()
        model(X[i : i + 1])
        assert runs == ["layer2", "layer3"][:at]


@torch.no_grad()
def test_it_answers_as_the_network_does_unless_asked_to_be_early() -> None:
    model = leaving()
    expected = model.network(X)
    assert not torch.equal(model(X), expected)
    model.early = False
    assert torch.equal(model(X), expected) and torch.equal(model(X[:1]), model.network(X[:1]))
    model.early = True
    every = model.every(X)
    assert len(every) == 3 and torch.equal(every[-1], expected)
    for k, logits in enumerate(every[:-1]):
        assert torch.equal(Leaving(model, k)(X), logits)
    assert not any(m._forward_hooks for m in model.modules())


class Wary(nn.Module):
    """Its forward catches what goes wrong inside."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        try:
            x = self.two(self.one(x))
        except Exception:
            x = x.new_zeros(len(x), 4, 1, 1)
        return self.head(x.mean((2, 3)))


def test_a_network_that_catches_exceptions_is_left_all_the_same() -> None:
    exit = Exit(Branch("one", (4, 4), (2,), 2))
    model = Exiting(Wary(), [exit], [0.0]).eval()
    assert torch.equal(model(X[:1]), exit(model.network.one(X[:1])))


def test_it_is_put_down_and_made_again() -> None:
    model = leaving()
    network, tensors, told = parted(model)
    told = json.loads(json.dumps(told))
    assert network is model.network and all(map(is_told, told))
    again = joined(copy.deepcopy(network), tensors, told)
    assert torch.equal(again(X), model(X)) and again.thresholds == model.thresholds and again.places == model.places
    assert parted(network) == (network, {}, []) and joined(network, {}, []) is network


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda told, _: told[0].update(at="layer7"), r"no layer 'layer7' for an exit\. Did you mean 'layer3'"),
        (lambda _, tensors: tensors.pop("exits/0.head.bias"), r"others than those it tells of, 0\.head\.bias first"),
        (lambda told, _: told[1].update(classes=4), r"1\.head\.\w+ of its exits is .* and not \[4"),
    ],
)
def test_what_does_not_fit_is_refused(change, says) -> None:
    network, tensors, told = parted(leaving())
    told = json.loads(json.dumps(told))
    change(told, tensors)
    with pytest.raises(PlanError, match=says):
        joined(network, tensors, told)


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": 1.5},
        {"threshold": True},
        {"widths": [6]},
        {"strides": [0, 2]},
        {"classes": 10**9},
        {"at": 3},
        {"x": 1},
    ],
    ids=str,
)
def test_what_no_exit_could_be_is_told(change) -> None:
    _, _, (facts, _) = parted(leaving())
    facts = json.loads(json.dumps(facts))
    assert is_told(facts) and not is_told(facts | change)
