"""Whole numbers: sums against torch's, rounding half away, multipliers of 31 bits, and sums that do not fit."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.errors import PlanError
from penjing.quantizers.lsq import lsq

from .integer import convolve, multiplier, multiply, scaled


def half_away(exact: Fraction) -> int:
    size = (abs(exact) + Fraction(1, 2)).__floor__()
    return size if exact >= 0 else -size


@settings(deadline=None)
@given(st.integers(-(2**31) + 1, 2**31 - 1), st.floats(1e-14, 64))
def test_a_multiplier_rounds_once_and_half_away(total: int, scale: float) -> None:
    factor, shift = multiplier(scale)
    assert 2**30 <= factor < 2**31
    assert abs(Fraction(factor) / Fraction(2) ** shift / Fraction(scale) - 1) <= Fraction(1, 2**31)
    found = int(scaled(np.array([[total]], np.int32), factor, shift, -(10**9), 10**9)[0, 0])
    exact = Fraction(total * factor) / Fraction(2) ** shift
    assert found == max(-(10**9), min(10**9, half_away(exact)))


@settings(deadline=None)
@given(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(-40, 80))
def test_a_shift_goes_both_ways_and_saturates(total: int, shift: int) -> None:
    found = int(scaled(np.array([[total]], np.int32), 1, shift, -128, 127)[0, 0])
    assert found == max(-128, min(127, half_away(Fraction(total) / Fraction(2) ** shift)))


def test_sums_that_do_not_fit_are_refused() -> None:
    x, weight = np.full((1, 70_000), 255, np.uint8), np.full((1, 70_000), 127, np.int8)
    with pytest.raises(PlanError, match="32 bits"):
        multiply(x, weight)
    with pytest.raises(PlanError, match="factor"):
        multiplier(0.0)


def test_a_layer_of_learned_steps_is_whole_numbers_and_multipliers() -> None:
    chance = torch.Generator().manual_seed(0)
    weight, x = torch.randn(6, 4, 3, 3, generator=chance), torch.randn(2, 4, 8, 8, generator=chance).relu()
    weights, reads, after = lsq(per_filter=True).weights((6, 4, 3, 3), 8), lsq().reads(4, 8), lsq().reads(6, 8)
    assert reads is not None
    assert after is not None
    latent = weights.start(weight)
    reads.start(x)
    y = F.conv2d(reads(x).double(), weights(latent).double(), padding=1).float()
    after.start(y)
    levels, before, behind = weights.levels(latent), reads.grid(), after.grid()
    codes = levels.table[levels.codes.long()].reshape(levels.shape).numpy().astype(np.int8)
    sums = convolve(before.codes(x).detach().numpy().astype(np.uint8), codes, padding=(1, 1))
    factors = [multiplier(float(before.step) * float(one) / float(behind.step)) for one in levels.scale]
    factor, shift = (np.array(one) for one in zip(*factors, strict=True))
    found = scaled(sums, factor, shift, int(behind.lowest), int(behind.highest))
    gap = np.abs(found - behind.codes(y).detach().numpy())
    assert gap.max() <= 1
    assert (gap > 0).mean() < 1e-3
