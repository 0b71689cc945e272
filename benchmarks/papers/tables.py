"""Which rows there are, by scale: baselines, methods, and their twins from scratch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from papers import baselines, searches
from papers.row import Asked, row, twin
from papers.scale import Scale
from papers.subjects import SUBJECTS

Row = tuple[str, Callable[[], dict[str, Any]]]

VGG16 = {
    "ddpg": (28.08,),
    "sigma": (99.05,),
    "combined": (83.33,),
    "l1": (64.08,),
    "entropy": (43.00,),
    "gal": (77.46,),
    "rbp": (83.33,),
    "abcpruner": (88.68,),
}
"""Shares of parameters removed, as published; rbp, of which none was found, at that of combined."""

HIGH = 95.0
"""The share that all of them are compared at."""

CURVE = ("ddpg", "weight_sum", "apoz")
PUBLISHED_CURVE = (70, 80)

HALF = (
    "penjing", "l1", "fpgm", "bn_gamma", "apoz", "entropy", "hrank", "taylor_fo", "gal", "ssl", "rbp", "rbp_joint",
    "metapruning", "abcpruner", "n2n", "amc", "evolution", "random", "knapsack",
)  # fmt: skip
"""Everything that removes channels or blocks."""


def asked(scale: Scale, seed: int) -> Iterator[Asked]:
    """Return what the rows of methods ask for."""
    subject = {table: SUBJECTS[name] for table, name in scale.subjects.items()}
    for method, shares in VGG16.items():
        for share in (*shares, HIGH):
            yield Asked("vgg16", subject["vgg16"], method, "params", share, seed)
    for method in HALF:
        yield Asked("cifar10", subject["cifar10"], method, "macs", 50.0, seed)
    for share in sorted({*scale.curve, *PUBLISHED_CURVE}, key=lambda s: (s not in PUBLISHED_CURVE, s)):
        for method in CURVE:
            yield Asked("cifar100", subject["cifar100"], method, "params", float(share), seed)


def rows(scale: Scale, where: argparse.Namespace) -> Iterator[Row]:
    """Name every row of a scale and say how it is made; of each seed the methods come first, then their twins."""
    for seed in scale.seeds:
        for name in dict.fromkeys(scale.subjects.values()):
            yield f"baseline_{name}_seed{seed}", partial(baselines.row, SUBJECTS[name], seed, scale, where)
        for one in asked(scale, seed):
            yield one.name, partial(row, one, scale, where)
        yield from searches.rows(SUBJECTS[scale.subjects["cifar10"]], seed, scale, where)
        for one in asked(scale, seed):
            yield f"{one.name}_twin", partial(twin, one, scale, where)
