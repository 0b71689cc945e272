"""Change data a little or a lot, the way accidents and attackers do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

WORDS = (
    "", " ", "\n", "-", "--", "+0.5", "0.5x", "50%", "1e400", "nan", "~", "null", "yes", "digits", "digits:x",
    "tiny:tiny", "tiny:failing", "tiny:", ":", "os", "../up", "/", "/dev/null", "a\x00b", "\x1b[31mred", "\u202eabc",
    "ß" * 40, "a" * 3_000,
    "model.onnx", "../model.onnx", "results.json", "macs", "latency", "l1", "jacobian", "greedy", "channels", "weights",
    "train", "prune", "export", "check", "evaluate", "reconstruct", "soft_targets", "hints", "none", "__class__",
)  # fmt: skip

numbers = st.one_of(
    st.integers(-3, 70), st.sampled_from([2**31, 2**63, -(2**64), 10**30]),
    st.sampled_from([0.0, -0.0, 0.5, 1.5, 1e-30, 1e30, float("inf"), float("-inf"), float("nan")]),
)  # fmt: skip

leaves = st.one_of(
    st.none(), st.booleans(), numbers, st.sampled_from(WORDS),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)  # fmt: skip

values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to everything in nested data."""
    yield path
    if isinstance(data, dict):
        for key in data:
            yield from _places(data[key], (*path, key))
    elif isinstance(data, list):
        for i, value in enumerate(data):
            yield from _places(value, (*path, i))


def mutated(draw: Draw, data: Any) -> Any:
    """Return nested data with one thing about it changed."""
    data = copy.deepcopy(data)
    path = draw(st.sampled_from(list(_places(data))))
    if not path:
        return draw(values) if draw(st.integers(0, 9)) == 0 else data
    holder = data
    for part in path[:-1]:
        holder = holder[part]
    at = path[-1]
    how = draw(st.sampled_from(["replace", "delete", "rename", "wrap", "nest", "stranger", "twice", "swap"]))
    if how == "replace":
        holder[at] = draw(values)
    elif how == "delete":
        del holder[at]
    elif how == "wrap":
        holder[at] = [holder[at]]
    elif how == "nest":
        holder[at] = {draw(st.sampled_from(WORDS)): holder[at]}
    elif how == "swap":
        other = draw(st.sampled_from(list(_places(data))))
        value = data
        for part in other:
            value = value[part]
        holder[at] = copy.deepcopy(value)
    elif isinstance(holder, dict):
        key = draw(st.sampled_from(WORDS) | st.text(max_size=8) | st.just(f"{at}s"))
        value = holder.pop(at) if how == "rename" else copy.deepcopy(holder[at]) if how == "twice" else draw(values)
        holder[key] = value
    else:
        holder.insert(at, copy.deepcopy(holder[at]) if how == "twice" else draw(values))
    return data


def damaged(draw: Draw, raw: bytes) -> bytes:
    """Return bytes with something about them broken."""
    at = draw(st.integers(0, max(len(raw) - 1, 0)))
    how = draw(st.sampled_from(["flip", "cut", "insert", "drop", "zeros", "empty", "twice", "many", "other", "last"]))
    if how == "flip" and raw:
        return raw[:at] + bytes([raw[at] ^ draw(st.integers(1, 255))]) + raw[at + 1 :]
    if how == "cut":
        return raw[:at]
    if how == "insert":
        return raw[:at] + draw(st.binary(min_size=1, max_size=20)) + raw[at:]
    if how == "drop":
        return raw[:at] + raw[at + draw(st.integers(1, 40)) :]
    if how == "zeros":
        return raw[:at] + b"\0" * min(draw(st.integers(1, 64)), len(raw) - at) + raw[at + 64 :]
    if how == "twice":
        return raw + raw[at:]
    if how == "many":
        return raw[:at] + raw[at : at + draw(st.integers(1, 8))] * 20_000 + raw[at:]
    if how == "other":
        return draw(st.binary(max_size=200))
    return raw[:-1] if how == "last" else b""
