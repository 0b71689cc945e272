"""Rules for operators that move elements: reshaping, reordering, shuffling.

The user's own code runs after a cut, with its own numbers in it. Where a number could have been written down or
computed from a shape, the rule takes the reading that leaves more free and notes an *assumption*; the proof decides,
and a reading proved wrong is replaced by the next one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from penjing.core.units import Ints
from penjing.factors.layer import Pick
from penjing.graph.labels import Tagged
from penjing.graph.rules.held import hold
from penjing.graph.rules.table import Call, Count, Gather, Result, rule

CONSTANT = "passes a size written as a constant"


@rule("permute", "transpose", "t", "numpy_T", "mT", "mH", "adjoint", "swapaxes", "swapdims", "movedim", "moveaxis")
def permute(call: Call) -> Result:
    """Reorder the dimensions."""
    x: Tagged = call["self"]
    rank = len(x.shape)
    order = list(range(rank))
    if call.name == "permute":
        order = [int(d) % rank for d in call["dims"]]
    elif call.name in ("transpose", "swapaxes", "swapdims"):
        a, b = (int(v) % rank for v in list(call.args.values())[1:3])
        order[a], order[b] = order[b], order[a]
    elif call.name in ("movedim", "moveaxis"):
        moves = [v if isinstance(v, list | tuple) else [v] for v in list(call.args.values())[1:3]]
        order = _moved(rank, *moves)
    elif call.name == "numpy_T":
        order.reverse()
    elif rank >= 2:
        order[-2:] = order[-1], order[-2]
    return call.tagged([call.dim(x, d) for d in order])


def _moved(rank: int, source: Any, target: Any) -> list[int]:
    marked = np.empty(list(range(1, rank + 1)))
    return [n - 1 for n in np.moveaxis(marked, source, target).shape]


@rule("unsqueeze")
def unsqueeze(call: Call) -> Result:
    """Add a dimension of one."""
    x: Tagged = call["self"]
    dims = call.dims(x)
    dims.insert(int(call["dim"]) % (len(dims) + 1), None)
    return call.tagged(dims)


@rule("squeeze")
def squeeze(call: Call) -> Result:
    """Drop dimensions of one."""
    x: Tagged = call["self"]
    rank = len(x.shape)
    given: Any = call.args.get("dim")
    chosen = (
        range(rank) if given is None else [d % rank for d in (given if isinstance(given, list | tuple) else [given])]
    )
    gone = {d for d in chosen if x.shape[d] == 1}
    return call.tagged([call.dim(x, d) for d in range(rank) if d not in gone])


@rule("expand", "expand_as", "broadcast_to")
def expand(call: Call) -> Result:
    """Repeat dimensions of one without copying."""
    x: Tagged = call["self"]
    lead = len(call.shape) - len(x.shape)
    sizes: Any = call.args.get("size")
    dims: list[Ints | None] = [None] * lead
    for d in range(len(x.shape)):
        labels = call.dim(x, d)
        if x.shape[d] != call.shape[lead + d]:
            call.pin(labels, "is one channel that is broadcast over many")
            other = call.args.get("other")
            dims.append(call.known(other, lead + d) if isinstance(other, Tagged) else None)
            continue
        if labels is not None and x.shape[d] > 1 and sizes is not None and int(sizes[lead + d]) != -1:
            labels = _trust(call, labels)
        dims.append(labels)
    return call.tagged(dims)


def _trust(call: Call, labels: Ints) -> Ints | None:
    """Take a written size for one computed from a shape, until it is proved wrong."""
    if call.level:
        call.pin(labels, CONSTANT, fixed_by_code=True)
        return None
    call.assume(labels)
    return labels


@rule("view", "reshape", "_unsafe_view", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "_reshape_alias")
def view(call: Call) -> Result:
    """Split and merge dimensions; a labelled dimension that is split must lose the same from each part."""
    x: Tagged = call.tensors()[0]
    new = call.shape
    written: list[int | None] = list(new)
    sizes: Any = call.args.get("size", call.args.get("shape"))
    if call.name in ("flatten", "ravel", "view_as", "reshape_as"):
        written = [None] * len(new)
    elif call.name == "unflatten":
        start = int(call["dim"]) % len(x.shape)
        given = [int(s) for s in call["sizes"]]
        written = [None] * len(new)
        for i, s in enumerate(given):
            written[start + i] = None if s == -1 else s
    elif sizes is not None:
        written = [None if int(s) == -1 else int(s) for s in sizes]
    dims: list[Ints | None] = [None] * len(new)
    for old_block, new_block in _blocks(x.shape, new):
        merged = _merge(call, x, old_block)
        if merged is None:
            continue
        targets = [d for d in new_block if new[d] > 1] or new_block[:1]
        if len(targets) == 1:
            d = targets[0]
            safe = written[d] is None
            dims[d] = merged if safe else _trust(call, merged)
        elif targets:
            placed = _split(call, merged, [new[d] for d in targets], [written[d] for d in targets])
            if placed is not None:
                dims[targets[placed[0]]] = placed[1]
    return call.tagged(dims)


def _blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Pair runs of old and new dimensions with equal products."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [], []
        left = right = 1
        if i < len(old):
            a.append(i)
            left = old[i]
            i += 1
        if j < len(new):
            b.append(j)
            right = new[j]
            j += 1
        while left != right:
            if left < right:
                a.append(i)
                left *= old[i]
                i += 1
            else:
                b.append(j)
                right *= new[j]
                j += 1
        blocks.append((a, b))
    return blocks


def _merge(call: Call, x: Tagged, block: list[int]) -> Ints | None:
    """Return the labels of the merged dimension; only one of the merged dimensions may have labels."""
    labelled = [d for d in block if x.shape[d] > 1 and call.dim(x, d) is not None]
    if not labelled:
        single = [labels for d in block if (labels := call.dim(x, d)) is not None]
        if not single or all(x.shape[d] == 1 for d in block):
            return single[0] if single else None
        for labels in single:
            call.pin(labels, "is one channel that is merged with its positions")
        return None
    main = max(labelled, key=lambda d: x.shape[d])
    for d in labelled:
        if d != main:
            call.pin(call.dim(x, d), "is merged with another labelled dimension")
    before = math.prod(x.shape[d] for d in block if d < main)
    after = math.prod(x.shape[d] for d in block if d > main)
    labels = call.dim(x, main)
    assert labels is not None
    return np.tile(np.repeat(labels, after), before)


def _split(call: Call, labels: Ints, sizes: list[int], written: list[int | None]) -> tuple[int, Ints] | None:
    """Choose which part carries the labels: one they already vary along alone, an inferred one, or the largest."""
    table = labels.reshape(sizes)
    for i in range(len(sizes)):
        lines = np.moveaxis(table, i, 0).reshape(sizes[i], -1)
        if (lines == lines[:, :1]).all():
            inferred = written[i] is None
            line: Ints | None = lines[:, 0] if inferred else _trust(call, lines[:, 0])
            return None if line is None else (i, line)
    free = [i for i, w in enumerate(written) if w is None]
    # Of two equal parts the later is more often the one that follows: view(n, groups, channels // groups).
    order = free if free else sorted(range(len(sizes)), key=lambda i: (-sizes[i], -i))
    order = [i for i in order if sizes[i] > 1]
    level = call.level
    if level >= len(order):
        call.pin(labels, CONSTANT, fixed_by_code=True)
        return None
    i = order[level]
    if level:
        call.labels.suspect(labels, call.reason(CONSTANT, fixed_by_code=True))
    call.assume(labels)
    lines = np.moveaxis(table, i, 0).reshape(sizes[i], -1)
    return i, call.labels.tie_rows(lines.T)


@rule("flip", "fliplr", "flipud")
def flip(call: Call) -> Result:
    """Reverse dimensions."""
    x: Tagged = call["self"]
    dims = call.dims(x)
    for d in call.get("dims", [1 if call.name == "fliplr" else 0]):
        labels = dims[int(d)]
        dims[int(d)] = None if labels is None else labels[::-1].copy()
    return call.tagged(dims)


@rule("roll")
def roll(call: Call) -> Result:
    """Rotate; along channels by a constant number, so they stay."""
    x: Tagged = call["self"]
    dims = call.dims(x)
    for d in call.get("dims", range(len(dims))) or range(len(dims)):
        call.pin(dims[int(d)], "is rotated by a constant number of channels", fixed_by_code=True)
    return call.tagged(dims)


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call) -> Result:
    """Move channels to space, or back: the channels that share a place go together."""
    x: Tagged = call["self"]
    down = call.name == "pixel_unshuffle"
    area = int(call["downscale_factor" if down else "upscale_factor"]) ** 2
    dims = call.dims(x)
    labels = dims[-3]
    if labels is not None:
        dims[-3] = np.repeat(labels, area) if down else call.labels.tie_rows(labels.reshape(-1, area).T)
    dims[-2:] = [None, None]
    return call.tagged(dims)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> Result:
    """Deal channels out over groups: equal offsets of all groups go together."""
    x: Tagged = call["self"]
    groups = int(call["groups"])
    dims = call.dims(x)
    labels = dims[1]
    if labels is not None:
        table = labels.reshape(groups, -1)
        call.labels.tie_rows(table)
        dims[1] = table.T.reshape(-1)
    return call.tagged(dims)


@rule("im2col", "unfold", "col2im")
def im2col(call: Call) -> Result:
    """Lay patches out as channels, or put them back."""
    x: Tagged = call["self"]
    if "kernel_size" not in call.args:
        return call.tagged([*call.dims(x)[: len(call.shape) - 1], None])
    area = math.prod(int(k) for k in call["kernel_size"])
    dims = call.dims(x)
    labels = dims[1]
    if call.name == "col2im":
        tied = None if labels is None else call.labels.tie_rows(labels.reshape(-1, area).T)
        return call.tagged([dims[0], tied, None, None])
    return call.tagged([dims[0], None if labels is None else np.repeat(labels, area), None])


@rule("index_select", "index", "gather", "take_along_dim")
def index(call: Call) -> Result:
    """Pick by an index buffer, which a cut renumbers; any other way of picking pins."""
    x: Tagged = call["self"]
    found = _index_of(call)
    dims = call.dims(x)
    if found is None:
        for labels in dims:
            call.pin(labels, f"is picked from by {call.name}")
        return Tagged.plain(call.shape)
    d, name = found
    labels = dims[d]
    if labels is None:
        return call.tagged(dims)
    if isinstance(call.owner, Pick):
        hold(call, [Count(call.module, "channels", None, labels)])
    values = call.around.buffers.get(name)
    if values is None:
        call.pin(labels, "is picked from by an index that is not a buffer of a module", fixed_by_code=True)
        dims[d] = None
        return call.tagged(dims)
    picked: Ints = labels[np.asarray(values)]
    dims[d] = picked
    call.labels.bind(name, 0, picked)
    earlier = [gather.source for gather in call.findings.gathers if gather.buffer == name]
    if not earlier:
        call.findings.gathers.append(Gather(name, labels))
    elif len(earlier[0]) == len(labels):  # one buffer can be renumbered in one way only
        call.labels.tie(earlier[0], labels)
    else:
        for source in (earlier[0], labels):
            call.pin(source, "is picked from by an index that also picks from another number of channels")
    return call.tagged(dims)


def _index_of(call: Call) -> tuple[int, str] | None:
    """Return (dimension, index tensor's name) where one dimension is picked by one vector."""
    if call.name == "index_select":
        chosen: Tagged = call["index"]
        return int(call["dim"]) % len(call["self"].shape), chosen.name
    if call.name == "index":
        given = [(d, i) for d, i in enumerate(call["indices"]) if i is not None]
        if len(given) == 1 and len(given[0][1].shape) == 1:
            return given[0][0], given[0][1].name
    return None
