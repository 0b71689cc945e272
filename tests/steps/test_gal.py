"""Generative adversarial learning: budgets, blocks, proofs, dead channels, sameness, refusals."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core.errors import Infeasible, PlanError
from penjing.data import load
from penjing.data.data import Data
from penjing.graph.trace import trace
from penjing.steps.gal import gal
from penjing.steps.state import Run, State
from penjing.training.loop import fit
from penjing.training.options import Options
from penjing.zoo.resnet import CifarResNet
from tiny import pictures, skilled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


@pytest.fixture(scope="module")
def deep(data: Data) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CifarResNet(2, 3, "A")
    fit(model, data.train, None, Options(epochs=2, lr=0.05, batch=16), seed=0)
    return model.eval()


def pruned(model: nn.Module, data: Data, budget: str | None = None, **options: Any) -> tuple[State, Run]:
    step = gal(**{"epochs": 2.0, "batch": 16, "images": 64, "every": 2, **options})
    state = State(copy.deepcopy(model), copy.deepcopy(model), data, ((data.example(2),), {}))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), dict([budget.split("=")]) if budget else {})
        return step(state, run), run


def macs(model: nn.Module, data: Data) -> float:
    return float(sum(layer.macs for layer in trace(model, (data.example(2),)).layers))


@pytest.mark.parametrize("structures", ["channels", "blocks", "both"])
@pytest.mark.parametrize("budget", ["macs=0.7x", "params=0.8x"])
def test_the_budget_is_kept_and_the_cut_proved(deep: nn.Module, data: Data, structures: str, budget: str) -> None:
    state, run = pruned(deep, data, budget, structures=structures)
    if budget.startswith("macs"):
        assert macs(state.model, data) <= 0.7 * macs(deep, data)
    else:
        assert sum(p.numel() for p in state.model.parameters()) <= 0.8 * sum(p.numel() for p in deep.parameters())
    (certificate,) = run.noted("certificates")
    assert certificate["ok"]
    (plan,) = state.plans
    allowed = {"channels": {"channels"}, "blocks": {"layers"}, "both": {"channels", "layers"}}[structures]
    assert set(plan.rewrites()) <= allowed


def test_a_large_penalty_closes_blocks_and_only_shortcuts_are_left(deep: nn.Module, data: Data) -> None:
    state, run = pruned(deep, data, structures="blocks", penalty=50.0, include=("layer1.*",))
    assert run.noted("gal")[0] == {"masks": 2, "closed": 2, "sites": 2, "cut": 2}
    model: Any = state.model
    assert all(type(block) is nn.Identity for block in model.layer1)
    assert type(model.layer2[1]) is not nn.Identity


def test_of_channels_those_go_that_nobody_listens_to(data: Data) -> None:
    model: Any = skilled()
    with torch.no_grad():
        model.conv2.weight[:, ::2] = 0
    state, _ = pruned(model, data, "macs=0.75x", include=("conv1",), every=1, epochs=8.0)
    (plan,) = state.plans
    kept = plan.of_rewrite("channels")["conv1"]
    gone = sorted(set(range(32)) - set(kept.tolist()))
    assert len(kept) % 4 == 0 and len(gone) == 12 and sum(unit % 2 == 0 for unit in gone) >= 10


def test_a_penalty_that_would_close_all_is_lowered_under_a_budget(data: Data) -> None:
    _, run = pruned(skilled(), data, "macs=0.75x", include=("conv1",), every=1, epochs=8.0, penalty=1.0)
    (told,) = run.noted("gal")
    _, free = pruned(skilled(), data, include=("conv1",), every=1, epochs=8.0, penalty=1.0)
    assert 8 <= told["closed"] <= 16 < free.noted("gal")[0]["closed"]


def test_the_same_seed_gives_the_same_network(deep: nn.Module, data: Data) -> None:
    first, second = (pruned(deep, data, "macs=0.6x", epochs=1.0)[0].model for _ in range(2))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_site_that_is_shut_is_told(data: Data) -> None:
    _, run = pruned(skilled(), data, penalty=100.0, include=("conv1",))
    assert "All masks of conv1 closed" in run.noted("remarks")[0]


def test_what_cannot_be_reached_is_refused_before_training(deep: nn.Module, data: Data) -> None:
    with pytest.raises(Infeasible, match=r"macs 0\.001x is .* lowest reachable"):
        pruned(deep, data, "macs=0.001x", epochs=1e6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"gal: epochs must be a number above 0; got 0"),
        ({"penalty": float("nan")}, r"gal: penalty must be a number above 0"),
        ({"adversarial": -1.0}, r"gal: adversarial is a weight, 0 or more"),
        ({"structures": "filters"}, r"gal: structures is one of channels, blocks, both; got 'filters'"),
        ({"every": 0}, r"gal: every must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        gal(**options)


def test_a_network_without_blocks_is_told_what_to_do(data: Data) -> None:
    with pytest.raises(PlanError, match=r"gal: no residual block .* take structures channels"):
        pruned(skilled(), data, structures="blocks")
