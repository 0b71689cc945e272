"""Recursive Bayesian pruning, against oracles: dead channels, twins, budgets."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import Infeasible, PlanError
from penjing.data import load
from penjing.data.data import Data
from penjing.graph.trace import trace
from penjing.steps.rbp import rbp
from penjing.steps.state import Run, State
from penjing.training.loop import fit
from tiny import pictures, skilled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return skilled()


def pruned(model: nn.Module, data: Data, budget: str | None = None, **options: Any) -> tuple[State, Run]:
    step = rbp(**{"epochs": 1.0, "batch": 16, "images": 64, **options})
    state = State(copy.deepcopy(model), copy.deepcopy(model), data, ((data.example(2),), {}))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), parse(budget))
        return step(state, run), run


def parse(budget: str | None) -> dict[str, str]:
    return dict([budget.split("=")]) if budget else {}


def kept(state: State, site: str) -> list[int]:
    (plan,) = state.plans
    return [int(unit) for unit in plan.of_rewrite("channels")[site]]


def macs(model: nn.Module, data: Data) -> float:
    return float(sum(layer.macs for layer in trace(model, (data.example(2),)).layers))


def with_dead_channels(net: nn.Module) -> nn.Module:
    """Nobody listens to every other channel of conv1."""
    model: Any = copy.deepcopy(net)
    with torch.no_grad():
        model.conv2.weight[:, ::2] = 0
    return model


@pytest.mark.parametrize("prior", ["ard", "dirac_fixed", "loguniform"])
def test_exactly_the_channels_go_that_nobody_listens_to(net: nn.Module, data: Data, prior: str) -> None:
    model = with_dead_channels(net)
    state, _ = pruned(model, data, include=("conv1",), epochs=6.0, beta=1e-7, lr=1e-9, gate_lr=0.004, prior=prior)
    assert kept(state, "conv1") == list(range(1, 32, 2))


@pytest.mark.parametrize("options", [{}, {"recursive": False}, {"warm": False}, {"data_term": "labels"}], ids=str)
def test_the_budget_is_kept_and_every_cut_is_proved(net: nn.Module, data: Data, options: dict[str, Any]) -> None:
    state, run = pruned(net, data, "macs=0.5x", **options)
    assert macs(state.model, data) <= 0.5 * macs(net, data)
    assert len(run.noted("certificates")) == len(state.plans) >= 1
    assert all(certificate["ok"] for certificate in run.noted("certificates"))
    assert len(run.noted("rbp")) == (1 if options.get("recursive") is False else 2)


def test_noise_beyond_the_budget_stays(net: nn.Module, data: Data) -> None:
    """Inferred all at once, gates that move fast would take most of the network."""
    options = {"recursive": False, "gate_lr": 0.3, "prior": "loguniform", "epochs": 3.0}
    state, _ = pruned(net, data, "macs=0.7x", **options)
    assert 0.6 * macs(net, data) < macs(state.model, data) <= 0.7 * macs(net, data)


def test_the_same_seed_gives_the_same_network(net: nn.Module, data: Data) -> None:
    first, second = (pruned(net, data, "macs=0.5x", epochs=0.5)[0].model for _ in range(2))
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_reached_is_refused(net: nn.Module, data: Data) -> None:
    with pytest.raises(Infeasible, match=r"macs 0\.001x is .* lowest reachable"):
        pruned(net, data, "macs=0.001x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"rbp: epochs must be a number above 0; got 0"),
        ({"prior": "gauss"}, r"rbp: prior is one of ard, dirac_fixed, loguniform; got 'gauss'"),
        ({"data_term": "loss"}, r"rbp: data_term is outputs or labels"),
        ({"images": 0}, r"rbp: images must be 1 or more"),
        ({"threshold": float("nan")}, r"rbp: threshold is that of"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        rbp(**options)


def test_sites_that_match_nothing_are_named(net: nn.Module, data: Data) -> None:
    with pytest.raises(PlanError, match=r"rbp: no channel that may go is read by a layer and matches include"):
        pruned(net, data, "macs=0.5x", include=("nothing",))


def test_a_run_that_was_killed_between_two_sites_ends_as_if_it_had_not_been(
    net: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [{"rbp": {"epochs": 1, "batch": 16, "images": 64}}]

    def go(folder: str) -> nn.Module:
        return penjing.run(copy.deepcopy(net), data, steps, "macs=0.5x", folder=tmp_path / folder).model

    whole = go("whole")
    calls, real = [], fit

    def killed(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise SystemExit
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr("penjing.steps.learned.fit", killed)
        with pytest.raises(SystemExit):
            go("broken")
    again = go("broken")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
