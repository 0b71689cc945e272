"""Filters of low rank for training from scratch: drawn as the run's seed says, cut, merged, and found in a bundle."""

import json

import pytest
import torch
from torch import nn

import penjing
from penjing.core.errors import PlanError
from penjing.data import load
from penjing.factors.layer import Basis
from penjing.factors.svd import svd
from penjing.graph.chains import as_last_stages, chains_of, put_in, stand_in, written
from penjing.graph.trace import trace
from penjing.steps.factorize import factorize
from penjing.steps.merge import merge
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from tiny import pictures, tiny

X = torch.randn(4, 3, 8, 8)
MIXED = {"lowrank_basis": {"vertical": 0.25, "horizontal": 0.25}}


def state_of(model):
    return State(model.eval(), model, None, ((X,), {}))


def in_basis(ranks=8, rewrite="lowrank_basis", folder="unused", seed=0):
    return factorize(rewrite=rewrite, ranks=ranks, include=("conv*",))(state_of(tiny()), Run(folder, seed=seed))


def test_filters_are_drawn_anew_by_the_seed_of_the_run(tmp_path):
    first, again, other = (in_basis(folder=tmp_path, seed=seed).model for seed in (0, 0, 1))
    assert type(first.conv1.basis) is Basis and first.conv1.basis.vertical.weight.shape == (4, 16, 3, 1)
    assert torch.equal(first(X), again(X)) and not torch.equal(first(X), other(X))


def test_as_many_filters_as_outputs_are_put_in_where_they_pay(tmp_path):
    assert in_basis(32, folder=tmp_path).model.conv1.join.in_channels == 32


def test_a_network_of_bases_is_trained_cut_merged_exported_and_built_again(tmp_path):
    (tmp_path / "pictures").mkdir()
    data = load(pictures(tmp_path / "pictures"), seed=0)
    steps = [
        factorize(rewrite=MIXED, ranks={"share": 0.5}, include=("conv*",)),
        {"train": {"epochs": 4, "terms": [], "lr": 0.05, "batch": 16}},
        prune(criterion="l1", include=("rank:*",), step=1),
        "recalibrate",
        "export",
    ]
    result = penjing.run(tiny(), data, steps, "macs=0.4x", folder=tmp_path / "run")
    original, small = result.results["rows"]
    assert small["macs"] <= 0.4 * original["macs"] and small["accuracy"] > 90 > original["accuracy"]
    assert [c["ok"] for c in result.results["certificates"]] == [True] * 3
    model = result.model.eval()
    assert torch.equal(penjing.load(tmp_path / "run", builder=tiny)(X), model(X))
    whole = merge(every=True)(State(model, tiny(), None, ((X,), {})), Run(tmp_path)).model
    assert type(whole.conv1) is nn.Conv2d and torch.allclose(whole(X), model(X), atol=1e-5)


def test_a_budget_decides_how_many_filters_there_are(tmp_path):
    run = Run(tmp_path, {"macs": "0.5x"})
    model = factorize(rewrite="lowrank_basis")(state_of(tiny()), run).model
    costs = [sum(layer.macs for layer in trace(m, (X,), proof=False).layers) for m in (model, tiny())]
    assert costs[0] <= 0.5 * costs[1] and chains_of(model)


def test_filters_may_be_chains_themselves(tmp_path):
    model = in_basis(rewrite=MIXED, folder=tmp_path).model
    put_in(model, "conv1.basis.square", svd().split(model.conv1.basis.square, 1))
    told = json.loads(json.dumps(written(model)))
    again = tiny()
    stand_in(again, told)
    again.to_empty(device="cpu").load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(X), model(X))
    graph = trace(model, (X,), proof=False)
    assert "conv1.basis.square.last.weight" in graph.ranks and "conv1.join.weight" not in graph.ranks
    told["conv1"]["basis"]["beside"]["vertical"]["kind"] = "lambda"
    with pytest.raises(PlanError, match="The chain conv1 has a stage that is no shape of a layer"):
        stand_in(tiny(), told)


def test_the_last_layer_of_nested_chains_stands_for_the_layer(tmp_path):
    model = in_basis(folder=tmp_path).model
    put_in(model, "conv1.join", svd().split(model.conv1.join, 2))
    found = {one.name: one for one in as_last_stages(trace(tiny(), (X,), proof=False), model)[0].layers}
    last = found["conv1.join.last"]
    assert last.weight == "conv1.join.last.weight" and (last.in_channels, last.in_size) == (2, (8, 8))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rewrite": {"lowrank_basis": {"vertical": 0.8}}, "ranks": 2}, "shares of the filters that add up to at most"),
        ({"rewrite": "lowrank_basis", "ranks": "evbmf", "include": ("conv2",)}, "conv2 would get filters drawn anew"),
        ({"rewrite": "lowrank_basis", "ranks": 2, "include": ("linear",)}, "linear is a linear layer"),
        ({"rewrite": MIXED}, "a budget decides ranks of lowrank_basis as it is"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path, options, said):
    with pytest.raises(PlanError) as caught:
        factorize(**options)(state_of(tiny()), Run(tmp_path))
    assert said in str(caught.value)
