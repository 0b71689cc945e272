"""Hashed weights in an ONNX file: the buckets, and standard operators that hash positions when the file is opened."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from penjing.packing.hashed import PRIMES, Hashed


class Nodes(Protocol):
    """What makes nodes of one weight, and gives small tensors that those of several weights read."""

    def __call__(self, kind: str, *inputs: str) -> str:
        """Return the name of what a node of this kind hands on."""

    def constant(self, *numbers: int, dtype: type = np.int64, shape: tuple[int, ...] = (-1,)) -> str:
        """Return the name of a tensor of numbers."""


def unhashed(node: Nodes, stored: Hashed, buckets: str) -> str:
    """Add the nodes that make the flat weight of the tensor ``buckets``; return the name of what they hand on.

    Both hashes run side by side, [2, numbers], on int64: operators on uint32 are rare, and products are taken in halves
    of 16 bits, so that none overflows.
    """
    numbers = math.prod(stored.shape)
    primes = [int(prime) for prime in PRIMES]

    def number(value: int) -> str:
        return node.constant(value, shape=())

    def lowest(x: str, bits: int) -> str:
        return node("BitwiseAnd", x, number(2**bits - 1))

    def times(x: str, prime: int) -> str:
        low = node("Mul", lowest(x, 16), number(prime))
        high = node("Mul", node("Div", x, number(2**16)), number(prime % 2**16 * 2**16))
        return lowest(node("Add", low, high), 32)

    def turned(x: str) -> str:
        left = lowest(node("Mul", x, number(2**17)), 32)
        return times(node("Add", left, node("Div", x, number(2**15))), primes[3])

    def mixed(x: str, shift: int) -> str:
        return node("BitwiseXor", x, node("Div", x, number(2**shift)))

    position = node("Range", number(0), number(numbers), number(1))
    starts = node.constant(*((2 * stored.seed + s + primes[4] + 8) % 2**32 for s in (0, 1)), shape=(2, 1))
    first = lowest(node("Add", times(position, primes[2]), starts), 32)
    found = turned(turned(first))  # the upper word of a position is 0 and adds nothing
    found = mixed(times(mixed(times(mixed(found, 15), primes[1]), 13), primes[2]), 16)
    places = node("Mod", node("Gather", found, number(0)), number(len(stored.buckets)))
    bits = lowest(node("Gather", found, number(1)), 1)
    signs = node("Gather", node.constant(-1, 1, dtype=np.float32), bits)
    return node("Mul", node("Gather", buckets, places), signs)
