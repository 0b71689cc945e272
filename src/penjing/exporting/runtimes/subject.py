"""What a runtime is given to run, and what it tells of each operator."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from penjing.core.errors import PlanError, did_you_mean
from penjing.exporting.inputs import Example
from penjing.exporting.session import Source

PRECISIONS = ("fp32", "bf16")
"""What 32-bit floats of a network may be computed in; whole numbers of a quantised file stay what they are."""

RUNS = 24
"""Inferences that a profile looks at."""

WARMUP = 4
"""Inferences before them that it does not."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A network to run: an ONNX file or the bytes of one, the module with an example of its inputs, or both.

    Where how long it takes depends on the picture, ``pictures`` are the inputs that it runs on, one after the other.
    """

    source: Source | None = None
    model: nn.Module | None = None
    example: Example = ((), {})
    pictures: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """What messages call it."""
        if isinstance(self.source, str | os.PathLike):
            return os.fspath(self.source)
        return "The model" if self.model is None else type(self.model).__name__

    @property
    def file(self) -> Source:
        """The file.

        Raises: PlanError where there is the module alone.
        """
        if self.source is None:
            raise PlanError(f"{self.name} is a module without a file; export it first.")
        return self.source


@dataclass(frozen=True)
class LayerTime:
    """The time of one operator in an inference.

    ``name`` is the layer's name in the network, or ``after`` that of the layer that ran before it; ``operator`` is
    what the runtime calls what it does, a change of layout or precision among them; ``kernel`` is how it does it,
    where it says so. ``share`` is of the sum, 0 to 1.

    Units: ms.
    """

    name: str
    operator: str
    kernel: str
    ms: float
    share: float


def check_precision(runtime: str, precision: str, known: Iterable[str]) -> None:
    """Refuse a precision that a runtime does not compute in.

    Raises: PlanError.
    """
    if precision not in PRECISIONS:
        raise PlanError(f"There is no precision {precision!r} to measure in.{did_you_mean(precision, PRECISIONS)}")
    if precision not in known:
        raise PlanError(
            f"{runtime} does not compute in {precision} on this machine; take {' or '.join(known)}, or another runtime."
        )


def typical(samples: Any) -> float:
    """Return the mean of the middle half: steadier than the mean, and finer than the median of whole microseconds.

    >>> typical([3.0, 1.0, 2.0, 90.0])
    2.5
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
