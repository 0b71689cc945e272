"""Sweep a budget: what each share of a cost leaves of the accuracy, on the network as it is recovered after each cut.

What does not depend on the budget is worked out once: the traced graph, the scores, the times of layers, and what a
search has measured. So ten points cost little more than ten cuts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from penjing.core import console
from penjing.core.errors import BudgetError, Infeasible
from penjing.costs.units import parse_budget, show
from penjing.report.curve import curve
from penjing.steps.original import counted, drafted, estimated, original_of
from penjing.steps.price import units
from penjing.steps.prune import Scored, prune
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate
from penjing.training.follow import distance

SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15)
"""Shares of the original's cost that are tried where nothing else is asked."""


@dataclass(frozen=True)
class Point:
    """One network on the curve: what was ``asked``, what it costs in the cost's unit, and how good it is.

    ``cost`` is measured on the exported file where a runtime decides, else what the target's model tells; ``predicted``
    what the plan was chosen by. ``accuracy`` is in %, on validation; where pictures have no classes it is None, and
    ``distance`` from the original's outputs is told, in %. ``macs`` and ``params`` are shares of the original's;
    ``widths`` the units of each site that was cut.
    """

    asked: str
    cost: float
    predicted: float
    accuracy: float | None
    distance: float | None
    macs: float
    params: float
    widths: Mapping[str, int]
    seconds: float


@dataclass(frozen=True, eq=False)
class Frontier:
    """The curve of a cost against accuracy, largest share first; ``original`` is where it starts.

    ``refused`` says, by what was asked, why there is no point. ``facts`` says on what all was found out.
    """

    cost: str
    unit: str
    original: Point
    points: Sequence[Point]
    refused: Mapping[str, str]
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return the curve as plain JSON data."""
        rows = [{**asdict(point), "share": point.cost / self.original.cost} for point in self.points]
        told = {"cost": self.cost, "unit": self.unit, **self.facts, "original": asdict(self.original)}
        return {**told, "points": rows, "refused": dict(self.refused)}

    def __str__(self) -> str:
        """Return the curve as a table."""
        judged = "accuracy" if self.original.accuracy is not None else "distance"
        header = ["asked", self.cost, "share", f"{judged} (validation)", "MACs", "parameters"]
        rows = [self._cells(point) for point in (self.original, *self.points)]
        lines = [console.table("", header, rows)]
        lines += [f"{asked}: {why}" for asked, why in self.refused.items()]
        how = f"{self.facts['where']}; {self.facts['seconds']:.0f} s for {len(self.points)} points"
        return "\n".join([*lines, how])

    def svg(self) -> str:
        """Return the curve as a picture that stands alone."""
        values = [(p.cost / self.original.cost, _judged(p)) for p in self.points]
        what = "accuracy" if self.original.accuracy is not None else "distance from the original's outputs"
        return curve(values, (1.0, _judged(self.original)), f"share of the original's {self.cost}",
                     f"{what} on validation, %")  # fmt: skip

    def _cells(self, point: Point) -> list[str]:
        share = f"{point.cost / self.original.cost:.3f}x"
        return [point.asked, show(point.cost, self.unit), share, f"{_judged(point):.2f} %", f"{point.macs:.3f}x",
                f"{point.params:.3f}x"]  # fmt: skip


def _judged(point: Point) -> float:
    found = point.distance if point.accuracy is None else point.accuracy
    assert found is not None
    return found


def shares_of(cost: str, given: Sequence[Any]) -> list[str]:
    """Return the shares to ask for, largest first, as a budget writes them; plain numbers are shares.

    Raises: BudgetError for one that is no share of the original's cost, or none at all.
    """
    found = {}
    for one in given:
        text = f"{one:g}x" if isinstance(one, int | float) and not isinstance(one, bool) else str(one)
        text = f"{text}x" if text.replace(".", "", 1).isdecimal() else text
        (asked,) = parse_budget({cost: text}).values()
        if asked.kind != "relative":
            raise BudgetError(f"{cost}={text} is no share of the original's; a frontier goes over shares such as 0.5x.")
        found[asked.value] = text
    if not found:
        raise BudgetError("A frontier needs shares to go over, such as 0.8, 0.6, 0.4.")
    return [found[value] for value in sorted(found, reverse=True)]


def swept(cut: prune, recover: Sequence[Any], cost: str, shares: Sequence[str], state: State, run: Run) -> Frontier:
    """Cut to each share of a cost, recover, and measure; what a share before has found out is used again.

    Each point is written into the run's journal, so that a sweep that was killed goes on behind it. Test pictures are
    not read. The first share that cannot be reached ends the sweep.

    Raises: PenjingError for everything a user can mend.
    """
    start, scored = time.perf_counter(), None
    refused: dict[str, str] = {}
    original = _original(cost, state, run)
    points: list[Point] = []
    with console.bar(f"frontier of {cost}", len(shares)) as advance:
        for asked in shares:
            name = f"point {cost}={asked}"
            if run.journal.known(name) is None and scored is None:
                scored = cut.score(state, run)
            found = run.journal.once(name, partial(_tried, cut, recover, cost, asked, state, run, scored))
            if "refused" in found:
                refused[asked] = found["refused"]
                break
            points.append(Point(**found))
            advance(1, f"frontier of {cost}: {asked}")
    if not points:
        raise Infeasible(f"No share that was asked for can be reached. {next(iter(refused.values()))}", {})
    facts = {"where": _where(cost, run), "target": run.target.name, "seed": run.seed, "threads": run.threads,
             "batch": run.batch, "seconds": round(time.perf_counter() - start, 1)}  # fmt: skip
    return Frontier(cost, units()[cost], original, points, refused, facts)


def _where(cost: str, run: Run) -> str:
    """Say what decided about the cost."""
    if cost in run.target.tells:
        return f"measured on {run.target.name}" if run.target.runtime else f"by the model of {run.target.name}"
    return "measured on the exported file" if cost == "size" else "counted on the cut network"


def _tried(
    cut: prune, recover: Sequence[Any], cost: str, asked: str, state: State, run: Run, scored: Scored | None
) -> dict[str, Any]:
    """Return one point as plain data, or why there is none."""
    start, run.at = time.perf_counter(), f"frontier {cost}={asked}"
    try:
        found, pricer = replace(cut, budget={cost: asked}, towards=1.0).decide(state, run, scored=scored)
    except Infeasible as error:
        return {"refused": str(error)}
    small = state.with_model(found.model, found.plan)
    for step in recover:
        small = step(small, run)
    original = original_of(state, run)
    draft = drafted(small.model, small.example)
    costs = counted(draft) | estimated(draft, run.target) | dict(found.measured)
    point = Point(
        asked, costs[cost], pricer(found.plan)[cost], *_quality(small, state), costs["macs"] / original.cost("macs"),
        costs["params"] / original.cost("params"), {entry.site: len(entry.kept) for entry in found.plan},
        round(time.perf_counter() - start, 1),
    )  # fmt: skip
    return asdict(point)


def _original(cost: str, state: State, run: Run) -> Point:
    value = original_of(state, run).cost(cost)
    quality = run.journal.once("quality of the original", lambda: _quality(state, state))
    return Point("1x", value, value, quality[0], quality[1], 1.0, 1.0, {}, 0.0)


def _quality(small: State, state: State) -> tuple[float | None, float | None]:
    """Return the accuracy on validation, and where there are no classes the distance from the original's outputs."""
    data = state.data_for("frontier")
    if data.labelled:
        return evaluate(small.model, data.val).accuracy, None
    return None, distance(small.model, state.original, data.val)
