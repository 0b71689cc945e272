"""Chains that no longer pay are priced as the layer that they compute, and become it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.graph.chains import chains_of, put_in
from penjing.graph.draft import Draft
from penjing.graph.folds import fold, with_folds
from penjing.graph.graph import Graph
from penjing.graph.surgery import cut
from penjing.graph.trace import trace
from penjing.rewrites.channels import channels
from tiny import tiny

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
FORMS: list[Any] = ["svd", {"svd": {"form": "input"}}, {"svd": {"form": "spatial"}}, "tucker2"]


def factored(by: Any) -> tuple[nn.Module, Graph]:
    model = tiny().eval()
    factorization = build("factorization", by)
    for path in ("conv1", "conv2"):
        module = model.get_submodule(path)
        put_in(model, path, factorization.split(module, factorization.full(_spec(module)), path))
    put_in(model, "linear", build("factorization", "svd").split(model.get_submodule("linear"), 3))
    return model, trace(model, (X,))


def _spec(module: nn.Module) -> Any:
    from penjing.factors.layer import read

    return read(module)


NETWORKS = {str(by): factored(by) for by in FORMS}


@pytest.mark.parametrize("by", FORMS, ids=str)
@settings(max_examples=12, deadline=None)
@given(shares=st.lists(st.sampled_from([0.1, 0.4, 0.8, 1.0, 1.0]), min_size=12, max_size=12))
def test_prices_are_those_of_what_is_cut_and_folded(by: Any, shares: list[float]) -> None:
    model, traced = NETWORKS[str(by)]
    graph, sites = with_folds(traced, channels().find(traced))
    assert set(graph.folds) == {"conv1", "conv2", "linear"}
    counts = {site.name: max(1, round(share * site.size)) for site, share in zip(sites, shares, strict=False)}
    plan = Plan.of("channels", {name: np.arange(n) for name, n in counts.items()}, sites)
    draft = Draft(graph, plan, lambda: model)
    small = copy.deepcopy(model)
    cut(small, graph, plan.of_rewrite("channels"))
    made = fold(small, draft.folds)
    again = Draft(trace(made, (X,), proof=False), Plan(), lambda: made)
    assert set(chains_of(made)) == {"conv1", "conv2", "linear"} - set(draft.folds)
    assert [(one.name, one.macs) for one in draft.layers] == [(one.name, one.macs) for one in again.layers]
    assert draft.parameters == sum(p.numel() for p in made.parameters()) and draft.nonzero == again.nonzero
    assert draft.peak_elements == again.peak_elements
    torch.testing.assert_close(made(X), small(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("by", FORMS, ids=str)
def test_the_most_ranks_are_the_last_that_pay(by: Any) -> None:
    model, traced = NETWORKS[str(by)]
    graph, sites = with_folds(traced, channels().find(traced))
    for site in sites:
        if {slot.tensor for slot in site.slots_with("out")} <= graph.ranks and site.most:
            path = site.name.rpartition(".")[0]
            for count, pays in ((site.most, True), (site.most + 1, False)):
                plan = Plan.of("channels", {site.name: np.arange(count)}, sites)
                assert (path not in Draft(graph, plan, lambda: model).folds) == pays
    assert any(site.most for site in sites)


def test_only_chains_whose_ranks_are_in_play_fold() -> None:
    _, traced = NETWORKS["tucker2"]
    some = [site for site in channels().find(traced) if site.name != "conv2.first"]
    assert set(with_folds(traced, some)[0].folds) == {"conv1", "linear"}
    assert not Draft(traced, Plan(), nn.Identity).folds
