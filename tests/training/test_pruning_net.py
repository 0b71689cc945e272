"""The network that writes weights: that it begins where the network is, learns, and writes what a cut would hold."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.core.units import Kept
from penjing.graph.graph import Graph
from penjing.graph.surgery import cut
from penjing.graph.trace import plain, trace
from penjing.training import pruning_net
from penjing.training.pruning_net import PruningNet
from tiny import tiny


def made(model: nn.Module, x: torch.Tensor, hidden: int = 8) -> tuple[PruningNet, Graph]:
    """Build one whose weights depend on the widths, with units ranked at random."""
    graph = trace(model, (x,))
    sites = [site for site in graph.sites if site.size > 1]
    rng = np.random.default_rng(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = PruningNet(model, graph, sites, {s.name: rng.permutation(s.size) for s in sites}, hidden)
        for generator in net.generators:
            last: Any = generator[-1]  # type: ignore[index]
            nn.init.normal_(last.weight, std=0.01)
    return net, graph


def halves(net: PruningNet) -> dict[str, Kept]:
    return {site.name: np.sort(net._orders[site.name][: max(1, site.size // 2)]) for site in net._sites}


PICTURES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_it_begins_as_the_network_it_was_made_of() -> None:
    model = plain(tiny())
    graph = trace(model, (PICTURES,))
    net = PruningNet(model, graph, graph.sites, {s.name: np.arange(s.size) for s in graph.sites}).eval()
    torch.testing.assert_close(net(PICTURES), model(PICTURES), rtol=0, atol=0)
    assert all(torch.equal(net.weights({})[name], p) for name, p in model.named_parameters() if p.dim() == 4)


@pytest.mark.parametrize("build", [tiny, zoo.resnet20], ids=["tiny", "resnet20"])
def test_what_is_written_for_widths_is_what_the_cut_network_computes(build: Any) -> None:
    model = plain(build())
    net, graph = made(model, PICTURES)
    kept = halves(net)
    weights = net.weights(kept)
    assert all(weights[name].shape == model.get_parameter(name).shape for name in weights)
    net.eval()
    expected = torch.func.functional_call(net.network, weights, (PICTURES,))
    smaller = net.written(kept)
    cut(smaller, graph, kept)
    assert sum(p.numel() for p in smaller.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(smaller.eval()(PICTURES), expected, rtol=1e-4, atol=1e-5)
    assert all(p.requires_grad for p in smaller.parameters())


def test_widths_change_the_weights_that_lie_beside_them_alone() -> None:
    net, _ = made(plain(tiny()), PICTURES)
    narrow = next(site for site in net._sites if site.size == 32)
    kept = {narrow.name: net._orders[narrow.name][:16]}
    whole, narrowed = net.weights({}), net.weights(kept)
    assert torch.equal(whole["stem.weight"], narrowed["stem.weight"])
    assert not torch.equal(whole["conv1.weight"], narrowed["conv1.weight"])
    gone = np.setdiff1d(np.arange(32), kept[narrow.name])
    assert not narrowed["conv2.weight"][:, gone].any() and narrowed["conv2.weight"].any()


def test_gradients_reach_the_generators_and_no_weight_they_replace() -> None:
    net, _ = made(plain(tiny()), PICTURES)
    net.train()
    before = copy.deepcopy(dict(net.network.named_parameters()))
    adam = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net(PICTURES).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for generator in net.generators for p in generator.parameters())
    adam.step()
    after = dict(net.network.named_parameters())
    assert all(
        torch.equal(before[name], after[name]) == (p.dim() == 4) for name, p in after.items() if "bn0" not in name
    )


def test_widths_are_drawn_over_all_scales_and_by_rank() -> None:
    net, _ = made(plain(tiny()), PICTURES)
    site = max(net._sites, key=lambda s: s.size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [net.drawn()[site.name] for _ in range(300)]
    assert {len(units) for units in drawn} == {site.allowed(s * site.size + 0.5) for s in pruning_net.SCALES}
    assert all(units.tolist() == net._orders[site.name][: len(units)].tolist() for units in drawn)


def test_generators_of_large_weights_have_fewer_hidden_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning_net, "MOST", 10_000)
    net, _ = made(plain(tiny()), PICTURES, hidden=32)
    sizes = [(generator[0].out_features, generator[2].weight.numel()) for generator in net.generators]  # type: ignore[index,union-attr]
    assert [units for units, _ in sizes] == [10_000 // (3 * 16 * 9), 10_000 // (16 * 32 * 9), 10_000 // (16 * 32 * 9)]
    assert all(numbers <= 10_000 for _, numbers in sizes)
