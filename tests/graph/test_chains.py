"""Layers that chains may stand in for, chains in a network, and what of them a bundle needs."""

import json

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.factors.layer import LayerSpec
from penjing.factors.svd import svd
from penjing.graph.chains import as_last_stages, chains_of, merged, prove_chains, put_in, stand_in, written
from penjing.graph.trace import trace
from tiny import tiny

X = torch.randn(2, 3, 8, 8)


class Own(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class Net(nn.Module):
    """A layer that runs twice, one of a class of its own, one held in two places, and one like any other."""

    def __init__(self):
        super().__init__()
        self.twice, self.own = nn.Conv2d(3, 3, 3, padding=1), Own(3, 8, 3)
        self.tied, self.other = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.tied.weight = self.other.weight
        self.plain = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.own(self.twice(self.twice(x)).relu()).relu()
        return self.plain((self.tied(x) + self.other(x)).relu()).mean((2, 3))


def in_chains(model, *names, rank=4):
    for name in names:
        put_in(model, name, svd("spatial").split(model.get_submodule(name), rank, name))
    return model


def test_only_modules_of_torchs_own_that_run_once_in_one_place_may_be_replaced():
    graph = trace(Net(), (X,), proof=False)
    assert list(graph.modules) == ["plain.weight"] and graph.modules["plain.weight"].out_channels == 4


def test_ranks_are_what_a_chain_hands_on():
    model = in_chains(tiny(), "conv1", "conv2")
    graph = trace(model, (X,), proof=False)
    assert graph.ranks == {"conv1.first.weight", "conv2.first.weight"}
    assert {"conv1.first", "conv2.first"} <= {site.name for site in graph.sites}
    assert set(chains_of(model)) == {"conv1", "conv2"} and not chains_of(tiny())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_network_is_built_again_from_what_was_written_of_its_chains(dtype):
    model = in_chains(tiny().to(dtype), "conv1")
    put_in(model, "conv1.last", svd().split(model.get_submodule("conv1.last"), 2))  # a chain within a chain
    again = tiny().to(dtype)
    stand_in(again, json.loads(json.dumps(written(model))))
    told = {name: (p.shape, p.dtype) for name, p in model.named_parameters()}
    assert {name: (p.shape, p.dtype) for name, p in again.named_parameters()} == told
    again.to_empty(device="cpu").load_state_dict(model.state_dict())
    x = X.to(dtype)
    assert torch.equal(again.eval()(x), model.eval()(x))
    stand_in(again, written(model))
    assert torch.equal(again(x), model(x)), "what is a chain already stays"


GOOD = {"first": {**vars(LayerSpec("conv", 16, 4, (3, 1)))}, "last": {**vars(LayerSpec("conv", 4, 32, (1, 3)))}}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "lambda"}, {"in_channels": 0}, {"in_channels": "16"}, {"out_channels": 2**40}, {"kernel": [3]},
        {"kernel": 3}, {"padding": "none"}, {"groups": 5}, {"bias": 1}, {"padding_mode": "wrong"}, {"more": 1},
        {"dilation": [1, True]},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_shape_of_a_layer_is_refused(wrong):
    with pytest.raises(PlanError, match="The chain conv1 has a stage that is no shape of a layer"):
        stand_in(tiny(), {"conv1": {"first": GOOD["first"] | wrong, "last": GOOD["last"]}})


def test_a_chain_of_a_layer_that_is_not_there_is_refused():
    with pytest.raises(PlanError, match="has no module 'conv9'"):
        stand_in(tiny(), {"conv9": GOOD})


def test_the_proof_sees_a_chain_that_is_not_its_product():
    model = in_chains(tiny().eval(), "conv1")
    graph = trace(tiny().eval(), (X,), proof=False)
    certificate = prove_chains(graph, model, tiny())
    assert certificate.ok and certificate.name == "chains equal their products"
    assert type(merged(model, tiny()).conv1) is nn.Conv2d
    model.conv1.last.padding = (0, 0)
    assert not prove_chains(graph, model, tiny()).ok, "the merged layer is padded in one direction only"
    model.conv1.first.stride = (2, 1)
    assert not prove_chains(graph, model, tiny()).ok


def test_the_last_stage_stands_for_the_layer():
    model = in_chains(tiny(), "conv1")
    graph = trace(tiny(), (X,), proof=False)
    found = {layer.name: layer for layer in as_last_stages(graph, model)[0].layers}
    last = found["conv1.last"]
    assert last.weight == "conv1.last.weight" and (last.in_channels, last.out_channels, last.kernel) == (4, 32, (1, 3))
    assert last.padding == (0, 1) and (last.in_units == -1).all() and "conv2" in found
