"""Rules for operators that make a dimension longer: joining tensors, repeating one."""

from __future__ import annotations

import numpy as np

from penjing.core.units import Ints
from penjing.graph.labels import Tagged
from penjing.graph.rules.table import Call, Result, rule, unknown


@rule("cat", "concat", "concatenate", "hstack", "vstack")
def cat(call: Call) -> Result:
    """Join along one dimension; the others are tied."""
    parts: list[Tagged] = [x for x in call["tensors"] if len(x.shape) == len(call.shape)]
    default = 1 if call.name == "hstack" and len(call.shape) > 1 else 0
    d = int(call.get("dim", default)) % len(call.shape)
    dims: list[Ints | None] = []
    for i in range(len(call.shape)):
        vectors = [call.dim(x, i) for x in parts]
        if i == d:
            dims.append(call.join(vectors, [x.shape[i] for x in parts]))
            continue
        dims.append(_common(call, vectors))
    return call.tagged(dims)


def _common(call: Call, vectors: list[Ints | None]) -> Ints | None:
    """Tie the labels of dimensions that must stay equal; one without labels pins the others."""
    known = [v for v in vectors if v is not None]
    for v in known[1:]:
        call.labels.tie(known[0], v)
    if known and len(known) < len(vectors):
        call.pin(known[0], "meets a tensor whose size cannot change")
        return None
    return known[0] if known else None


@rule("stack")
def stack(call: Call) -> Result:
    """Join along a new dimension; the others are tied."""
    parts: list[Tagged] = call["tensors"]
    dims = [_common(call, [call.dim(x, i) for x in parts]) for i in range(len(parts[0].shape))]
    dims.insert(int(call.get("dim", 0)) % len(call.shape), None)
    return call.tagged(dims)


@rule("repeat", "tile")
def repeat(call: Call) -> Result:
    """Repeat whole dimensions."""
    x: Tagged = call["self"]
    times = [int(n) for n in call.get("repeats", call.get("dims"))]
    times = [1] * (len(call.shape) - len(times)) + times
    lead = len(call.shape) - len(x.shape)
    dims: list[Ints | None] = [None] * lead
    for d in range(len(x.shape)):
        labels = call.dim(x, d)
        dims.append(None if labels is None else np.tile(labels, times[lead + d]))
    return call.tagged(dims)


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Result:
    """Repeat each index in place."""
    x: Tagged = call["self"]
    d = call.get("dim")
    times = call["repeats"]
    if d is None or isinstance(times, Tagged):
        return unknown(call)
    dims = call.dims(x)
    labels = dims[int(d) % len(dims)]
    dims[int(d) % len(dims)] = None if labels is None else np.repeat(labels, int(times))
    return call.tagged(dims)
