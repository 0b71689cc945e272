"""Chains fitted one after the other: nearer than each by itself, and not to be had nearer by their last stage."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.graph.trace import trace
from penjing.rewrites.svd_asymmetric import svd_asymmetric
from penjing.rewrites.svd_nonlinear import svd_nonlinear
from penjing.rewrites.svd_responses import svd_responses
from rewrites.test_svd_responses import correlated, net, wrote


def chained(change: svd_responses, model: nn.Module, **ranks: int) -> Any:
    small = copy.deepcopy(model)
    graph = trace(small, (torch.randn(2, 6, 8, 8).double(),), proof=False)
    change.apply(small, graph, {f"{layer}/rank": np.arange(rank) for layer, rank in ranks.items()})
    return small


def rows(model: nn.Module, name: str, seen: list[Tensor]) -> Tensor:
    return torch.cat([wrote(model, name, x) for x in seen]).movedim(1, -1).flatten(0, -2)


@torch.no_grad()
def test_errors_do_not_add_up() -> None:
    model, seen = net(), [correlated(1)[0][:20], correlated(1)[0][20:]]
    alone, after = (chained(kind().on(seen), model, biased=2, normed=3) for kind in (svd_responses, svd_asymmetric))
    wanted = rows(model, "norm", seen)
    lost = [float((rows(small, "norm", seen) - wanted).square().sum()) for small in (alone, after)]
    assert lost[1] < 0.9 * lost[0]
    torch.testing.assert_close(rows(after, "norm", seen).mean(0), wanted.mean(0), atol=1e-6, rtol=0)
    read = rows(after, "normed.first", seen)
    read = torch.cat([read, torch.ones(len(read), 1).double()], 1)
    best = read @ torch.linalg.lstsq(read, wanted).solution
    assert float((best - wanted).square().sum()) == pytest.approx(lost[1], rel=1e-5)
    assert not after.normed.last.training and not after.normed.last._forward_hooks and not model.normed._forward_hooks


@torch.no_grad()
def test_the_first_layer_is_that_of_svd_responses_and_full_rank_changes_nothing() -> None:
    model, seen = net(), correlated(1)
    alone, after = (chained(kind().on(seen), model, biased=4) for kind in (svd_responses, svd_asymmetric))
    torch.testing.assert_close(after(seen[0]), alone(seen[0]), rtol=1e-5, atol=1e-6)
    full = copy.deepcopy(model).train()
    svd_asymmetric().on(seen).put(full, {n: (n, svd_asymmetric.by, (8,)) for n in ("bare",)})
    assert full.training and full.bare.last.training and full.norm.training
    torch.testing.assert_close(full.eval()(seen[0]), model(seen[0]), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("layer", ["biased", "normed"])
def test_behind_a_relu_the_nonlinear_fit_is_nearer(layer: str) -> None:
    model, seen = net(), correlated(1)
    model.norm.weight[::2] *= -1
    model.norm.bias -= 1
    behind = {"biased": "biased", "normed": "norm"}[layer]
    wanted = rows(model, behind, seen).relu()
    lost = [
        float((rows(chained(kind().on(seen), model, **{layer: 2}), behind, seen).relu() - wanted).square().sum())
        for kind in (svd_asymmetric, svd_nonlinear)
    ]
    assert lost[1] < 0.9 * lost[0]


@torch.no_grad()
def test_without_a_relu_behind_it_the_nonlinear_fit_is_the_linear_one() -> None:
    model, seen = net(), correlated(1)
    linear, other = (chained(kind().on(seen), model, bare=3) for kind in (svd_asymmetric, svd_nonlinear))
    assert torch.equal(linear(seen[0]), other(seen[0]))


def test_without_pictures_it_is_svd() -> None:
    model = net()
    found = [chained(kind(), model, biased=3)(correlated(2)[0]) for kind in (svd_responses, svd_asymmetric)]
    torch.testing.assert_close(*found)
