"""Which layers to time so that the times of all others can be told from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import cycle

import numpy as np

from penjing.core.random import stream
from penjing.costs.probe import IMAGE_CHANNELS, Shape

KINDS = (
    "conv", "pointwise", "conv", "depthwise", "conv", "pointwise",
    "linear", "conv", "grouped", "pointwise", "conv", "image", "pick",
)  # fmt: skip
"""The kinds in the order in which they are taken, over and over: the more of them networks have, the more often."""

KERNELS, STRIDES = (3, 3, 3, 3, 3, 3, 5, 7), (1, 1, 1, 2)
SIDES = (2, 4, 7, 8, 14, 16, 28, 32, 56, 64, 112)
RATIOS = (0.25, 0.5, 1.0, 1.0, 1.0, 1.0, 2.0, 4.0)
"""How many times as many channels a layer writes as it reads."""

WIDEST = {"pointwise": 2048}
"""Channels that a layer reads at most; bottlenecks are wider than all else."""

MULTIPLES = (16, 16, 16, 8, 8, 4)
"""Of what the channel counts are multiples; those that are not of four are a runtime's slow path, and nobody's aim."""

MOST_MACS, MOST_WEIGHTS, MOST_VALUES = 120_000_000, 4_800_000, 1_700_000
"""What one layer may take, so that no single one takes seconds; values are those it reads or writes."""

TRIES = 3000
"""Draws of one kind after which there is no other layer of it that fits."""


def kind_of(shape: Shape) -> str:
    """Return the kind of a layer, one of those that runtimes have kernels of their own for."""
    if shape.picks:
        return "pick"
    if not shape.kernel:
        return "linear"
    if shape.transposed:
        return "transposed"
    if shape.groups > 1:
        return "depthwise" if shape.groups == shape.in_channels == shape.out_channels else "grouped"
    if shape.in_channels <= IMAGE_CHANNELS:
        return "image"
    return "conv" if math.prod(shape.kernel) > 1 else "pointwise"


def design(seed: int, batch: int) -> Iterator[Shape]:
    """Yield layers of all kinds in turn, none twice, the same for the same seed, until one kind has no more.

    Widths and sizes are drawn evenly on a logarithmic scale.
    """
    # Picks came later; drawn apart, they leave the layers that older files were timed on as they are.
    layers, picks, seen = stream(seed, "costs/design"), stream(seed, "costs/design/picks"), set[Shape]()
    for kind in cycle(KINDS):
        random = picks if kind == "pick" else layers
        drawn = (_drawn(kind, random) for _ in range(TRIES))
        shape = next((one for one in drawn if one is not None and one not in seen and _fits(one, batch)), None)
        if shape is None:
            return
        seen.add(shape)
        yield shape


def _drawn(kind: str, random: np.random.Generator) -> Shape | None:
    if kind == "linear":
        return Shape(_width(random, 16, 4608), _width(random, 8, 4096))
    multiple = int(random.choice(MULTIPLES))
    read = _width(random, multiple, WIDEST.get(kind, 768), multiple)
    written = max(multiple, round(read * random.choice(RATIOS) / multiple) * multiple)
    side, stride = int(random.choice(SIDES)), int(random.choice(STRIDES))
    kernel, groups = 1 if kind == "pointwise" else int(random.choice(KERNELS)), 1
    if kind == "image":
        read, written = int(random.choice([1, 3])), _width(random, 8, 128, 8)
    elif kind == "depthwise":
        groups, written = read, read
    elif kind == "grouped":
        groups = int(random.choice([2, 4, 8, 16, 32]))
        if read % groups or written % groups or groups == read:
            return None
    if 3 < kernel > side:  # most of it would lie on padding, and no network has such
        return None
    if kind == "pick":
        return Shape(read, written, in_size=(side, side), out_size=(side, side), picks=True)
    out = -(-side // stride)
    return Shape(read, written, groups, (kernel, kernel), (stride, stride), (1, 1), False, (side, side), (out, out))


def _width(random: np.random.Generator, least: int, most: int, multiple: int = 4) -> int:
    drawn = math.exp(random.uniform(math.log(least), math.log(most)))
    return max(least, round(drawn / multiple) * multiple)


def _fits(shape: Shape, batch: int) -> bool:
    values = max(shape.in_channels * math.prod(shape.in_size), shape.out_channels * math.prod(shape.out_size))
    return shape.macs * batch <= MOST_MACS and shape.weights <= MOST_WEIGHTS and values * batch <= MOST_VALUES
