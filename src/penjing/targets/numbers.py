"""A number of a target, with where it is from."""

from __future__ import annotations

from typing import NamedTuple

MARKS = ("confirmed", "assumed", "default", "chosen")
"""A source was read; nobody did, or none is told; the file does not say the number; it is no fact but a wish."""


class Number(NamedTuple):
    """What a file says of one number, or what stands in where it says nothing; ``mark`` is one of ``MARKS``."""

    key: str
    quantity: str
    value: float
    source: str
    mark: str
