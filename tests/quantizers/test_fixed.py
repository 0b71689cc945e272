"""Fixed point: powers of two, and a layer that computes bit by bit what whole numbers and shifts give."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.quantizers.fixed import FixedReads, fixed, power_of_two

from .integer import convolve, multiply, shifted


def shift_of(step: torch.Tensor) -> np.ndarray:
    return -np.log2(step.double().numpy()).astype(int)


def test_steps_are_powers_of_two_that_clip_nothing() -> None:
    for largest in (0.3, 1.0, 127.0, 127.1, 1e-3):
        step = float(power_of_two(torch.tensor([[largest]]), -127, 127, search=False))
        assert step == 2.0 ** math.ceil(math.log2(largest / 127))


def test_a_search_takes_the_finer_step_of_less_error() -> None:
    x = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    gaps = []
    for search in (True, False):
        step = power_of_two(x, -1, 1, search)
        gaps.append(float(((x / step).round().clamp(-1, 1) * step - x).square().mean()))
    assert gaps[0] < 0.5 * gaps[1]


def test_gradients_pass_what_is_not_clipped() -> None:
    module = fixed().reads(1, 2)
    assert module is not None
    x = torch.tensor([-1.0, 0.4, 2.9, 9.0], requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.sampled_from([1, 2, 3]), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2),
    st.booleans(), st.booleans(), st.booleans(), st.sampled_from([3, 8]),
)  # fmt: skip
def test_a_convolution_is_whole_numbers_and_shifts(
    seed: int, groups: int, stride: int, padding: int, dilation: int, signed: bool, per_filter: bool, next_signed: bool,
    bits: int,
) -> None:  # fmt: skip
    chance = torch.Generator().manual_seed(seed)
    sizes = 0.1 + torch.rand(2 * groups, 1, 1, 1, generator=chance)  # smaller ones: a bias beyond 2 ** 24 of its steps
    weight = torch.randn(2 * groups, 2, 3, 2, generator=chance) * sizes
    x = torch.randn(2, 2 * groups, 7, 6, generator=chance) * 3
    x = x if signed else x.relu()
    quantizer = fixed(per_filter=per_filter)
    weights, reads = quantizer.weights(tuple(weight.shape), bits), quantizer.reads(1, bits)
    after = FixedReads(bits, True)
    assert isinstance(reads, FixedReads)
    latent = weights.start(weight)
    reads.start(x)
    levels = weights.levels(latent)
    steps = reads.step * levels.scale.expand(len(weight))
    bias = (torch.randn(len(weight), generator=chance) / steps).round()
    how = {"stride": (stride, stride), "padding": (padding, 0), "dilation": (dilation, 1), "groups": groups}
    y = F.conv2d(reads(x), weights(latent), bias * steps, **how)  # type: ignore[arg-type]
    after.start(y if next_signed else y.relu())
    codes = levels.table[levels.codes.long()].reshape(levels.shape).numpy()
    sums = convolve(
        reads.grid().codes(x).numpy().astype(np.int8 if signed else np.uint8), codes.astype(np.int8),
        bias.numpy().astype(np.int32), **how,  # type: ignore[arg-type]
    )  # fmt: skip
    assert np.abs(sums).max() < 2**24  # up to which float32 holds every whole number
    assert np.array_equal(sums * steps.view(-1, 1, 1).numpy(), y.numpy())
    written = shifted(sums, shift_of(steps) - shift_of(after.step), int(after.lowest), int(after.highest))
    assert np.array_equal(written * float(after.step), after(y).numpy())


@pytest.mark.parametrize("signed", [True, False])
def test_a_linear_layer_is_whole_numbers_and_shifts(signed: bool) -> None:
    chance = torch.Generator().manual_seed(0)
    weight, x = torch.randn(5, 40, generator=chance), torch.randn(9, 40, generator=chance)
    x = x if signed else x.relu()
    weights, reads, after = fixed(per_filter=True).weights((5, 40), 8), fixed().reads(40, 8), FixedReads(4, True)
    assert isinstance(reads, FixedReads)
    latent = weights.start(weight)
    reads.start(x)
    y = F.linear(reads(x), weights(latent))
    after.start(y)
    levels = weights.levels(latent)
    codes = levels.table[levels.codes.long()].reshape(5, 40).numpy().astype(np.int8)
    sums = multiply(reads.grid().codes(x).numpy().astype(np.int8 if signed else np.uint8), codes)
    shift = shift_of(reads.step * levels.scale) - shift_of(after.step)
    written = shifted(sums, shift, int(after.lowest), int(after.highest))
    assert np.array_equal(written * float(after.step), after(y).numpy())
