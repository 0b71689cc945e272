"""MetaPruning: a net that writes weights judges widths, and the best are cut."""

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
from penjing.steps.metapruning import metapruning
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from tiny import pictures, skilled

FEW = {"evolution": {"population": 6, "iterations": 1, "parents": 2, "mutations": 3, "crossovers": 3, "slack": 0.3}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return skilled()


def pruned(model: nn.Module, data: Data, budget: Any = "0.5x", **options: Any) -> tuple[State, Run]:
    step = metapruning(**{"epochs": 3, "batch": 16, "recalibrate": 1, "allocator": FEW, **options})
    state = State(copy.deepcopy(model), copy.deepcopy(model), data, ((data.example(2),), {}))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), {"macs": budget} if budget else {}, at="01-metapruning")
        return step(state, run), run


def macs(model: nn.Module, data: Data) -> float:
    return float(sum(layer.macs for layer in trace(model, (data.example(2),)).layers))


def test_it_searches_with_written_weights_and_hands_them_on(net: nn.Module, data: Data) -> None:
    state, run = pruned(net, data, start="generated")
    (search,) = run.noted("searches")
    assert search["allocator"] == "evolution" and search["minimise"] == "error" and search["trials"] > 2
    assert macs(state.model, data) <= 0.5 * macs(net, data)
    assert evaluate(state.model, data.val).error < 20, "it was trained for such widths; chance is 67 %"
    assert [certificate["ok"] for certificate in run.noted("certificates")] == [True]


def test_where_the_cut_network_begins_is_a_choice(net: nn.Module, data: Data) -> None:
    found = {start: pruned(net, data, start=start)[0] for start in ("scratch", "generated", "inherited")}
    assert len({state.plans[0].key for state in found.values()}) == 1
    weights: dict[str, Any] = {start: state.model.get_parameter("linear.weight") for start, state in found.items()}
    (kept,) = {tuple(entry.kept.tolist()) for entry in found["inherited"].plans[0] if entry.size == 16}
    assert torch.equal(weights["inherited"], net.get_parameter("linear.weight")[:, list(kept)])
    assert not torch.equal(weights["scratch"], weights["inherited"])
    assert not torch.equal(weights["generated"], weights["inherited"])
    assert int(found["scratch"].model.get_buffer("bn0.num_batches_tracked")) == 0


def test_the_same_seed_gives_the_same_network_and_leaves_chance_alone(net: nn.Module, data: Data) -> None:
    before = torch.random.get_rng_state()
    first, second = (pruned(net, data)[0].model for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_what_cannot_be_reached_is_refused_before_any_training(
    net: nn.Module, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penjing.steps.metapruning.fit", None)
    with pytest.raises(Infeasible, match=r"macs 0\.001x is .* lowest reachable"):
        pruned(net, data, "0.001x")
    with pytest.raises(PlanError, match=r"metapruning needs a budget"):
        pruned(net, data, budget={})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"metapruning: epochs must be 1 or more; got 0"),
        ({"hidden": 0}, r"metapruning: hidden must be 1 or more"),
        ({"lr": 0.0}, r"metapruning: lr must be a number above 0"),
        ({"start": "cold"}, r"metapruning: start is one of scratch, generated, inherited; got 'cold'"),
        ({"terms": ("hints",)}, r"metapruning: hints compares layers"),
        ({"terms": ({"fitnets": {"weight": 1}},)}, r"metapruning: fitnets compares layers"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        metapruning(**options)
