"""Ranks are scored by what they hold, however a scale is split between the stages of a chain."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import build, entries
from penjing.graph.chains import put_in
from penjing.graph.evidence import Evidence
from penjing.graph.trace import trace
from tiny import tiny

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELLED = [(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3)]


def factored() -> nn.Module:
    model: Any = tiny().eval()
    for path, by in (("conv1", "svd"), ("conv2", "tucker2"), ("linear", "svd")):
        put_in(model, path, build("factorization", by).split(model.get_submodule(path), 3, path))
    return model


def rescaled(model: nn.Module) -> nn.Module:
    """Scale what writes each rank by a factor of its own, and what reads it by the inverse."""
    other = copy.deepcopy(model)
    factors = torch.tensor([10.0, 0.1, -3.0])
    with torch.no_grad():
        for path in ("conv1", "conv2", "linear"):
            stages: list[Any] = list(other.get_submodule(path))  # type: ignore[arg-type]
            for writer, reader in pairwise(stages):
                writer.weight.mul_(factors.reshape(-1, *[1] * (writer.weight.dim() - 1)))
                reader.weight.div_(factors.reshape(1, -1, *[1] * (reader.weight.dim() - 2)))
    return other


def scored(name: str, model: nn.Module) -> dict[str, Tensor]:
    graph = trace(model, (X,))
    evidence, found = Evidence(model, graph, LABELLED), dict[str, Tensor]()
    for site in graph.sites:
        if {slot.tensor for slot in site.slots_with("out")} <= graph.ranks:
            try:
                found[site.name] = build("criterion", name)(site, evidence)
            except PlanError:
                continue
    return found


@pytest.mark.parametrize("name", sorted(entries("criterion")))
def test_no_score_depends_on_how_a_scale_is_split(name: str) -> None:
    model = factored()
    before, after = scored(name, model), scored(name, rescaled(model))
    assert set(before) == set(after)
    assert len(before) == (0 if name in ("bn_gamma", "deviation") else 4)
    for site, score in before.items():
        torch.testing.assert_close(after[site], score, rtol=1e-3, atol=1e-6)


def test_the_size_of_a_rank_is_its_singular_value() -> None:
    model: Any = tiny().eval()
    values = torch.linalg.svdvals(model.conv1.weight.detach().flatten(1)).double()
    put_in(model, "conv1", build("factorization", "svd").split(model.conv1, 32))
    torch.testing.assert_close(scored("l2", model)["conv1.first"], values, rtol=1e-4, atol=1e-5)


def test_what_looks_like_a_chain_and_has_an_activation_between_is_none() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            first, second = self.pair
            return second(nn.functional.gelu(first(x))).mean((2, 3))

    assert not trace(Hidden(), (X,)).ranks
