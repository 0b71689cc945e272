"""The largest network of a family that a budget allows, by width and by the side of its pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penjing import zoo
from penjing.core import console
from penjing.core.errors import BudgetError, Infeasible, TraceError
from penjing.core.random import torch_stream
from penjing.core.search import Bound
from penjing.costs.staircase import learn_step
from penjing.costs.table import LayerTable
from penjing.costs.units import resolve, show
from penjing.exporting.measure import Timing, ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.exporting.session import file_bytes
from penjing.graph.draft import Draft
from penjing.steps.original import counted, drafted, estimated
from penjing.steps.price import asked, on_file, timed, units
from penjing.steps.settle import SAFE
from penjing.steps.state import Run
from penjing.zoo.family import Family

RULE = "the most MACs, then the most parameters"
"""What the largest is."""

ABOVE = 2
"""Members above the widest one found that are priced as well: on hardware a wider layer may cost less."""

ROUNDS = 12
"""Members of one picture size that are exported and measured at most."""

Picture = tuple[int, int, int]


@dataclass(frozen=True)
class Member:
    """A member of the family: its name for ``zoo.build``, what it is predicted to cost, and what was measured.

    ``picture`` is channels, height and width. ``meets`` says whether it keeps the budget: as measured, for costs that
    only the exported file decides, and else as predicted; None where it was predicted to, and not measured.
    """

    model: str
    width: float
    picture: Picture
    costs: Mapping[str, float]
    measured: Mapping[str, float] = field(default_factory=dict)
    meets: bool | None = None

    @property
    def size(self) -> tuple[float, float]:
        """What members are ordered by."""
        return self.costs["macs"], self.costs["params"]

    def cost(self, name: str) -> float:
        """Return a cost, as measured where it was."""
        return self.measured.get(name, self.costs[name])


@dataclass(frozen=True, eq=False)
class Largest:
    """The largest member that keeps the ``bounds``, and all that were ``tried``, by picture and width.

    ``limits`` are the bounds as a recipe's budget has them, absolute; ``is_resized`` says that the pictures of the
    chosen one are not of the size that was given.
    """

    chosen: Member
    tried: Sequence[Member]
    bounds: Sequence[Bound]
    limits: Mapping[str, Any]
    is_resized: bool
    where: str

    @property
    def model(self) -> str:
        """The member's name, for ``zoo.build`` and recipes."""
        return self.chosen.model

    def build(self, seed: int = 0) -> nn.Module:
        """Return the member with new weights."""
        return zoo.build(self.model, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON data."""
        rows = [
            {"model": one.model, "width": one.width, "picture": list(one.picture), "predicted": dict(one.costs),
             "measured": dict(one.measured), "meets": one.meets, "chosen": one == self.chosen}
            for one in self.tried
        ]  # fmt: skip
        bounds = [{"cost": b.cost, "asked": b.asked, "limit": b.limit, "unit": units()[b.cost]} for b in self.bounds]
        return {"model": self.model, "rule": RULE, "bounds": bounds, "where": self.where, "tried": rows}

    def __str__(self) -> str:
        """Return it as text."""
        bounded = [b.cost for b in self.bounds if b.cost not in ("params", "macs")]
        measured = [name for name in bounded if any(name in one.measured for one in self.tried)]
        header = ["width", "picture", "parameters", "MACs"]
        header += [f"{name}, predicted" if name in measured else name for name in bounded]
        header += [f"{name}, measured" for name in measured] + ["meets"]
        rows = []
        for one in self.tried:
            cells = [f"{one.width:g}", _shown(one.picture)]
            cells += [show(one.costs[name], units()[name]) for name in ("params", "macs", *bounded)]
            cells += [show(one.measured[n], units()[n]) if n in one.measured else "" for n in measured]
            meets = {True: "yes", False: "no", None: "not measured"}[one.meets]
            rows.append([*cells, "chosen" if one == self.chosen else meets])
        told = (f"{b.cost} {show(self.chosen.cost(b.cost), units()[b.cost])} of {show(b.limit, units()[b.cost])}"
                for b in self.bounds)  # fmt: skip
        return "\n\n".join(
            [
                console.table("", header, rows),
                f"{self.model} on {_shown(self.chosen.picture)}: {', '.join(told)}.\n"
                f"It has {RULE} of those that meet the budget; {self.where}.",
            ]
        )


def largest(
    family: Family,
    budget: Any,
    picture: Picture,
    run: Run,
    widths: Sequence[float] | None = None,
    sides: Sequence[int] = (),
) -> Largest:
    """Return the largest member that keeps a budget, on pictures of this size or of each of the ``sides``.

    Relative bounds are shares of what the member of width 1 costs on ``picture``. Costs are predicted, and the widest
    member that is predicted to keep all bounds is found by bisection, for costs rise with the width. Where only the
    exported file decides, of latency on a runtime and of size, members are exported and measured, the next one by the
    predictions as corrected by the last, until one keeps the bounds and the next wider one does not, at most ``ROUNDS``
    a side; a latency above 98 % of its bound does not keep it, since the same file may take more the next time.

    Raises: Infeasible naming what the smallest member costs; BudgetError for a bound on the error, which an untrained
    network does not tell; PenjingError for everything a user can mend.
    """
    wanted = asked(budget, run.target)
    if not wanted:
        raise BudgetError("There is no budget; write for example latency=5ms or params=300k.")
    if "error" in wanted:
        raise BudgetError("An untrained network tells no error; leave it out here, and add it to the recipe's budget.")
    known = family.widths(widths)
    yard = Yard(family, picture, run, wanted)
    bounds = [resolve(one, yard.whole(name) if one.kind == "relative" else 0.0) for name, one in wanted.items()]
    searches = [
        Search(yard, bounds, [(width, (picture[0], side, side)) for width in known]) for side in dict.fromkeys(sides)
    ] or [Search(yard, bounds, [(width, picture) for width in known])]
    found = [best for search in console.track(searches, "picture sizes") if (best := search.best()) is not None]
    if not found:
        smallest = min((search.member(0) for search in searches), key=lambda one: one.size)
        costs = ", ".join(f"{b.cost} {show(smallest.cost(b.cost), units()[b.cost])} "
                          f"(at most {show(b.limit, units()[b.cost])})" for b in bounds)  # fmt: skip
        raise Infeasible(
            f"No member of {family.spec} meets the budget: the smallest, width {smallest.width:g} on "
            f"{_shown(smallest.picture)}, has {costs}.",
            {b.cost: smallest.cost(b.cost) for b in bounds},
        )
    tried = [one for search in searches for one in search.tried()]
    chosen = max(found, key=lambda one: one.size)
    limits = {b.cost: b.asked if wanted[b.cost].kind == "absolute" else _rounded_down(b.limit) for b in bounds}
    return Largest(chosen, tried, bounds, limits, chosen.picture != picture, _where(bounds, run))


class Yard:
    """Where members are built, priced, exported and measured; the yardstick is the member of width 1.

    ``decided`` are the costs that only the exported file decides.
    """

    def __init__(self, family: Family, picture: Picture, run: Run, wanted: Collection[str]) -> None:
        self.family, self.picture, self.run = family, picture, run
        self.decided = [name for name in wanted if name == "size" or (name == "latency" and run.target.runtime)]

    def whole(self, cost: str) -> float:
        """Return what the member of width 1 costs."""
        if cost == "latency" and cost in self.decided:
            return self.timing.median_ms
        return float(file_bytes(self.subject.name)) if cost == "size" else self.price(1.0, self.picture)[cost]

    @cached_property
    def subject(self) -> Subject:
        """The member of width 1, exported."""
        return self._exported(1.0, self.picture, self.run.scratch / "whole.onnx")

    @cached_property
    def timing(self) -> Timing:
        """The first measurement of it, which others are scaled to."""
        with self.run.stage("time width 1") as said:
            timing = self.run.measure("width 1", {"whole": self.subject})["whole"]
            said.append(show(timing.median_ms, "ms"))
        return timing

    def _exported(self, width: float, picture: Picture, path: Path) -> Subject:
        network, example = unequal(self.network(width)), self.example(picture)
        file = export_onnx(network, *example, path, quick="size" not in self.decided)
        return Subject(file, network, example)

    @staticmethod
    def example(picture: Picture) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return an input of two pictures."""
        return (torch.randn(2, *picture, generator=torch_stream(0, "example")),), {}

    def network(self, width: float) -> nn.Module:
        """Return a member with new weights, the same each time."""
        return zoo.build(self.family.member(width), seed=self.run.seed).eval()

    def price(self, width: float, picture: Picture) -> dict[str, float]:
        """Return what a member is predicted to cost: what is arithmetic, and what the target tells.

        Raises: TraceError for pictures of a size that the family does not take.
        """
        draft = self._drafted(width, picture)
        latency = {"latency": self.table(draft)} if "latency" in self.decided else {}
        return counted(draft) | estimated(draft, self.run.target) | latency

    def _drafted(self, width: float, picture: Picture) -> Draft:
        try:
            return drafted(self.network(width), self.example(picture))
        except TraceError as error:
            raise TraceError(f"{self.family.spec} does not take pictures of {_shown(picture)}: {error}") from None

    @cached_property
    def table(self) -> LayerTable:
        """The times of layers, held against the member of width 1."""
        run, before = self.run, on_file(self.run)
        table = LayerTable(lambda shape: timed(run, shape, run.batch))
        table.step = run.target.step or learn_step(table)
        table.overhead = 0.0 if before is None else before.overhead
        table.calibrate(self._drafted(1.0, self.picture).layers, self.timing)
        return table

    def measure(self, width: float, picture: Picture, bounds: Sequence[Bound]) -> dict[str, float]:
        """Export a member and return what only the file decides; latency is taken beside that of width 1, in turns."""
        limits, found = {b.cost: b.limit for b in bounds}, dict[str, float]()
        with tempfile.TemporaryDirectory(dir=self.run.scratch) as folder:
            member = self._exported(width, picture, Path(folder) / "member.onnx")
            if "size" in self.decided:
                found["size"] = float(file_bytes(member.name))
            if "latency" in self.decided:
                first, files = self.timing.median_ms, {"whole": self.subject, "member": member}
                timings = self.run.measure(
                    f"width {width:g} on {_shown(picture)}", files, SAFE * limits["latency"] / first
                )
                found["latency"] = ratio(timings["member"], timings["whole"]).median * first
        return found


def unequal(network: nn.Module) -> nn.Module:
    """Give norms and biases values that differ, in place, as training does, and return the network.

    The exporter writes equal constants once, so that the file of new weights, whose biases are all 0, is too small.
    """
    generator = torch_stream(0, "unequal")
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator), alpha=0.1)
    return network


class Search:
    """The search along the widths of one picture size, narrowest first."""

    def __init__(self, yard: Yard, bounds: Sequence[Bound], places: Sequence[tuple[float, Picture]]) -> None:
        self.yard, self.bounds, self.places = yard, bounds, places
        self.decided = yard.decided
        self._priced: dict[int, dict[str, float]] = {}
        self._measured: dict[int, dict[str, float]] = {}
        self._factors = dict.fromkeys(self.decided, 1.0)

    def best(self) -> Member | None:
        """Return the widest member that keeps the bounds; None where none does."""
        low, high = -1, len(self.places)
        for _ in range(ROUNDS if self.decided else 1):
            at = self._guess(low, high)
            if not self.decided:
                return None if at is None else self.member(at)
            if at is None and low + 1 < high and self._keeps(self._costs(low + 1), but=self.decided):
                at = low + 1  # only its file tells that even this one is too much
            if at is None:
                break
            if self._measure(at):
                low = at
            else:
                high = at
        return self.member(low) if low >= 0 else None

    def member(self, at: int) -> Member:
        """Return what is known of a member."""
        (width, picture), costs = self.places[at], self._costs(at)
        measured = self._measured.get(at, {})
        meets: bool | None = self._keeps(costs | measured)
        if self.decided and not measured:
            meets = None if self._predicted_to_keep(at) else False
        return Member(self.yard.family.member(width), width, picture, costs, measured, meets)

    def tried(self) -> list[Member]:
        """Return the members that were priced."""
        return [self.member(at) for at in sorted(self._priced)]

    def _guess(self, low: int, high: int) -> int | None:
        """Return the widest member between two that is predicted to keep the bounds."""
        first, last = low, high
        while last - first > 1:
            middle = (first + last) // 2
            first, last = (middle, last) if self._predicted_to_keep(middle) else (first, middle)
        above = [at for at in range(last, min(last + ABOVE, high)) if self._predicted_to_keep(at)]
        found = max([first, *above])
        return found if found > low else None

    def _predicted_to_keep(self, at: int) -> bool:
        costs = self._costs(at)
        return self._keeps(costs | {name: costs[name] * factor for name, factor in self._factors.items()})

    def _keeps(self, costs: Mapping[str, float], but: Sequence[str] = ()) -> bool:
        def most(bound: Bound) -> float:
            return bound.limit * SAFE if bound.cost == "latency" and bound.cost in self.decided else bound.limit

        return all(Bound(b.cost, most(b), b.asked).met(costs[b.cost]) for b in self.bounds if b.cost not in but)

    def _costs(self, at: int) -> dict[str, float]:
        if at not in self._priced:
            self._priced[at] = self.yard.price(*self.places[at])
        return self._priced[at]

    def _measure(self, at: int) -> bool:
        """Measure a member, let that correct predictions, and tell whether it keeps the bounds."""
        measured = self._measured[at] = self.yard.measure(*self.places[at], self.bounds)
        costs = self._costs(at)
        self._factors = {name: value / costs[name] for name, value in measured.items()}
        keeps = self._keeps(costs | measured)
        width, picture = self.places[at]
        told = ", ".join(f"{name} {show(value, units()[name])}" for name, value in measured.items())
        console.say(f"width {width:g} on {_shown(picture)}: {told}, {'meets' if keeps else 'misses'} the budget")
        return keeps


def _rounded_down(limit: float) -> float:
    """Return a bound of six digits, so that who reads it sees what was asked."""
    near = float(f"{limit:.6g}")
    return near if near <= limit else float(f"{limit * (1 - 5e-7):.6g}")


def _shown(picture: Picture) -> str:
    return "x".join(map(str, picture))


def _where(bounds: Sequence[Bound], run: Run) -> str:
    """Say what decided."""
    parts = []
    costs = [b.cost for b in bounds]
    if "latency" in costs and run.target.runtime:
        runtime, precision = run.runtime
        parts.append(f"latency is measured on {runtime} {precision}, {run.threads} thread{'s' * (run.threads > 1)}, "
                     f"batch {run.batch}")  # fmt: skip
    elif any(cost in run.target.tells for cost in costs):
        parts.append(f"costs are told by the model of {run.target.name}")
    if "size" in costs:
        parts.append("size is the exported file's")
    return "; ".join(parts) or "costs are arithmetic"
