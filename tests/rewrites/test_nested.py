"""Channels and weights of a ResNet that go with a block, and those that do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.core.sites import Site
from penjing.core.units import Kept
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.graph.trace import plain, trace
from penjing.rewrites.nested import nested
from penjing.zoo import resnet20

EXAMPLE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def graph() -> Graph:
    return trace(plain(resnet20()), (EXAMPLE,), proof=False)


def found(graph: Graph, *rewrites: str) -> dict[str, Site]:
    """The sites of these rewrites, by name."""
    changes = {name: build("rewrite", name) for name in rewrites}
    sites = [replace(site, rewrite=name) for name, change in changes.items() for site in change.find(graph)]
    return {site.name: site for site in nested(graph, sites, changes)}


def test_channels_lie_in_their_block_and_the_stream_in_none(graph: Graph) -> None:
    within = {name: site.within for name, site in found(graph, "channels", "layers").items() if site.within}
    assert within == {f"{block}.conv1": block for block in graph.blocks} and len(within) == 7


def test_weights_lie_in_their_block_as_well(graph: Graph) -> None:
    sites = found(graph, "weights", "layers")
    assert sites["layer1.1.conv2.weight"].within == "layer1.1" and sites["conv1.weight"].within == ""


def test_nothing_lies_within_a_block_that_may_not_go(graph: Graph) -> None:
    assert not any(site.within for site in found(graph, "channels").values())


class stages:
    """Takes out all blocks of the first stage together."""

    def find(self, graph: Graph) -> list[Site]:
        return [Site("first stage", "layers", 1, (), np.arange(0), least=0)]

    def removes(self, graph: Graph, kept: Mapping[str, Kept]) -> Collection[str]:
        return [name for name in graph.blocks if name.startswith("layer1.")]

    def apply(self, model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
        raise NotImplementedError


def test_of_two_that_take_it_out_a_site_lies_within_the_smaller(graph: Graph) -> None:
    changes = {"channels": build("rewrite", "channels"), "layers": build("rewrite", "layers"), "stages": stages()}
    sites = [replace(site, rewrite=name) for name, change in changes.items() for site in change.find(graph)]
    within = {site.name: site.within for site in nested(graph, sites, changes)}
    assert within["layer1.1.conv1"] == "layer1.1" and within["layer1.1"] == "first stage"
    assert within["first stage"] == within["layer2.1"] == ""
    without = [site for site in sites if site.rewrite != "layers"]
    within = {site.name: site.within for site in nested(graph, without, changes)}
    assert within["layer1.1.conv1"] == "first stage" and within["layer2.1.conv1"] == ""


def test_a_plan_costs_the_same_without_what_goes_with_its_blocks(graph: Graph) -> None:
    sites = found(graph, "channels", "layers")
    apart = [replace(site, within="") for site in sites.values()]
    kept = {name: np.arange(site.size // 2) for name, site in sites.items() if site.rewrite == "channels"}
    kept |= {name: np.arange(0) for name in ("layer1.1", "layer3.2")}
    whole, normal = Plan.of("both", kept, apart), Plan.of("both", kept, list(sites.values()))
    assert {e.site for e in whole} - {e.site for e in normal} == {"layer1.1.conv1", "layer3.2.conv1"}
    one, other = (Draft(graph, plan, nn.Module) for plan in (whole, normal))
    assert [(x.name, x.macs) for x in one.layers] == [(x.name, x.macs) for x in other.layers]
    for fact in ("parameters", "nonzero", "buffers", "peak_elements"):
        assert getattr(one, fact) == getattr(other, fact), fact
