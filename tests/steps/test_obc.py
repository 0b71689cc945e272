"""One-shot zeros: as many as plain magnitude, chosen better, in layers of all kinds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.data import load
from penjing.data.data import Data
from penjing.graph.trace import plain
from penjing.steps.obc import obc
from penjing.steps.prune import prune
from penjing.steps.reconstruct import reconstruct
from penjing.steps.state import Run, State
from tiny import pictures, skilled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return skilled()


def taken(model: nn.Module, data: Data, *steps: Any, budget: dict[str, str] | None = None) -> State:
    state = State(plain(model), plain(model), data, ((data.example(2),), {}))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), budget or {})
        for step in steps:
            state = step(state, run)
    return state


def counts(model: nn.Module) -> dict[str, int]:
    return {name: int((p != 0).sum()) for name, p in model.named_parameters() if p.ndim > 1}


def distance(state: State, data: Data) -> float:
    """Return how far the outputs are from the original's, on pictures that the fit has not seen."""
    x = torch.cat([x for x, _ in data.test.batches(64)])
    with torch.no_grad():
        return float((state.model(x) - state.original(x)).square().sum() / state.original(x).square().sum())


@pytest.mark.parametrize("exact", [0, 320])
def test_it_is_nearer_to_the_original_than_magnitude_at_equal_counts(net: nn.Module, data: Data, exact: int) -> None:
    budget = {"nonzero": "0.1x"}
    surgeon = taken(net, data, obc(exact=exact), budget=budget)
    magnitude = taken(net, data, prune(rewrite="weights", criterion="lamp"), reconstruct(), budget=budget)
    assert counts(surgeon.model) == counts(magnitude.model)
    assert distance(surgeon, data) < 0.8 * distance(magnitude, data)
    (plan,) = surgeon.plans
    assert {name: len(kept) for name, kept in plan.of_rewrite("weights").items()} == counts(surgeon.model)


def test_two_of_four_along_the_channels(net: nn.Module, data: Data) -> None:
    state = taken(net, data, obc(pattern="2:4", include=("conv:*",)))
    for name in ("conv1.weight", "conv2.weight"):
        assert bool(((state.model.get_parameter(name) != 0).unflatten(1, (-1, 4)).sum(2) == 2).all())
    for name in ("stem.weight", "linear.weight"):  # three channels do not divide, and a linear layer was left out
        assert bool((state.model.get_parameter(name) != 0).all())
    assert set(state.plans[0].of_rewrite("weights")) == {"conv1.weight", "conv2.weight"}


def test_it_thins_what_a_cut_has_left(net: nn.Module, data: Data) -> None:
    state = taken(net, data, prune(budget={"macs": "0.5x"}), obc(budget={"nonzero": "0.2x"}))
    whole = sum(p.numel() for p in net.parameters())
    assert sum(int((p != 0).sum()) for p in state.model.parameters()) <= 0.2 * whole
    assert [plan.rewrites() for plan in state.plans] == [["channels"], ["weights"]]


class Odd(nn.Module):
    """A weight that serves twice, groups, a depthwise and a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.deep, self.two = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.up, self.head = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.twice(torch.relu(self.twice(torch.relu(self.stem(x))))))
        return self.head(self.up(torch.relu(self.two(torch.relu(self.deep(x))))).mean((2, 3)))


def test_layers_that_cannot_be_refitted_lose_as_many_all_the_same(data: Data) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Odd().eval()
    state = taken(model, data, obc(allocator={"uniform": {"keep": 0.5}}))
    sizes = {name: p.numel() for name, p in model.named_parameters() if p.ndim > 1}
    assert counts(state.model) == {name: round(0.5 * size) for name, size in sizes.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "4:2"}, r"obc: pattern is how many of how many stay, such as '2:4'; got '4:2'"),
        ({"ridge": -1.0}, r"obc: ridge is a share"),
        ({"exact": -1}, r"obc: exact is a number of weights"),
        ({"images": 0}, r"obc: images"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        obc(**options)
