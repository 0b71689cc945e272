"""Scores of ranks, however a scale is split."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from penjing.core.registry import build
from penjing.factors.gauge import balance, boundaries, scores, settle
from penjing.factors.svd import svd

FORMS = ["svd", {"svd": {"form": "spatial"}}, "tucker2", {"cp": {"modes": 4, "sweeps": 3}}]


@pytest.mark.parametrize("spec", FORMS, ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_scaling_a_rank_changes_no_score_and_balancing_no_output(spec: object, groups: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(12, 8, 3, padding=1, groups=groups).double()
    chain = build("factorization", spec).split(conv, 3)
    x = torch.randn(2, 12, 7, 7).double()
    with torch.no_grad():
        y = chain(x)
        for boundary in boundaries(list(chain)):
            before = scores(boundary)
            boundary.writer.weight[1] *= 10  # the second rank of the first group
            boundary.reader.weight[: len(boundary.reader.weight) // groups, 1] /= 10
            torch.testing.assert_close(scores(boundary), before)
            balance(boundary)
            torch.testing.assert_close(scores(boundary), before)
            sides = 2 + len(boundary.through)
            for stage in (boundary.writer, *boundary.through):
                torch.testing.assert_close(stage.weight.flatten(1).norm(dim=1) ** sides, before)
        torch.testing.assert_close(chain(x), y)


def test_the_scores_of_a_balanced_split_are_the_singular_values_and_find_the_true_rank() -> None:
    weight = torch.einsum("tr,rsij->tsij", torch.randn(9, 3).double(), torch.randn(3, 6, 3, 3).double())
    conv = nn.Conv2d(6, 9, 3).double()
    conv.weight.data = weight
    (boundary,) = boundaries(list(svd().split(conv, 9)))
    found = scores(boundary)
    torch.testing.assert_close(found[:3], torch.linalg.svdvals(weight.flatten(1))[:3])
    assert int((found > 1e-6 * found[0]).sum()) == 3


def test_the_balanced_split_has_the_nuclear_norm() -> None:
    conv = nn.Conv2d(6, 9, 3, bias=False).double()
    first, last = svd().split(conv, 9)
    half = (first.weight.square().sum() + last.weight.square().sum()) / 2
    torch.testing.assert_close(half, torch.linalg.svdvals(conv.weight.flatten(1)).sum())


def test_biases_between_are_scaled_along() -> None:
    chain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 5, 1)).double()
    x = torch.randn(2, 3, 6, 6).double()
    before, bias = chain(x), chain[1].bias.detach().clone()
    settle(list(chain))
    torch.testing.assert_close(chain(x), before)
    assert not torch.allclose(chain[1].bias, bias)


@pytest.mark.parametrize("spec", FORMS, ids=str)
def test_there_is_one_settled_gauge(spec: object) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(12, 8, 3, padding=1).double()
    chain = build("factorization", spec).split(conv, 3)
    other, x = copy.deepcopy(chain), torch.randn(2, 12, 7, 7).double()
    with torch.no_grad():
        for boundary in boundaries(list(other)):
            factors = torch.tensor([10.0, -0.3, 1e-3]).double()
            boundary.writer.weight *= factors[:, None, None, None]
            boundary.reader.weight /= factors[:, None, None]
        torch.testing.assert_close(other(x), chain(x))
        for one in (chain, other):
            settle(list(one))
        for a, b in zip(chain.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a, b)
