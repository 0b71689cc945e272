"""The share of zeros after each ReLU: what a method that skips zeros can hope for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from penjing.core.errors import PlanError
from penjing.core.modes import modes_kept
from penjing.data.data import Data
from penjing.data.divide import balance_of, pick
from penjing.graph.graph import Graph
from penjing.graph.tap import Tap

RELUS = ("aten::relu", "aten::relu_")
CLAMPS = ("aten::hardtanh", "aten::hardtanh_")
"""Operators that are ReLUs, and that are where they clamp at zero (ReLU6)."""


@dataclass(frozen=True)
class Zeros:
    """What one ReLU made zero: ``layer`` ran last before it, ``share`` is of its ``values`` a picture, 0 to 1."""

    layer: str
    share: float
    values: int


def zeros_after_relu(model: nn.Module, graph: Graph, batches: Iterable[Tensor]) -> list[Zeros]:
    """Return the share of exact zeros after each ReLU of the traced model, in the order in which they run.

    ``apoz`` counts the zeros of each channel that a layer reads; here a ReLU counts whoever reads it, before pooling.

    Raises: PlanError when the model has no ReLU, another number of them from batch to batch, or there are no pictures.
    """
    with torch.no_grad(), modes_kept(model):
        model.eval()
        found, pictures = _summed(model, graph, batches)
    if not pictures:
        raise PlanError("There is no picture to count the zeros of ReLUs on.")
    if not found:
        raise PlanError(f"{type(model).__name__} has no ReLU; smooth activations make no exact zeros.")
    return [Zeros(layer, zeros / values, round(values / pictures)) for layer, zeros, values in found]


def validation_pictures(data: Data, images: int, seed: int) -> list[Tensor]:
    """Return so many validation pictures, class-balanced, in batches, to count zeros on.

    Shapes: each float32 [64, c, h, w], the last one smaller.
    """
    count = len(data.val)
    shown = pick(balance_of(data.val.labels, count), min(images, count), seed, "zeros")
    return [x for x, _ in data.val.subset(shown).batches(64)]


def average(zeros: Sequence[Zeros]) -> float:
    """Return the share of zeros among all values that ReLUs return."""
    return sum(one.share * one.values for one in zeros) / sum(one.values for one in zeros)


def _summed(model: nn.Module, graph: Graph, batches: Iterable[Tensor]) -> tuple[list[tuple[str, int, int]], int]:
    """Return, by ReLU, the layer before it, its zeros and its values; and how many pictures there were."""
    found: list[tuple[str, int, int]] = []
    pictures = 0
    for x in batches:
        counter = _Counter()
        with Tap(model, graph, after=lambda i, _, __, to=counter: to.passed(graph.layers[i].name)), counter:  # type: ignore[misc]
            model(x)
        if pictures and [name for name, *_ in found] != [name for name, *_ in counter.seen]:
            raise PlanError(f"{type(model).__name__} runs other ReLUs from batch to batch, so none can be counted.")
        found = [(n, a + b, c + d) for (n, a, c), (_, b, d) in zip(found or _none(counter), counter.seen, strict=True)]
        pictures += len(x)
    return found, pictures


def _none(counter: _Counter) -> list[tuple[str, int, int]]:
    return [(name, 0, 0) for name, *_ in counter.seen]


class _Counter(TorchDispatchMode):
    """Counts what ReLUs return during one forward."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[tuple[str, int, int]] = []
        self._layer = "the input"

    def passed(self, layer: str) -> None:
        """Note which layer has run."""
        self._layer = layer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator, and look at what it returns where it is a ReLU."""
        y = func(*args, **(kwargs or {}))
        name = func._schema.name
        if name in RELUS or (name in CLAMPS and len(args) > 1 and args[1] == 0):
            self.seen.append((self._layer, y.numel() - int(y.count_nonzero()), y.numel()))
        return y
