"""What holds for every rewrite there is, and so for every one that is added."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.layers import Layer
from penjing.core.plan import Plan
from penjing.core.protocols import Factoring, Quantizing, Rewrite, Zeroing
from penjing.core.registry import build, entries
from penjing.core.sites import Site
from penjing.core.units import Kept
from penjing.exporting.bundle import load, write
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.graph.quantized import floated
from penjing.graph.trace import trace
from penjing.rewrites.perform import perform

REWRITES = sorted(entries("rewrite"))


class Done:
    """A network with every second unit of every site gone, ranks as far as that pays, and the blocks that may."""

    def __init__(self, name: str, model: nn.Module, graph: Graph) -> None:
        self.rewrite: Rewrite = build("rewrite", name)
        self.sites: list[Site] = self.rewrite.find(graph)
        self.kept: dict[str, Kept] = {
            site.name: np.arange(site.allowed(site.size / 2)) if site.most else np.arange(site.least == 0, site.size, 2)
            for site in self.sites
        }
        self.model = copy.deepcopy(model)
        self.rewrite.apply(self.model, graph, self.kept)
        self.draft = Draft(graph, Plan.of(name, self.kept, self.sites), lambda: self.model)


@pytest.fixture(params=REWRITES)
def done(request: pytest.FixtureRequest, traced: tuple[nn.Module, Graph]) -> Done:
    return Done(request.param, *traced)


def test_sites_have_names_of_their_own_and_units_to_lose(done: Done) -> None:
    assert done.sites and len({site.name for site in done.sites}) == len(done.sites)
    assert all(site.fewest < site.size for site in done.sites)


def test_the_network_runs_forward_and_backward(done: Done) -> None:
    outputs = done.model(torch.randn(3, 3, 8, 8))
    outputs.square().mean().backward()
    assert outputs.shape == (3, 5) and bool(torch.isfinite(outputs).all())
    gradients = {name: p.grad for name, p in done.model.named_parameters() if p.requires_grad}
    assert all(g is not None and bool(torch.isfinite(g).all()) for g in gradients.values()), gradients


def test_the_layers_are_those_of_the_draft(done: Done) -> None:
    def shape(layer: Layer) -> tuple[object, ...]:
        return layer.name, layer.in_channels, layer.out_channels, layer.groups, layer.kernel, layer.out_size

    again = trace(done.model, (torch.randn(2, 3, 8, 8),), proof=False)
    assert [shape(layer) for layer in again.layers] == [shape(layer) for layer in done.draft.layers]
    model = floated(done.model)  # without what rounds weights, which is training's
    assert sum(p.numel() for p in model.parameters()) == done.draft.parameters
    assert sum(b.numel() for b in model.buffers()) == done.draft.buffers
    if not isinstance(done.rewrite, Quantizing):  # which rounds some to zero, as many as it will
        assert sum(int((p != 0).sum()) for p in model.parameters()) == done.draft.nonzero
    bits = {layer.weight: (layer.bits, layer.stored_bits) for layer in done.draft.layers}
    assert {layer.weight: (layer.bits, layer.stored_bits) for layer in again.layers} == bits


def test_the_file_computes_what_the_network_computes(done: Done, tmp_path: Path) -> None:
    x = torch.randn(4, 3, 8, 8)
    file = export_onnx(done.model, (x,), {}, tmp_path / "small.onnx")
    assert check_parity(done.model, file, [(x,)]).relative <= 1e-4


@pytest.mark.parametrize("name", REWRITES)
def test_keeping_everything_changes_nothing_and_something_does(name: str, traced: tuple[nn.Module, Graph]) -> None:
    model, graph = traced
    rewrite: Rewrite = build("rewrite", name)
    whole = copy.deepcopy(model)
    rewrite.apply(whole, graph, {site.name: np.arange(site.size) for site in rewrite.find(graph)})
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(whole(x), model(x))
    assert not torch.allclose(Done(name, model, graph).model(x), model(x))


def test_a_bundle_gives_the_network_back(done: Done, traced: tuple[nn.Module, Graph], tmp_path: Path) -> None:
    assert same_again(done.model, traced[0], tmp_path)


def same_again(small: nn.Module, model: nn.Module, folder: Path) -> bool:
    """Tell whether a network computes, bit by bit, what its bundle does, which is made from the original."""
    x = torch.randn(3, 3, 8, 8)
    write(folder / "small.penjing", small)
    return torch.equal(load(folder / "small.penjing", lambda: copy.deepcopy(model))(x), small.eval()(x))


@pytest.mark.parametrize("factoring", [n for n in REWRITES if isinstance(build("rewrite", n), Factoring)])
def test_all_rewrites_together_leave_what_their_draft_foretells(
    factoring: str, traced: tuple[nn.Module, Graph], tmp_path: Path
) -> None:
    """Of those that factor layers, one, and of those that round them; factors would not keep zeros."""
    model, graph = traced
    apart = Factoring | Zeroing | Quantizing
    names = [n for n in REWRITES if n in (factoring, "lsq") or not isinstance(build("rewrite", n), apart)]
    entries_ = tuple(entry for name in names for entry in Done(name, model, graph).draft.plan)
    small = copy.deepcopy(model)
    perform(small, graph, Plan(entries_), {name: build("rewrite", name) for name in names})
    draft = Draft(graph, Plan(entries_), lambda: small)
    again = trace(small, (torch.randn(2, 3, 8, 8),), proof=False)
    assert [(x.name, x.macs, x.bits) for x in again.layers] == [(x.name, x.macs, x.bits) for x in draft.layers]
    assert sum(p.numel() for p in floated(small).parameters()) == draft.parameters
    assert same_again(small, model, tmp_path)


def test_zeros_and_widths_together_leave_what_their_draft_foretells(traced: tuple[nn.Module, Graph]) -> None:
    model, graph = traced
    names = [n for n in REWRITES if not isinstance(build("rewrite", n), Factoring | Quantizing)]
    entries_ = tuple(entry for name in names for entry in Done(name, model, graph).draft.plan)
    small = copy.deepcopy(model)
    perform(small, graph, Plan(entries_), {name: build("rewrite", name) for name in names})
    assert sum(int((p != 0).sum()) for p in small.parameters()) == Draft(graph, Plan(entries_), lambda: small).nonzero


@pytest.mark.parametrize("name", REWRITES)
def test_the_model_it_was_traced_from_is_left_alone(name: str, traced: tuple[nn.Module, Graph]) -> None:
    model, graph = traced
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Done(name, model, graph)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
