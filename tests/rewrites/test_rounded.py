"""What bits are worth to a solver."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penjing.allocators.problem import Problem
from penjing.core.registry import build
from penjing.core.units import Floats
from penjing.graph.trace import plain, trace


@pytest.mark.parametrize("name", ["lsq", "twn", "codebook", "binaryconnect"])
@torch.no_grad()
def test_a_plan_loses_what_rounding_to_its_bits_takes_for_noise(name: str) -> None:
    torch.manual_seed(0)
    model = plain(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)))
    rewrite = build("rewrite", name)
    site = rewrite.find(trace(model, (torch.randn(2, 3, 8, 8),)))[0]
    scores: Floats = rewrite.scores(model, site).numpy()
    problem = Problem(name, [site], {site.name: scores}, [], lambda _: {})
    weight = model.get_parameter(site.slots[0].tensor).detach()
    for bits in rewrite.quantizer.widths:
        rounding = rewrite.quantizer.weights(tuple(weight.shape), bits)
        gap = (rounding(rounding.start(weight)) - weight).square().sum() / weight.square().sum()
        assert problem.lost(problem.keep({site.name: bits})) == pytest.approx(gap.item(), rel=1e-4, abs=1e-7)
