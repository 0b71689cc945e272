"""A layer before and after, what it may be turned into, and which layers are slow for what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from penjing.core.layers import Layer

ALIGNED = 4
"""Counts that are no multiple of it leave the blocked path of ONNX Runtime."""

SMALL = 0.005
"""A layer with less of the time is not looked into."""

CUT = 1.02
"""A layer with less of a gain in work counts as left alone."""

DEAR, DEAR_SHARE = 3.0, 0.02
"""A layer that takes so many times the network's time for a MAC, and this much of the time, is looked into as well."""


@dataclass(frozen=True)
class Side:
    """One layer before or after. ``ms`` is what it takes, ``alone`` what it is predicted to take, where known.

    ``bound`` and ``utilisation`` are a model's words, ``kernel`` a runtime's. ``reads_fixed`` and ``writes_fixed`` say
    that nothing may be removed of what it reads or writes: the network's input, its classes, what is pinned.
    """

    layer: Layer
    ms: float
    alone: float | None = None
    energy_mj: float | None = None
    bound: str = ""
    utilisation: float | None = None
    kernel: str = ""
    reads_fixed: bool = False
    writes_fixed: bool = False

    @property
    def work(self) -> float:
        """Multiply-accumulates of one sample that are not by zero."""
        return self.layer.macs * self.layer.density


@dataclass(frozen=True)
class Pair:
    """A layer before and after; None on the side where it is not there."""

    name: str
    before: Side | None
    after: Side | None

    @property
    def work_gain(self) -> float | None:
        """How many times less there is to compute."""
        return gain(self.before, self.after, lambda side: side.work)

    @property
    def time_gain(self) -> float | None:
        """How many times less it takes."""
        return gain(self.before, self.after, lambda side: side.ms)

    @property
    def lost(self) -> float:
        """How much longer it takes than if time had followed the work, in ms; never less than nothing."""
        if self.before is None or self.after is None or (self.work_gain or 0.0) < CUT:
            return 0.0
        return max(self.after.ms - self.before.ms / (self.work_gain or 1.0), 0.0)


def gain(before: Side | None, after: Side | None, of: Callable[[Side], float | None]) -> float | None:
    """Return how many times smaller something became; None where a side is not there, or has nothing of it."""
    first, second = (of(side) if side is not None else None for side in (before, after))
    return first / second if first and second else None


@dataclass(frozen=True)
class Setting:
    """What a network runs on. ``predict`` returns the ms of a layer for so many samples, None where it cannot.

    ``total`` is the time of the whole network after; ``noise`` how far two times may differ that are the same;
    ``skips`` says that weights of zero cost no time, ``array_depthwise`` that an array computes depthwise layers.
    """

    name: str
    predict: Callable[[Layer, int], float | None]
    total: float
    batch: int = 1
    noise: float = 0.1
    modelled: bool = False
    skips: bool = False
    array_depthwise: bool = False

    def brings(self, now: Side, then: Layer | None, batches: int = 1) -> float | None:
        """Return the ms that a batch saves if the layer were ``then``, in batches so many times as large."""
        if then is None:
            return None
        before, after = self.predict(now.layer, self.batch), self.predict(then, self.batch * batches)
        return None if not before or after is None else now.ms * (1 - after / batches / before)


@dataclass(frozen=True)
class Finding:
    """Why something takes the time it does. ``brings`` is what the remedy is predicted to save, in ms, if known."""

    where: str
    cause: str
    detail: str
    remedy: str
    brings: float | None


def slow(pairs: Sequence[Pair], setting: Setting) -> list[Pair]:
    """Return the layers to look into, what lost most time first: those that lag, and those dear for their MACs."""
    work = sum(pair.after.work for pair in pairs if pair.after)
    average = setting.total / work if work else math.inf

    def lags(pair: Pair) -> bool:
        work_gain, time_gain = pair.work_gain, pair.time_gain
        if work_gain is None or time_gain is None:
            return False
        return time_gain < work_gain / (1 + setting.noise) and pair.lost >= SMALL * setting.total

    def dear(side: Side) -> bool:
        return side.ms >= DEAR_SHARE * setting.total and side.ms >= DEAR * average * side.work

    found = [p for p in pairs if p.after and p.after.ms >= SMALL * setting.total and (lags(p) or dear(p.after))]
    return sorted(found, key=lambda pair: (-pair.lost, -(pair.after.ms if pair.after else 0.0)))


def widened(layer: Layer, ins: int | None = None, outs: int | None = None) -> Layer | None:
    """Return the layer with other counts of channels; None where its groups allow none such."""
    if layer.groups > 1 and layer.groups == layer.in_channels:
        count = outs if outs is not None and outs != layer.out_channels else ins
        count = layer.out_channels if count is None else count
        if layer.in_channels != layer.out_channels:
            return None
        return _with_its_bits(layer, replace(layer, in_channels=count, out_channels=count, groups=count))
    ins, outs = layer.in_channels if ins is None else ins, layer.out_channels if outs is None else outs
    if ins % layer.groups or outs % layer.groups:
        return None
    return _with_its_bits(layer, replace(layer, in_channels=ins, out_channels=outs))


def _with_its_bits(layer: Layer, other: Layer) -> Layer:
    """Return a layer of other channels whose weights take as many bits each."""
    return replace(other, stored_bits=layer.stored_bits * other.weights // layer.weights) if layer.weights else other


def tiny(layer: Layer) -> Layer:
    """Return the layer on one position with the fewest channels of a fast path."""
    groups = ALIGNED if layer.groups > 1 else 1
    ones = (1,) * len(layer.in_size)
    stride = (1,) * len(layer.stride)
    return replace(
        layer, in_channels=ALIGNED, out_channels=ALIGNED, groups=groups, in_size=ones, out_size=ones, stride=stride
    )
