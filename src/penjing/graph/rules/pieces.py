"""Rules for operators that cut channels into pieces: slices, splits, single indices.

Where a piece ends is a number in the user's code. It is taken for one that the module holds, which a cut sets, or else
for one computed from a shape; an assumption, as the module ``shape`` tells.
"""

from __future__ import annotations

import math

import numpy as np

from penjing.core.units import Ints
from penjing.graph.labels import Tagged
from penjing.graph.rules.held import hold, of_list, of_number, reading_of
from penjing.graph.rules.table import Call, Result, rule


@rule("slice", "narrow")
def slice_(call: Call) -> Result:
    """Cut a range out; see the module's note on numbers in the user's code."""
    x: Tagged = call["self"]
    d = int(call.get("dim", 0)) % len(x.shape)
    size = x.shape[d]
    start, stop, step = call.get("start", 0), call.get("end", size), int(call.get("step", 1))
    if call.name == "narrow":
        start, stop = int(call["start"]), int(call["start"]) + int(call["length"])
    first, last, _ = slice(start, stop, 1).indices(size)
    dims = call.dims(x)
    labels = dims[d]
    if labels is None or (first, last, step) == (0, size, 1):
        return call.tagged(dims)
    chosen: Ints | None = labels[first:last:step]
    if step > 1:
        if first < step and last == size and size % step == 0:
            chosen = call.labels.tie_rows(labels.reshape(-1, step).T)
        else:
            call.pin(labels, "is sliced with a stride that does not divide it", fixed_by_code=True)
            chosen = None
    else:
        _slice_at(call, labels, (first, last), (int(start), int(stop)))
    dims[d] = chosen
    return call.tagged(dims)


def _slice_at(call: Call, labels: Ints, ends: tuple[int, int], written: tuple[int, int]) -> None:
    """Take the ends for numbers that the module holds, then for shares of the shape, then for constants."""
    size = len(labels)
    inner = [n for n in ends if 0 < n < size]
    found = [of_number(call, labels[:n]) for n in inner] if min(written) >= 0 else []
    counts = [count for counts in found for count in counts] if all(found) else []
    reading = reading_of(call, counts, shape=math.gcd(*ends, size) > 1)
    if reading == "constant":
        _pin_slice(call, labels, *written, size)
        return
    call.assume(labels)
    if reading == "held":
        hold(call, counts)
    else:
        call.labels.balance(labels.reshape(-1, math.gcd(*ends, size)))


def _pin_slice(call: Call, labels: Ints, start: int, stop: int, size: int) -> None:
    """Pin what a constant range counts from: the front for positive ends, the back for negative ones."""
    why = "is cut off at a constant channel number"
    if 0 < start < size or 0 < stop < size:
        front = max(n for n in (start, stop) if 0 < n < size)
        call.pin(labels[:front], why, fixed_by_code=True)
    if start < 0 or stop < 0:
        back = max(-n for n in (start, stop) if n < 0)
        call.pin(labels[-back:], why, fixed_by_code=True)


@rule("select", "unbind")
def select(call: Call) -> Result:
    """Take single indices: a labelled dimension cannot shrink under them."""
    x: Tagged = call["self"]
    d = int(call.get("dim", 0)) % len(x.shape)
    call.pin(call.known(x, d), "is picked by a constant channel number", fixed_by_code=True)
    dims = [call.dim(x, i) for i in range(len(x.shape)) if i != d]
    results = [call.tagged(dims, i) for i in range(len(call.shapes))]
    return results if call.name == "unbind" else results[0]


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unsafe_chunk", "unsafe_split", "hsplit")
def split(call: Call) -> Result:
    """Cut into pieces: equal offsets go together, or, where sizes are constants, all but the last piece stay."""
    x: Tagged = call["self"]
    d = int(call.get("dim", 0)) % len(x.shape)
    dims = call.dims(x)
    labels = dims[d]
    sizes = [shape[d] for shape in call.shapes]
    if labels is not None:
        if "chunks" in call.args or "sections" in call.args:
            _tie_pieces(call, labels, sizes)
        else:
            _split_at(call, labels, sizes)
    results: list[Tagged] = []
    at = 0
    for i, n in enumerate(sizes):
        part = list(dims)
        part[d] = None if labels is None else labels[at : at + n]
        results.append(call.tagged(part, i))
        at += n
    return results


def _split_at(call: Call, labels: Ints, sizes: list[int]) -> None:
    """Take the sizes for numbers that the module holds, then for shares of the shape, then for constants."""
    one_size = call.name in ("split", "unsafe_split") and not isinstance(call.args.get("split_size"), list)
    piece = math.gcd(*sizes)
    alike = len(set(sizes)) == 1
    parts = np.split(labels, np.cumsum(sizes)[:-1])
    counts = (of_number(call, parts[0]) if alike else []) if one_size else of_list(call, parts)
    reading = reading_of(call, counts, shape=piece > 1)
    if reading == "constant":
        end = len(labels) - sizes[-1] if call.name in ("split", "unsafe_split") else len(labels)
        call.pin(labels[:end], f"is split into constant sizes {sizes}", fixed_by_code=True)
        return
    call.assume(labels)
    if reading == "held":
        hold(call, counts)
    if reading == "shape" or one_size:
        call.labels.balance(labels.reshape(-1, piece))


def _tie_pieces(call: Call, labels: Ints, sizes: list[int]) -> None:
    """Let all pieces lose equally many; offsets that not every piece has must stay, or the borders would move."""
    if len(set(sizes)) == 1:
        call.labels.balance(labels.reshape(len(sizes), -1))
        return
    starts = np.cumsum([0, *sizes[:-1]])
    call.labels.tie_rows(np.stack([labels[at : at + min(sizes)] for at in starts]))
    for at, n in zip(starts, sizes, strict=True):
        why = f"is the odd one where {len(labels)} channels are cut into {len(sizes)} pieces"
        call.pin(labels[at + min(sizes) : at + n], why, fixed_by_code=True)
