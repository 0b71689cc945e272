"""A weight whose numbers share the values of a few buckets, which a hash of their position tells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penjing.core.errors import BundleError, PlanError
from penjing.packing.parts import Packed, floats, only, whole

MOST_SEED = 2**31 - 1
PRIMES = tuple(np.uint32(p) for p in (2654435761, 2246822519, 3266489917, 668265263, 374761393))
Words = NDArray[np.uint32]


@dataclass(frozen=True, eq=False)
class Hashed:
    """A weight written as buckets: ``sign(i) * buckets[place(i)]`` for number i of the flattened weight.

    Shapes: buckets float32 [buckets]; ``shape`` the weight's. ``seed`` names the pair of hashes; places and signs
    are made of it anew and not stored.
    """

    buckets: Tensor
    seed: int
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what is no weight.

        Raises: PlanError naming what does not fit.
        """
        if self.buckets.ndim != 1 or not len(self.buckets) or not self.buckets.dtype.is_floating_point:
            raise PlanError(f"Buckets are a vector of at least one number; got {list(self.buckets.shape)}.")
        if not 0 <= self.seed <= MOST_SEED:
            raise PlanError(f"The seed of a hash lies from 0 to {MOST_SEED}; got {self.seed}.")

    def values(self) -> Tensor:
        """Return the weight, float32 [shape]."""
        places, signs = scattered(math.prod(self.shape), len(self.buckets), self.seed)
        return (self.buckets[places] * signs).reshape(self.shape)

    def packed(self) -> Packed:
        """Return it as facts and tensors."""
        facts = {"form": "hashed", "shape": list(self.shape), "seed": self.seed}
        return Packed(facts, {"buckets": self.buckets.detach().cpu().clone().contiguous()})


def read(facts: Mapping[str, Any], tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> Hashed:
    """Return the weight of this shape that ``Hashed.packed`` wrote.

    Raises: BundleError when it is none.
    """
    only(facts, {"form", "shape", "seed"}, "facts")
    only(tensors, {"buckets"}, "tensors")
    buckets, numbers = floats(tensors, "buckets", (1,)), math.prod(shape)
    if not 1 <= len(buckets) <= numbers:
        raise BundleError(f"it has {len(buckets)} buckets for {numbers} numbers.")
    return Hashed(buckets, whole(facts, "seed", 0, MOST_SEED), shape)


def scattered(numbers: int, buckets: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the bucket, int64, and the sign, float32, of each number of a weight.

    The key of a number is its position as a little-endian uint64. The bucket is its hash by seed 2 s modulo the number
    of buckets, the sign the lowest bit of its hash by seed 2 s + 1, where 1 means plus.
    """
    keys = np.arange(numbers, dtype="<u8").view("<u4").reshape(numbers, 2).T
    places = xxh32(keys, 2 * seed) % np.uint32(buckets)
    signs = (xxh32(keys, 2 * seed + 1) & np.uint32(1)).astype(np.float32) * 2 - 1
    return torch.from_numpy(places.astype(np.int64)), torch.from_numpy(signs)


def xxh32(words: Iterable[Words], seed: int) -> Words:
    """Return the 32-bit xxHash of keys of up to three words of 32 bits, the first word of every key first.

    Shapes: each word uint32 [keys]; returns uint32 [keys]. Sums and products are modulo 2 ** 32.

    >>> xxh32([np.array([0, 1], dtype=np.uint32)], seed=0)
    array([ 148298089, 4089149075], dtype=uint32)
    """
    words = list(words)
    if not 1 <= len(words) <= 3:
        raise ValueError(f"A key has 1 to 3 words; got {len(words)}. Longer ones are hashed in another way.")
    start = (seed + int(PRIMES[4]) + 4 * len(words)) % 2**32
    found = np.full(words[0].shape, start, dtype=np.uint32)
    for word in words:
        found += word * PRIMES[2]
        found = (found << np.uint32(17) | found >> np.uint32(15)) * PRIMES[3]
    for shift, prime in ((15, PRIMES[1]), (13, PRIMES[2])):
        found ^= found >> np.uint32(shift)
        found *= prime
    return found ^ found >> np.uint32(16)
