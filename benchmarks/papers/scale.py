"""How long everything takes: at the length of the papers, in days or hours of two cores, or in seconds for tests.

Rows of different scales never share a table: each scale has a folder of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """One scale.

    ``pictures`` of train are trained on, all for None; ``val`` are cut from train before. ``baseline`` is the length of
    own baselines, ``epochs`` that of every method with its search counted in, both in epochs; None is each paper's own.
    ``trials`` are the plans that a search without training asks for; ``bees`` (sources, cycles), ``policies`` (updates,
    rollouts, epochs a student) and ``rounds`` say how far those go that train on the way. ``curve`` are shares of
    parameters removed, in %. ``subjects`` names the network of each table.
    """

    name: str
    pictures: int | None
    baseline: int
    epochs: int | None
    val: int
    trials: int
    bees: tuple[int, int]
    policies: tuple[int, int, int]
    rounds: int
    curve: tuple[int, ...]
    seeds: tuple[int, ...]
    subjects: Mapping[str, str]


FULL = Scale(
    "full", None, 200, None, 5000, 400, (10, 10), (100, 5, 5), 10, (30, 40, 50, 60, 70, 80, 90), (0, 1, 2),
    {"vgg16": "vgg16", "cifar100": "resnet56_cifar100", "cifar10": "resnet56"},
)  # fmt: skip
SHORT = Scale(
    "short", None, 30, 12, 2000, 100, (5, 2), (5, 4, 1), 4, (30, 50, 70, 80, 90), (0, 1),
    {"vgg16": "vgg16_half", "cifar100": "resnet20_cifar100", "cifar10": "resnet20"},
)  # fmt: skip
BRIEF = Scale(
    "brief", 10_000, 30, 12, 2000, 50, (5, 2), (5, 4, 1), 4, (30, 50, 70, 80, 90), (0,),
    {"vgg16": "vgg16_half", "cifar100": "resnet20_cifar100", "cifar10": "resnet20"},
)  # fmt: skip
SMOKE = Scale(
    "smoke", None, 12, 4, 144, 20, (2, 1), (1, 2, 1), 2, (50, 80), (0,),
    {"vgg16": "small", "cifar100": "small", "cifar10": "small"},
)  # fmt: skip

SCALES: Mapping[str, Scale] = {scale.name: scale for scale in (SHORT, FULL, BRIEF, SMOKE)}
