"""A network that a run measured, beside what a target's table of layers says of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penjing.costs.checked import count, entry, mapping, number
from penjing.costs.design import kind_of
from penjing.costs.fit import StaircaseModel
from penjing.costs.probe import Shape


@dataclass(frozen=True)
class Seen:
    """What is known of one network: predicted by the table alone, never by a correction, and measured.

    ``predicted`` are the sums of its layers' times by kind; ``layers`` the same by the runtime's profile, scaled so
    that all operators add up to ``measured``, and empty where there is none. ``values`` counts what its layers write
    for one sample. ``measured`` is the least time, as a layer's is, ``median`` what a user is told.

    Units: ms.
    """

    predicted: Mapping[str, float]
    values: int
    measured: float
    median: float
    layers: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """The sum of all layers, predicted."""
        return sum(self.predicted.values())

    @classmethod
    def of(
        cls,
        shapes: Mapping[Shape, int],
        table: StaircaseModel,
        measured: float,
        median: float,
        profile: Mapping[Shape, tuple[int, float]],
    ) -> Seen:
        """Return a network of these layers, each so many times; ``profile`` tells for how many, and their ms.

        A profile that leaves out a layer, as one does that a runtime has joined to another, is not used: its time would
        count as something else's.

        Raises: PlanError for a kind of layer that the table does not know.
        """
        predicted, told = dict[str, float](), dict[str, float]()
        for shape, times in shapes.items():
            kind = kind_of(shape)
            predicted[kind] = predicted.get(kind, 0.0) + times * table.predict(shape)
        for shape, (_, ms) in profile.items():
            told[kind_of(shape)] = told.get(kind_of(shape), 0.0) + ms
        whole = Counter({shape: times for shape, (times, _) in profile.items()}) == Counter(shapes)
        values = sum(times * shape.out_channels * math.prod(shape.out_size) for shape, times in shapes.items())
        return cls(predicted, values, measured, median, told if whole else {})

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, to a thousandth of a microsecond."""
        return {
            "measured": round(self.measured, 6),
            "median": round(self.median, 6),
            "values": self.values,
            "predicted": {kind: round(ms, 6) for kind, ms in self.predicted.items()},
            "layers": {kind: round(ms, 6) for kind, ms in self.layers.items()},
        }

    @classmethod
    def from_dict(cls, where: str, data: Any) -> Seen:
        """Return what ``to_dict`` made data of.

        Raises: ValueError naming the key, behind ``where``, that is wrong.
        """

        def whole(name: str) -> float:
            return number(f"{where}.{name}", entry(where, data, name), positive=True)

        def kinds(name: str) -> dict[str, float]:
            given = mapping(f"{where}.{name}", entry(where, data, name))
            return {str(kind): number(f"{where}.{name}.{kind}", ms) for kind, ms in given.items()}

        values = count(f"{where}.values", entry(where, data, "values"))
        return cls(kinds("predicted"), values, whole("measured"), whole("median"), kinds("layers"))
