"""Numbers of channels that a user's module holds as attributes, such as the sizes it splits by.

A cut may set such a number, as it sets ``in_channels`` of a convolution. That the code reads it there, and nothing else
does that would go wrong, is an assumption, which the proof settles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from penjing.core.units import Ints
from penjing.graph.rules.table import Call, Count

TIMES = (1, 2)
"""How many times the number at work an attribute may be: a width that is split in halves is twice the size of one."""


def is_held(value: Any) -> bool:
    """Tell whether an attribute's value is a whole number, or a list or tuple of these."""
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return bool(value) and all(type(item) is int for item in value)
    return type(value) is int


def numbers(owner: nn.Module | None) -> dict[str, Any]:
    """Return the numbers that a module of the user's own holds, by attribute."""
    if owner is None or type(owner).__module__.startswith("torch.nn."):
        return {}
    return {key: value for key, value in vars(owner).items() if not key.startswith("_") and is_held(value)}


def of_list(call: Call, parts: Sequence[Ints]) -> list[Count]:
    """Return the counts of an attribute that lists the sizes of these parts, or of one attribute for each; or none."""
    own, sizes = numbers(call.owner), [len(part) for part in parts]
    for key, value in own.items():
        if isinstance(value, list | tuple) and list(value) == sizes:
            return [Count(call.module, key, i, part) for i, part in enumerate(parts)]
    found = [of_number(call, part, (1,)) for part in parts]
    return [count for counts in found for count in counts] if all(found) else []


def of_number(call: Call, labels: Ints, times: Sequence[int] = TIMES) -> list[Count]:
    """Return the counts of all attributes that hold the number of these labels, or else a multiple of it."""
    for factor in times:
        wanted = factor * len(labels)
        if found := [key for key, value in numbers(call.owner).items() if value == wanted]:
            return [Count(call.module, key, None, labels, factor) for key in found]
    return []


def reading_of(call: Call, counts: Sequence[Count], shape: bool) -> str:
    """Return how this call takes its sizes, by what was proved wrong before: ``held``, ``shape`` or ``constant``.

    A number that one call does not take from a module is no other call's either.
    """
    keys = {(count.module, count.attribute) for count in counts}
    able = bool(counts) and not keys & call.findings.refused
    found = [*(["held"] if able else []), *(["shape"] if shape else [])]
    reading = found[call.level] if call.level < len(found) else "constant"
    if able and reading != "held":
        call.findings.refused |= keys
        call.findings.counts = [c for c in call.findings.counts if (c.module, c.attribute) not in keys]
    return reading


def hold(call: Call, counts: Sequence[Count]) -> None:
    """Note that a cut sets these numbers; one that is held for several parts counts them alike."""
    for count in counts:
        for other in call.findings.counts:
            same = (other.module, other.attribute, other.index) == (count.module, count.attribute, count.index)
            if same and len(other.labels) == len(count.labels):
                call.labels.balance(np.stack([other.labels, count.labels]))
        call.findings.counts.append(count)
