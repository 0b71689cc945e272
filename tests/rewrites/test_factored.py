"""Factorisations as rewrites: which layers and ranks are offered, and what a draft foretells, also beside channels."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.plan import Plan
from penjing.core.protocols import Factoring
from penjing.core.registry import build, entries
from penjing.graph.draft import Draft
from penjing.graph.trace import trace
from penjing.rewrites.perform import perform
from tiny import tiny

X = torch.randn(2, 3, 8, 8)
FACTORING = sorted(name for name in entries("rewrite") if isinstance(build("rewrite", name), Factoring))


class Wide(nn.Module):
    """A stride, a dilation, groups, a depthwise layer, padding by name, and a linear layer over positions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 5, 2, 2)
        self.grouped = nn.Conv2d(24, 32, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.wide = nn.Conv2d(32, 40, 3, padding=2, dilation=2)
        self.same = nn.Conv2d(40, 24, 3, padding="same", padding_mode="circular")
        self.mix, self.head = nn.Linear(24, 36), nn.Linear(36, 5)

    def forward(self, x):
        x = self.depthwise(self.grouped(self.stem(x).relu()).relu()).relu()
        x = self.same(self.wide(x).relu()).relu()
        return self.head(self.mix(x.permute(0, 2, 3, 1)).relu().mean((1, 2)))


@pytest.mark.parametrize("name", FACTORING)
def test_a_draft_foretells_what_is_made_beside_channels_that_go(name):
    model = Wide().eval()
    graph, change = trace(model, (torch.randn(2, 3, 17, 16),), proof=False), build("rewrite", name)
    sites = change.find(graph)
    assert sites and all(0 < site.most < site.size for site in sites)
    assert not any(site.name.startswith("depthwise") for site in sites)
    ranks = [e for s in sites for e in Plan.of(name, {s.name: np.arange(s.allowed(0.1 * s.size))}, sites)]
    widths = Plan.of("channels", {s.name: np.arange(0, s.size, 2) for s in graph.sites if s.size > 9}, graph.sites)
    plan = Plan((*widths, *ranks))
    small = copy.deepcopy(model)
    perform(small, graph, plan, {"channels": build("rewrite", "channels"), name: change})
    again, draft = trace(small, graph.example[0], proof=False), Draft(graph, plan, lambda: small)
    facts = ("name", "weight", "in_channels", "out_channels", "kernel", "stride", "groups", "in_size", "out_size")
    for made, told in zip(again.layers, draft.layers, strict=True):
        assert {key: getattr(made, key) for key in facts} == {key: getattr(told, key) for key in facts}
    assert draft.parameters == sum(p.numel() for p in small.parameters())
    assert [layer.name for layer in again.layers] != [layer.name for layer in graph.layers]


def test_ranks_that_do_not_pay_are_not_offered():
    """A 64 -> 64 convolution of 3 x 3 costs the same in two at a rank of 57.6."""
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(64, 64, 3, bias=False))
    sites = build("rewrite", "svd").find(trace(model, (torch.randn(2, 64, 8, 8),), proof=False))
    assert [(s.name, s.size, s.most) for s in sites] == [("0/rank", 64, 57), ("2/rank", 64, 57)]
    assert [sites[0].allowed(n) for n in (64, 63, 57, 10)] == [64, 57, 57, 10]
    assert sites[0].below(64) == 57 and sites[0].above(57, 1) == 64


def test_scores_are_shares_of_the_squared_weights():
    model = tiny()
    graph, change = trace(model, (X,), proof=False), build("rewrite", "tucker2")
    for site in change.find(graph):
        scores = change.scores(model, site)
        assert len(scores) == site.size and float(scores.sum()) == pytest.approx(1) and bool((scores.diff() <= 0).all())


@pytest.mark.parametrize(("axis", "stages"), [("in", ["first", "last"]), ("out", ["first", "last"])])
def test_an_axis_of_tucker_that_stays_whole_has_no_factor(axis, stages):
    model = tiny()
    graph, change = trace(model, (X,), proof=False), build("rewrite", "tucker2")
    change.apply(model, graph, {f"conv1/{axis}": np.arange(5)})
    assert [name for name, _ in model.conv1.named_children()] == stages
    change.apply(model, graph, {"conv2/in": np.arange(5), "conv2/out": np.arange(4)})
    assert [name for name, _ in model.conv2.named_children()] == ["first", "core", "last"]


def test_a_layer_of_low_rank_is_written_exactly():
    model = tiny().eval()
    with torch.no_grad():
        model.conv1.weight.copy_((torch.randn(32, 3) @ torch.randn(3, 16 * 9)).view(32, 16, 3, 3))
    graph, before = trace(model, (X,), proof=False), model(X)
    build("rewrite", "svd").apply(model, graph, {"conv1/rank": np.arange(3)})
    assert torch.allclose(model(X), before, atol=1e-4) and model.conv1.first.out_channels == 3


def test_a_chain_that_does_not_pay_once_channels_are_gone_leaves_the_layer():
    model = tiny()
    graph, change = trace(model, (X,), proof=False), build("rewrite", "svd")
    widths = {"conv1": np.arange(2)}
    plan = Plan(
        (*Plan.of("channels", widths, graph.sites), *Plan.of("svd", {"conv1/rank": np.arange(8)}, change.find(graph)))
    )
    perform(model, graph, plan, {"channels": build("rewrite", "channels"), "svd": change})
    assert type(model.conv1) is nn.Conv2d
    assert Draft(graph, plan, lambda: model).parameters == sum(p.numel() for p in model.parameters())


def test_between_the_stages_memory_may_be_needed():
    model = tiny()
    graph, change = trace(model, (X,), proof=False), build("rewrite", "svd_spatial")
    sites = change.find(graph)
    peaks = [
        Draft(graph, Plan.of("svd_spatial", {"conv1/rank": np.arange(n)}, sites), tiny).peak_elements for n in (2, 30)
    ]
    whole = Draft(graph, Plan(), tiny).peak_elements
    assert peaks[0] <= whole or peaks[0] < peaks[1]
    assert peaks[1] >= whole
