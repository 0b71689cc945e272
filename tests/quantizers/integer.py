"""What layers in whole numbers compute, bit by bit: the reference for kernels and machines without floats.

A layer multiplies bytes and adds into 32 bits; its bias has the step of the sums, input step times weight step. What
it writes is brought to the step of the next layer by a shift, or by a multiplier of 31 bits and a shift.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from penjing.core.errors import PlanError

Ints = NDArray[Any]

FRACTION = 31
"""Bits behind the point of a multiplier."""


def convolve(
    x: Ints,
    weight: Ints,
    bias: Ints | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Ints:
    """Return the sums of a convolution padded with zeros.

    Shapes: x int8 or uint8 [n, in, h, w], weight int8 [out, in / groups, kh, kw], bias int32 [out] → int32
    [n, out, h', w']. Raises: PlanError where a sum does not fit.
    """
    n, channels = x.shape[:2]
    (kh, kw), (sh, sw), (dh, dw) = weight.shape[2:], stride, dilation
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    windows = sliding_window_view(padded, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
    windows = windows[:, :, ::sh, ::sw, ::dh, ::dw].reshape(n, groups, channels // groups, -1, kh * kw)
    filters = weight.reshape(groups, -1, channels // groups, kh * kw)
    sums = np.einsum("ngcpk,gock->ngop", windows.astype(np.int64), filters.astype(np.int64))
    shape = (n, weight.shape[0], *_size(padded.shape[2:], (kh, kw), stride, dilation))
    return _fits(sums.reshape(shape) + (0 if bias is None else bias.astype(np.int64).reshape(-1, 1, 1)))


def multiply(x: Ints, weight: Ints, bias: Ints | None = None) -> Ints:
    """Return the sums of a linear layer.

    Shapes: x int8 or uint8 [n, in], weight int8 [out, in], bias int32 [out] → int32 [n, out]. Raises: PlanError where a
    sum does not fit.
    """
    return _fits(x.astype(np.int64) @ weight.astype(np.int64).T + (0 if bias is None else bias.astype(np.int64)))


def shifted(sums: Ints, shift: int | Ints, lowest: int, highest: int) -> Ints:
    """Return sums / 2 ** shift, half away from zero, clipped to a byte's codes; ``shift`` is one or one a channel.

    >>> shifted(np.array([-6, -5, 5, 6, 7, 2000]), 2, -127, 127).tolist()
    [-2, -1, 1, 2, 2, 127]
    """
    return scaled(sums, 1, shift, lowest, highest)


def multiplier(scale: float) -> tuple[int, int]:
    """Return the whole m of 2 ** 30 to 2 ** 31 - 1, and the shift, with scale = m / 2 ** shift to 31 bits.

    Raises: PlanError for a scale that is not above 0.

    >>> multiplier(0.0125)
    (1717986918, 37)
    """
    if not (scale > 0 and math.isfinite(scale)):
        raise PlanError(f"Sums are brought from one step to another by a finite factor above 0; got {scale}.")
    share, exponent = math.frexp(scale)
    whole = math.floor(share * 2**FRACTION + 0.5)
    if whole == 2**FRACTION:
        whole, exponent = whole // 2, exponent + 1
    return whole, FRACTION - exponent


def scaled(sums: Ints, factor: int | Ints, shift: int | Ints, lowest: int, highest: int) -> Ints:
    """Return sums * factor / 2 ** shift, half away from zero, clipped; factor and shift are one or one a channel.

    Shapes: sums int32 [n, out, ...], factor and shift [] or [out] → the same, int32.
    """
    factor, shift = (_beside(np.asarray(one, np.int64), sums.ndim) for one in (factor, shift))
    product = sums.astype(np.int64) * factor
    down, up = np.clip(shift, 0, 62), np.clip(-shift, 0, 31)
    half = np.where(down > 0, np.left_shift(np.int64(1), np.maximum(down - 1, 0)), 0)
    size = np.right_shift(np.abs(product) + half, down) * (shift <= 62)  # a product, below 2 ** 62, is no half of more
    brought: Ints = np.sign(product) * np.minimum(size, 2**31) * np.left_shift(np.int64(1), up)
    return brought.clip(lowest, highest).astype(np.int32)


def _beside(values: Ints, dims: int) -> Ints:
    return values.reshape(-1, *[1] * (dims - 2)) if values.ndim else values


def _size(picture: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    return [(p - (k - 1) * d - 1) // s + 1 for p, k, s, d in zip(picture, kernel, stride, dilation, strict=True)]


def _fits(sums: Ints) -> Ints:
    """Return sums as int32.

    Raises: PlanError where one does not fit.
    """
    if sums.size and max(int(sums.max()), -int(sums.min())) > 2**31 - 1:
        raise PlanError(f"A sum of {int(np.abs(sums).max())} does not fit into 32 bits; split the layer's inputs.")
    return sums.astype(np.int32)
