"""Gates: a gate of zero is a cut, and what gates do can be folded into the weights."""

# A module call is typed as Any by torch.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graph.checks import Network, outputs
from nets.grammar import random_net
from penjing.core.errors import PlanError
from penjing.graph.gates import Gates, closed, fold
from penjing.graph.proof import difference
from penjing.graph.surgery import cut
from penjing.graph.trace import trace
from tiny import tiny

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def net() -> Network:
    return Network("tiny", tiny().eval(), (X,), {})


def with_gates(net: nn.Module, gates: Gates, values: dict[str, Tensor], *args: Tensor) -> list[Tensor]:
    handles = gates.attach(net, lambda _: values)
    try:
        return outputs(net, (args or (X,), {}))
    finally:
        for handle in handles:
            handle.remove()


def test_open_gates_change_nothing_and_detaching_leaves_nothing(net: Network) -> None:
    names = [site.name for site in net.graph.sites]
    ones = {site.name: torch.ones(site.size) for site in net.graph.sites}
    (before,) = outputs(net.model, ((X,), {}))
    assert torch.equal(with_gates(net.model, Gates(net.graph, names), ones)[0], before)
    assert not net.model._forward_hooks and not net.model._forward_pre_hooks


@pytest.mark.parametrize("seed", range(12))
def test_closed_gates_are_a_cut_in_any_network(seed: int) -> None:
    model, args = random_net(seed)
    graph = trace(model, args)
    names, kept, rng = [], {}, np.random.default_rng(seed)
    for site in graph.sites:
        try:
            Gates(graph, [site.name])
        except PlanError:
            continue
        names.append(site.name)
        kept[site.name] = np.sort(rng.choice(site.size, max(site.fewest, site.size // 2), replace=False))
    gates = Gates(graph, names)
    silent = with_gates(
        model, gates, {s.name: closed(s.size, kept[s.name]) for s in graph.sites if s.name in kept}, *args
    )
    small = copy.deepcopy(model)
    cut(small, graph, kept)
    assert difference(silent, outputs(small, (args, {}))) < 1e-4


@pytest.mark.parametrize("seed", range(12))
def test_folded_gates_compute_as_gates_do(seed: int) -> None:
    model, args = random_net(seed)
    graph = trace(model, args)
    rng = torch.Generator().manual_seed(seed)
    values = {}
    for site in graph.sites:
        try:
            Gates(graph, [site.name])
        except PlanError:
            continue
        values[site.name] = torch.rand(site.size, generator=rng) + 0.25
    gated = with_gates(model, Gates(graph, list(values)), values, *args)
    folded = copy.deepcopy(model)
    fold(folded, graph, values)
    assert difference(gated, outputs(folded, (args, {}))) < 1e-4


def test_each_sample_may_have_gates_of_its_own(net: Network) -> None:
    site = net.graph.sites[0]
    gates = Gates(net.graph, [site.name])
    own = torch.ones(len(X), site.size)
    own[1] = 0
    (whole,) = outputs(net.model, ((X,), {}))
    (mixed,) = with_gates(net.model, gates, {site.name: own})
    (none,) = with_gates(net.model, gates, {site.name: torch.zeros(site.size)})
    torch.testing.assert_close(mixed[[0, 2, 3]], whole[[0, 2, 3]])
    torch.testing.assert_close(mixed[1], none[1])


def test_the_gradient_by_a_gate_is_that_of_the_evidence(net: Network) -> None:
    from penjing.graph.evidence import Evidence

    y = torch.tensor([0, 1, 2, 0])
    for site in net.graph.sites:
        gate = torch.ones(len(X), site.size, requires_grad=True)
        handles = Gates(net.graph, [site.name]).attach(net.model, lambda _, gate=gate, name=site.name: {name: gate})
        nn.functional.cross_entropy(net.model(X), y, reduction="sum").backward()
        for handle in handles:
            handle.remove()
        expected = Evidence(net.model, net.graph, [(X, y)]).gate_gradients(site)
        assert gate.grad is not None
        torch.testing.assert_close(gate.grad, expected, atol=1e-5, rtol=1e-4)


def test_a_site_that_is_not_there_has_no_gate(net: Network) -> None:
    with pytest.raises(PlanError, match=r"No layer reads nowhere"):
        Gates(net.graph, ["nowhere"])
