"""Tiles: against loops that are walked, and what holds for every layer."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.targets.shape import Shape
from penjing.targets.tiling import tiling

ENDLESS = 1e12


def conv(ins: int, outs: int, out: int = 4, kernel: int = 3, stride: int = 1, batch: int = 1, groups: int = 1) -> Shape:
    """A convolution without padding, so that each pixel is read."""
    size = ((out - 1) * stride + kernel,) * 2
    sides = ((kernel,) * 2, (stride,) * 2, (1, 1), size, (out, out))
    return Shape(batch, groups, ins, outs, *sides, False, groups * ins * outs * kernel**2)


def test_what_fits_crosses_once() -> None:
    shape = conv(16, 32, out=8, batch=2, groups=3)
    found = tiling(shape, 2, ENDLESS)
    once = 2 * (2 * 16 * 10 * 10 + 16 * 32 * 9 + 2 * 32 * 8 * 8)
    assert found.dram_bytes == 3 * once
    assert tiling(shape, 2, found.need_bytes).dram_bytes == 3 * once
    assert tiling(shape, 2, found.need_bytes - 1).dram_bytes > 3 * once


def test_what_fits_nowhere_is_told() -> None:
    found = tiling(conv(16, 32), 1, 39)
    assert found.dram_bytes is None and found.least_bytes == 2 * (9 + 9) + 4
    assert tiling(conv(16, 32), 1, 40).dram_bytes is not None


def walked(shape: Shape, bytes_a_value: int, memory: float) -> int:
    """Return the least traffic of all tiles and orders, by walking the loops and loading what is not there."""

    def sides(size: int) -> set[int]:
        return {min(2**i, size) for i in range(size.bit_length() + 1)}

    (out, _), (kernel, _), (stride, _), (size, _) = shape.out_size, shape.kernel, shape.stride, shape.in_size
    blocks = [(b, out, out) for b in sides(shape.batch)]
    blocks += [(1, r, out) for r in sides(out)] + [(1, 1, c) for c in sides(out)]

    def reach(first: int, count: int) -> int:
        last = min(first + count, out) - 1
        if kernel < stride:
            return (last - first + 1) * kernel
        return min(last * stride + kernel, size) - first * stride

    best = None
    for (b, r, c), k, n in product(blocks, sides(shape.in_channels), sides(shape.out_channels)):
        pixels = b * reach(0, r) * reach(0, c)
        if 2 * bytes_a_value * (pixels * k + kernel**2 * k * n) + 4 * b * r * c * n > memory:
            continue
        positions = list(product(range(0, shape.batch, b), range(0, out, r), range(0, out, c)))
        loops = {"m": positions, "k": range(0, shape.in_channels, k), "n": range(0, shape.out_channels, n)}
        for order in permutations("mkn"):
            moved, held, seen = 0, {}, set()
            for at in product(*(loops[name] for name in order)):
                m, i, o = (dict(zip(order, at, strict=True))[name] for name in "mkn")
                left = min(k, shape.in_channels - i), min(n, shape.out_channels - o)
                batch = min(b, shape.batch - m[0])
                places = batch * min(r, out - m[1]) * min(c, out - m[2])
                if held.get("in") != (m, i):
                    moved += bytes_a_value * batch * reach(m[1], r) * reach(m[2], c) * left[0]
                if held.get("weights") != (i, o):
                    moved += bytes_a_value * kernel**2 * left[0] * left[1]
                if held.get("sums") != (m, o) and (m, o) in seen:
                    moved += 8 * places * left[1]  # away, and back again
                seen.add((m, o))
                held = {"in": (m, i), "weights": (i, o), "sums": (m, o)}
            best = moved if best is None else min(best, moved)
    assert best is not None
    return best + bytes_a_value * shape.outputs


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from([1, 3]),
    st.integers(1, 2),
    st.integers(1, 2),
    st.integers(1, 2),
    st.floats(0, 1),
)
def test_traffic_is_that_of_loops_that_are_walked(
    ins: int, outs: int, out: int, kernel: int, stride: int, batch: int, value_bytes: int, share: float
) -> None:
    shape = conv(ins, outs, out, kernel, stride, batch)
    found = tiling(shape, value_bytes, ENDLESS)
    memory = found.least_bytes + share * (found.need_bytes - found.least_bytes)
    assert tiling(shape, value_bytes, memory).dram_bytes == walked(shape, value_bytes, memory)


@given(
    st.integers(2, 300),
    st.integers(2, 300),
    st.integers(1, 40),
    st.sampled_from([1, 3, 5]),
    st.integers(1, 2),
    st.integers(1, 5),
    st.sampled_from([1_000, 8_192, 131_072, 10_000_000]),
)
def test_no_traffic_rises_when_a_channel_goes_or_memory_comes(
    ins: int, outs: int, out: int, kernel: int, stride: int, batch: int, memory: int
) -> None:
    whole = tiling(conv(ins, outs, out, kernel, stride, batch), 1, memory)
    for less in (conv(ins - 1, outs, out, kernel, stride, batch), conv(ins, outs - 1, out, kernel, stride, batch)):
        found = tiling(less, 1, memory)
        assert found.dram_bytes <= whole.dram_bytes and found.need_bytes <= whole.need_bytes
    assert tiling(conv(ins, outs, out, kernel, stride, batch), 1, 2 * memory).dram_bytes <= whole.dram_bytes


@pytest.mark.parametrize("size", [(), (7,), (3, 4, 5)])
def test_layers_of_any_dimension_have_traffic(size: tuple[int, ...]) -> None:
    rank = len(size)
    shape = Shape(2, 1, 8, 6, (1,) * rank, (1,) * rank, (1,) * rank, size, size, False, 48)
    positions = shape.m // 2
    assert tiling(shape, 1, ENDLESS).dram_bytes == 2 * 8 * positions + 48 + 2 * 6 * positions
    assert tiling(shape, 1, 100).dram_bytes >= tiling(shape, 1, ENDLESS).dram_bytes


def test_a_transposed_convolution_writes_more_than_it_reads() -> None:
    shape = Shape(1, 1, 4, 3, (2, 2), (2, 2), (1, 1), (5, 5), (10, 10), True, 48)
    assert (shape.m, shape.k, shape.n) == (25, 4, 12)
    assert tiling(shape, 1, ENDLESS).dram_bytes == 4 * 25 + 48 + 3 * 100
