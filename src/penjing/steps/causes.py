"""Why a layer did not become faster by as much as its work became less: the cause by name, and a remedy, predicted.

Nothing is measured here. ``Setting.predict`` tells the time of a layer, also of one that does not exist: every remedy
is the layer as it would be, and what it brings is the predicted difference.

Runtimes on processors keep activations in blocks of 8 or 16 channels, and ONNX Runtime leaves them at counts that are
no multiple of 4; a kernel costs something however small it is; a layer that makes few multiplications with each number
that it reads waits for memory; an array that computes a convolution group by group is idle on depthwise ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from penjing.costs.probe import IMAGE_CHANNELS
from penjing.costs.units import show
from penjing.steps.sides import ALIGNED, CUT, Finding, Pair, Setting, Side, gain, tiny, widened

BLOCKS = (16, 8)
"""How many channels of 32-bit floats common vector units compute together, the widest first."""

FLAT, FLAT_MODELLED = 0.05, 0.001
"""How much longer a wider layer may take and still count as costing the same: measured, and by arithmetic."""

LAUNCH = 0.5
"""A layer of which a tiny one takes this share waits for being started, rather than for arithmetic."""

INTENSITY = 2.0
"""MACs for each byte moved, below which a processor core waits for memory."""

BATCHES = 8
"""Batches that many times larger are the remedy of what is paid once a batch."""

FLOAT, FLOAT_BITS = 4, 32

UNKNOWN = "no cause found"


def find(pair: Pair, setting: Setting) -> Finding:
    """Return the cause of a slow layer: the first that holds, of those that exclude the ones after them."""
    assert pair.after is not None
    for cause in (_zeros, _odd_width, _reference, _depthwise, _launch, _step, _memory):
        found = cause(pair, pair.after, setting)
        if found is not None:
            return found
    return _unknown(pair, pair.after, setting)


def _zeros(pair: Pair, side: Side, setting: Setting) -> Finding | None:
    """Tell zeros among the weights of a layer whose MACs alone explain its time."""
    layer = side.layer
    without = gain(pair.before, side, lambda one: float(one.layer.macs))
    # Of few bits some are zero by rounding: such zeros are nobody's cut.
    denser = pair.before is not None and layer.density < pair.before.layer.density and layer.bits == FLOAT_BITS
    if setting.skips or not denser or without is None or (pair.time_gain or 0) < without / (1 + setting.noise):
        return None
    says = f"{_percent(1 - layer.density)} of its weights are zero, and {setting.name} multiplies by them all the same"
    cause = "unstructured zeros on a dense engine"
    if side.reads_fixed and side.writes_fixed:
        return Finding(pair.name, cause, says, "use a target that skips zeros: no channel of it may go", None)
    width = layer.in_channels if side.writes_fixed else layer.out_channels
    fewer = max(round(width * layer.density) // ALIGNED * ALIGNED, ALIGNED)
    dense = replace(layer, density=1.0)
    return Finding(
        pair.name,
        cause,
        says,
        f"remove whole channels instead (prune: {{rewrite: channels}}): {fewer} of the {width} that it "
        f"{'reads' if side.writes_fixed else 'writes'} hold as many weights as are not zero",
        setting.brings(side, widened(dense, ins=fewer) if side.writes_fixed else widened(dense, outs=fewer)),
    )


def _odd_width(pair: Pair, side: Side, setting: Setting) -> Finding | None:
    """Tell counts of channels that a runtime has no fast path for."""
    layer = side.layer
    ins, outs = layer.in_channels, layer.out_channels
    odd_in = ins > IMAGE_CHANNELS and ins % ALIGNED > 0 and not side.reads_fixed
    odd_out = outs % ALIGNED > 0 and not side.writes_fixed
    if setting.modelled or not layer.kernel or not (odd_in or odd_out):
        return None
    down = widened(layer, _down(ins) if odd_in else ins, _down(outs) if odd_out else outs)
    up = widened(layer, _up(ins) if odd_in else ins, _up(outs) if odd_out else outs)
    fewer, more = setting.brings(side, down), setting.brings(side, up)
    known = [brings for brings in (fewer, more) if brings is not None]
    if known and max(known) <= FLAT * side.ms:
        return None
    says = [f"writes {outs} channels"] * odd_out + [f"reads {ins} channels"] * odd_in
    widths = list(dict.fromkeys([outs] * odd_out + [ins] * odd_in))
    if more is not None and more <= FLAT * side.ms:
        step = next(size for size in (*BLOCKS, ALIGNED) if all(_down(n) % size == 0 for n in widths))
        counts = [f"{_down(n)} in place of {n}" for n in widths]
        how, also = f"{{step: {step}}}", f"; {' and '.join(str(_up(n)) for n in widths)} would bring nothing"
    else:
        counts = [f"{' or '.join(dict.fromkeys([str(_down(n)), str(_up(n))]))} in place of {n}" for n in widths]
        how = f"{{step: {BLOCKS[0]}}} or {{step: {ALIGNED}}}"
        also = f"; {show(more, 'ms')} with the larger" if more is not None else ""
    return Finding(
        pair.name,
        "odd width",
        f"{' and '.join(says)}, no multiple of {ALIGNED}: {setting.name} leaves its blocked path",
        f"keep {', '.join(counts)} (prune: {how}){also}",
        max(known, default=None),
    )


def _reference(pair: Pair, side: Side, setting: Setting) -> Finding | None:
    """Tell a kernel that is there for completeness, not for speed."""
    if "ref" not in side.kernel.lower().replace("-", "_").split("_"):
        return None
    return Finding(
        pair.name,
        "fallback operator",
        f"{setting.name} has no fast kernel for it and takes {side.kernel}",
        "measure on another runtime, or write the layer in another way",
        None,
    )


def _depthwise(pair: Pair, side: Side, setting: Setting) -> Finding | None:
    """Tell a convolution of one channel a group on an array that computes group by group."""
    layer = side.layer
    if not setting.array_depthwise or layer.groups < 2 or layer.groups != layer.in_channels or side.writes_fixed:
        return None
    half = max(layer.out_channels // 2, 1)
    busy = (
        f"{_percent(side.utilisation)} of the multipliers work"
        if side.utilisation is not None
        else "most of it is idle"
    )
    return Finding(
        pair.name,
        "depthwise on a systolic array",
        f"its {layer.groups} groups run one by one on {setting.name}, and {busy}",
        f"remove more of its channels, each of which takes a pass of its own ({half} in place of "
        f"{layer.out_channels}), or let a vector unit compute it (depthwise: vector) where the hardware has one",
        setting.brings(side, widened(layer, outs=half)),
    )


def _launch(pair: Pair, side: Side, setting: Setting) -> Finding | None:
    """Tell a layer that costs little more than being started."""
    if setting.modelled:
        if side.bound != "launch":
            return None
        says = f"being started takes most of its {show(side.ms, 'ms')}"
    else:
        least, now = setting.predict(tiny(side.layer), setting.batch), setting.predict(side.layer, setting.batch)
        if not least or not now or least < LAUNCH * now:
            return None
        says = f"the same layer with {ALIGNED} channels on one position takes {_percent(min(least / now, 1))} as long"
    whole = ", or remove whole blocks rather than more channels (prune: {rewrite: layers})" if side.layer.kernel else ""
    return Finding(
        pair.name,
        "launch bound",
        says,
        f"run batches of {BATCHES * setting.batch}{whole}",
        setting.brings(side, side.layer, BATCHES),
    )


def _step(pair: Pair, side: Side, setting: Setting) -> Finding | None:
    """Tell a width between two treads of the staircase."""
    open_to = [("writes", side.writes_fixed), ("reads", side.reads_fixed)]
    found = [one for which, fixed in open_to if not fixed and (one := _tread(pair, side, setting, which))]
    return max(found, key=lambda one: one.brings or 0.0, default=None)


def _tread(pair: Pair, side: Side, setting: Setting, which: str) -> Finding | None:
    layer, out = side.layer, which == "writes"

    def width_of(one: Side) -> int:
        return one.layer.out_channels if out else one.layer.in_channels

    width = width_of(side)
    whole = width_of(pair.before) if pair.before else width

    def time(count: int) -> float | None:
        other = widened(layer, outs=count) if out else widened(layer, ins=count)
        return None if other is None else setting.predict(other, setting.batch)

    ends = _modelled_tread(time, width, whole) if setting.modelled else _measured_tread(time, width)
    if ends is None:
        return None
    below, above = ends
    saved = 0.0
    if below:
        other = widened(layer, outs=below) if out else widened(layer, ins=below)
        saved = setting.brings(side, other) or 0.0
    back = min(above, whole)
    said = [f"go down to {below} channels"] if below else []
    said += [f"take {back} back for nothing"] if back > width else []
    also = "" if below else f"{'; ' * bool(said)}fewer bring no time"
    return Finding(
        pair.name,
        "below the step",
        f"{which} {width} channels, and {above} cost {setting.name} the same time",
        ", or ".join(said) + also,
        max(saved, 0.0),
    )


def _measured_tread(time: Callable[[int], float | None], width: int) -> tuple[int, int] | None:
    """Return the next counts below and above that are whole blocks, where the one above costs no more."""
    now = time(width)
    for block in BLOCKS:
        above = -(-width // block) * block
        taken = time(above) if now and width % block else None
        if now and taken is not None and taken <= now * (1 + FLAT):
            return width // block * block, above
    return None


def _modelled_tread(time: Callable[[int], float | None], width: int, whole: int) -> tuple[int, int] | None:
    """Return the widest count that costs less, and the widest that costs the same, by bisection: time never falls.

    Looked at are counts up to the ``whole`` of the original, or to twice as many.
    """
    now = time(width)
    if not now:
        return None

    def last(low: int, high: int, limit: float) -> int:
        while low < high:
            middle = (low + high + 1) // 2
            taken = time(middle)
            low, high = (middle, high) if taken is not None and taken <= limit else (low, middle - 1)
        return low

    above = last(width, max(2 * width, whole), now * (1 + FLAT_MODELLED))
    if above <= width * 1.02:
        return None
    return last(0, width - 1, now * (1 - FLAT_MODELLED)), above


def _memory(pair: Pair, side: Side, setting: Setting) -> Finding | None:
    """Tell a layer that waits for its numbers."""
    layer = side.layer
    weights = layer.weights
    values = layer.in_channels * math.prod(layer.in_size) + layer.out_channels * math.prod(layer.out_size)
    intensity = setting.batch * layer.macs / (FLOAT * (weights + setting.batch * values))
    if setting.modelled:
        if side.bound not in ("dram", "sram"):
            return None
        says = f"{side.bound.upper()} traffic takes longer than its arithmetic"
    elif intensity < INTENSITY:
        says = f"{intensity:.2g} MACs for each byte that it moves"
    else:
        return None
    if weights > setting.batch * values:
        return Finding(
            pair.name,
            "memory bound",
            f"{says}, mostly its {weights:,} weights",
            f"run batches of {BATCHES * setting.batch}, which read the weights once, or keep fewer weights or fewer "
            "bits of them",
            setting.brings(side, layer, BATCHES),
        )
    if side.reads_fixed and side.writes_fixed:
        return Finding(pair.name, "memory bound", f"{says}, mostly activations", "compute in a lower precision", None)
    more = layer.in_channels * math.prod(layer.in_size) > layer.out_channels * math.prod(layer.out_size)
    reads = side.writes_fixed or (more and not side.reads_fixed)
    width = layer.in_channels if reads else layer.out_channels
    half = max(width // 2, 1)
    return Finding(
        pair.name,
        "memory bound",
        f"{says}, mostly activations",
        f"let it {'read' if reads else 'write'} fewer channels ({half} in place of {width}), or compute in a lower "
        "precision",
        setting.brings(side, widened(layer, ins=half) if reads else widened(layer, outs=half)),
    )


def _unknown(pair: Pair, side: Side, setting: Setting) -> Finding:
    """Say what is known where none of the causes holds."""
    alone = gain(pair.before, side, lambda one: one.alone)
    if alone is not None and pair.time_gain is not None and alone > pair.time_gain * (1 + setting.noise):
        says = (
            f"alone it gains {alone:.2g}x, among its neighbours {pair.time_gain:.2g}x: caches, or what is fused into it"
        )
    elif pair.time_gain is not None and (pair.work_gain or 0.0) >= CUT:
        says = f"{pair.work_gain:.2g}x less to compute, {pair.time_gain:.2g}x as fast; it uses the arithmetic less well"
        busy = [one.utilisation for one in (pair.before, side) if one is not None and one.utilisation is not None]
        if len(busy) == 2:
            says += f" ({_percent(busy[1])} of the multipliers work, before {_percent(busy[0])})"
    else:
        says = f"it takes {show(side.ms, 'ms')}, much for its MACs"
        if side.utilisation is not None:
            says += f" ({_percent(side.utilisation)} of the multipliers work)"
    return Finding(pair.name, UNKNOWN, says, "spend the cut elsewhere, where time follows", None)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _down(count: int) -> int:
    return max(count // ALIGNED * ALIGNED, ALIGNED)


def _up(count: int) -> int:
    return -(-count // ALIGNED) * ALIGNED
