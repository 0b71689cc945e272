"""What runs between the layers: pooling and additions, and changes of layout or precision that nobody asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from penjing.exporting.runtimes.operators import LAYERS
from penjing.exporting.runtimes.subject import LayerTime
from penjing.steps.few_bits import FASTER, SIZE_ONLY
from penjing.steps.sides import Finding

LAYOUT = frozenset({"Reorder", "ReorderInput", "ReorderOutput", "Transpose"})
"""What runtimes call a change of layout."""

QUANTIZE = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize", "QuantizeLinear"})
"""What runtimes call a change between floats and whole numbers."""

FAST = frozenset(
    {"Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "LeakyRelu",
     "MaxPool", "Mul", "Relu", "Sigmoid", "Sum", "Tanh", "Upsample"}
)  # fmt: skip
"""Operators without weights that ONNX Runtime has in its blocked layout, or that any layout suits."""

ROUNDING = frozenset({"Abs", "Ceil", "Div", "Floor", "Max", "Min", "Round", "Sign", "Sub", "Where"})
"""Operators that round what layers of few bits read, in files for runtimes that compute in floats."""

LEAST = 0.02
"""Operators that take less of the time together are not worth a word."""


def kind(operator: str) -> str:
    """Return what an operator that is no layer is there for: ``"layout"``, ``"quantize"``, or nothing of these."""
    return "layout" if operator in LAYOUT else "quantize" if operator in QUANTIZE else ""


def find(
    rows: Sequence[LayerTime], scale: float, runtime: str, odd: Collection[str] = (), *, rounded: bool = False
) -> list[Finding]:
    """Return what changes of layout and of precision cost; ``rows`` are a profile.

    ``scale`` makes its times latency. Layers of ``odd`` widths change layouts on their own account. ``rounded`` says
    that what layers read is rounded by operators of the file.

    What they bring when they go is their time, which is measured.
    """
    total = scale * sum(row.ms for row in rows)
    quantize = scale * sum(row.ms for row in rows if kind(row.operator) == "quantize")
    found = [*_layouts(rows, scale, runtime, odd, rounded)]
    if quantize:
        count = sum(kind(row.operator) == "quantize" for row in rows)
        says = f"{count} of them between layers take {100 * quantize / total:.2g} % of the time"
        remedy = "quantise layers that follow one another, or leave those alone whose neighbours stay in floats"
        found.append(Finding("quantize nodes", "quantize nodes", says, remedy, quantize))
    return [one for one in found if (one.brings or 0.0) >= LEAST * total]


def _layouts(
    rows: Sequence[LayerTime], scale: float, runtime: str, odd: Collection[str], rounded: bool
) -> list[Finding]:
    """Return the operators for whose sake the layout changes, an entry for each kind of operator."""
    around: dict[str, list[tuple[int, int]]] = {}
    for at, row in enumerate(rows):
        cause = _reason(rows, at, odd) if row.operator in LAYOUT else None
        if cause is not None:
            around.setdefault(rows[cause].operator, []).append((at, cause))
    found = []
    for operator, places in around.items():
        ms = scale * sum(rows[at].ms for at, _ in places)
        where = list(dict.fromkeys(rows[cause].name.removeprefix("after ") for _, cause in places))
        shown = ", ".join(where[:3]) + (f" and {len(where) - 3} more layers" if len(where) > 3 else "")
        times = "once" if len(places) == 1 else f"{len(places)} times"
        says = f"after {shown} it is off the fast path: {runtime} changes the layout {times} around it and behind it"
        if rounded and operator in ROUNDING:
            says = f"it rounds what layers read, in a file that is size only; {says}"
            remedy = f"{FASTER}; or leave what layers read in floats (quantize: a method for weights alone)"
            found.append(Finding(operator, SIZE_ONLY, says, remedy, ms))
            continue
        remedy = "write it with what the fast path takes: convolutions, pooling, additions, ReLU, concatenation"
        found.append(Finding(operator, "fallback operator", says, remedy, ms))
    return found


def _reason(rows: Sequence[LayerTime], at: int, odd: Collection[str]) -> int | None:
    """Return the row for whose sake the layout changes at ``at``; None at the borders, and where odd widths tell why.

    Out of the fast layout that is what comes next, if the fast layout does not have it, and otherwise what came before:
    sums are in the layout of the summand that never had another. Operators run in the order of the file.
    """
    if rows[at].operator != "ReorderInput":
        for i in range(at + 1, len(rows)):
            if rows[i].operator in LAYERS:
                break
            if rows[i].operator not in LAYOUT | FAST:
                return i
    for i in range(at - 1, -1, -1):
        if rows[i].operator in LAYERS and rows[i].name in odd:
            return None
        if rows[i].operator not in LAYERS | LAYOUT | FAST:
            return i
    return None
