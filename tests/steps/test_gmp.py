"""Gradual magnitude pruning as a step: the share asked for, or the one that the budget sets."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core.errors import Infeasible, PlanError
from penjing.data import load
from penjing.data.data import Data
from penjing.steps.gmp import gmp
from penjing.steps.state import Run, State
from penjing.steps.train import train
from tiny import pictures, tiny

WEIGHTS = ("stem.weight", "conv1.weight", "conv2.weight", "linear.weight")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


def taken(data: Data, *steps: Any, budget: dict[str, str] | None = None) -> tuple[State, Run]:
    model = tiny().eval()
    state = State(model, tiny().eval(), data, ((data.example(2),), {}))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), budget or {})
        for step in steps:
            state = step(state, run)
        return state, run


def zeros(model: nn.Module, *names: str) -> float:
    weights = [model.get_parameter(name) for name in names or WEIGHTS]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


@pytest.mark.parametrize("among", ["uniform", "global", "lamp"])
def test_the_share_that_was_asked_for_is_zero_and_the_plan_says_which(data: Data, among: str) -> None:
    state, _ = taken(data, gmp(epochs=2, batch=16, sparsity=0.8, among=among))  # type: ignore[arg-type]
    assert zeros(state.model) == pytest.approx(0.8, abs=0.001)
    if among == "uniform":
        assert all(zeros(state.model, name) == pytest.approx(0.8, abs=0.02) for name in WEIGHTS)
    (plan,) = state.plans
    for name, kept in plan.of_rewrite("weights").items():
        assert state.model.get_parameter(name).flatten().nonzero()[:, 0].tolist() == kept.tolist()


@pytest.mark.parametrize("budget", [{"nonzero": "0.2x"}, {"conv_weights": "0.1x"}], ids=str)
def test_without_a_share_the_budget_sets_it(data: Data, budget: dict[str, str]) -> None:
    state, _ = taken(data, gmp(epochs=1, batch=16, among="global"), budget=budget)
    names = [name for name in WEIGHTS if "linear" not in name] if "conv_weights" in budget else []
    left = sum(int((p != 0).sum()) for p in state.model.parameters()) / sum(p.numel() for p in tiny().parameters())
    reached = 1 - zeros(state.model, *names) if names else left
    limit = float(next(iter(budget.values())).rstrip("x"))
    assert 0.9 * limit < reached <= limit + 1e-3


def test_zeros_stay_zero_in_the_training_after_it(data: Data) -> None:
    state, _ = taken(data, gmp(epochs=1, batch=16, sparsity=0.5), train(epochs=1, batch=16))
    assert zeros(state.model) == pytest.approx(0.5, abs=0.001)


def test_a_second_one_goes_on_from_the_zeros_there_are(data: Data) -> None:
    first = gmp(epochs=1, batch=16, sparsity=0.5)
    half, _ = taken(data, first)
    state, _ = taken(data, first, gmp(epochs=1, batch=16, sparsity=0.8))
    assert zeros(state.model) == pytest.approx(0.8, abs=0.001)
    for name in WEIGHTS:
        was = half.model.get_parameter(name) == 0
        assert bool((state.model.get_parameter(name)[was] == 0).all())


def test_layers_that_are_left_out_stay_dense(data: Data) -> None:
    state, _ = taken(data, gmp(epochs=1, batch=16, sparsity=0.5, include=("conv:*",), exclude=("stem*",)))
    assert zeros(state.model, "conv1.weight", "conv2.weight") == pytest.approx(0.5, abs=0.001)
    assert zeros(state.model, "stem.weight", "linear.weight") < 0.01


def test_the_same_seed_gives_the_same_network(data: Data) -> None:
    first, second = (taken(data, gmp(epochs=1, batch=16, sparsity=0.7))[0].model.state_dict() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


def test_a_budget_that_zeros_do_not_lower_is_refused(data: Data) -> None:
    with pytest.raises(Infeasible, match=r"gmp: no share of zero weights meets the budget: macs 0\.5x is .* Bound"):
        taken(data, gmp(epochs=1), budget={"macs": "0.5x"})
    with pytest.raises(PlanError, match=r"gmp needs a sparsity, or a budget such as nonzero=0\.2x"):
        taken(data, gmp(epochs=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 1.0}, r"gmp: sparsity is the share .* got 1\.0"),
        ({"among": "layers"}, r"gmp: among is one of uniform, global, lamp; got 'layers'"),
        ({"begin": 0.8}, r"gmp: begin and end are shares .* got 0\.8 and 0\.7"),
        ({"every": 0}, r"gmp: every is a number of steps"),
        ({"keep": "best"}, r"gmp: keep best would go back"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        gmp(**options)
