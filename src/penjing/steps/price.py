"""Prices: what a plan should cost, what the cut network does cost, and how the one is corrected by the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from penjing.core.errors import BudgetError
from penjing.core.layers import Layer
from penjing.core.plan import Plan
from penjing.core.protocols import Cost, Factoring, Target, Targeted
from penjing.core.registry import build, entries
from penjing.core.search import Bound
from penjing.costs.fit import StaircaseModel
from penjing.costs.hardware import untold
from penjing.costs.measured import measured
from penjing.costs.probe import Shape, time_shape
from penjing.costs.staircase import learn_step
from penjing.costs.table import LayerTable
from penjing.costs.units import Asked, parse_budget, resolve, show
from penjing.exporting.int8 import quantize, roughly
from penjing.exporting.measure import ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.exporting.session import file_bytes
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.graph.trace import trace
from penjing.steps.heaviest import heaviest
from penjing.steps.original import original_of
from penjing.steps.state import Run, State
from penjing.targets.runtime import Runtime

SEEN = 16
"""Pictures of a batch that a file is quantized on which is measured and not used."""

ARITHMETIC_STEP = 4
"""Widths that are no multiple of four leave the fast path of common CPU runtimes and are slower than uncut ones."""


def asked(budget: Any, target: Target | None = None) -> dict[str, Asked]:
    """Read a budget; none, or an empty mapping, bounds nothing. With a target, what it does not tell is refused.

    Raises: BudgetError naming the key or value, or a cost that no plan can be priced by.
    """
    if budget is None or budget == {}:
        return {}
    if not isinstance(budget, str | Mapping):
        raise BudgetError(f"The budget is {budget!r}; write for example latency=0.6x or {{'macs': '0.5x'}}.")
    wanted = parse_budget(budget)
    for name in wanted:
        if target is not None and issubclass(entries("cost")[name], Targeted) and name not in target.tells:
            raise BudgetError(untold(name, target))
        if not is_priced(name):
            raise BudgetError(
                f"{name} builds the network, which is too slow to price every plan by; bound a cost that is arithmetic "
                f"(cheap = True), or let trials minimise it: prune: {{measure: {name}}}."
            )
    return wanted


def is_priced(name: str) -> bool:
    """Tell whether plans can be priced by a cost: by arithmetic, by a target, by a table, or by bisection."""
    cost = entries("cost")[name]
    return name == "error" or getattr(cost, "cheap", False) or (isinstance(cost, type) and issubclass(cost, Targeted))


class Pricer:
    """Tells what plans cost, for one network under one budget.

    ``bounds`` are the budget's bounds that a plan decides (all but error), in the costs' own units. What the target
    tells, its model predicts; where a runtime measures latency, that is added up from a table of measured layers, and
    whatever a measurement of the exported network teaches corrects later predictions.
    """

    def __init__(self, graph: Graph, state: State, run: Run, budget: Any = None) -> None:
        self.graph, self.state, self.run, self.target = graph, state, run, run.target
        self.original = original_of(state, run)
        self.measured = ("latency", "size") if self.target.runtime else ("size",)
        self.wanted = asked(run.budget if budget is None else budget, self.target)
        self.bounds = [resolve(a, self.original.cost(name)) for name, a in self.wanted.items() if name != "error"]
        self._refuse_idle()
        self.factors = dict.fromkeys(self.measured, 1.0)
        self.table = LayerTable(lambda shape: timed(run, shape, run.batch))
        if self.is_timed:
            self.table.step = self.target.step or learn_step(self.table)
            before = on_file(run)
            self.table.overhead = 0.0 if before is None else before.overhead
            self.table.calibrate(self._original_layers(), self.original.timing)
        self._costs = {b.cost: self._cost(b.cost) for b in self.bounds}
        if run.int8 is not None:
            # Layers are timed in floats; what the whole network gains by whole numbers is measured.
            self.correct(Plan(), self.measure(state.model))

    def _cost(self, name: str) -> Cost:
        """Return what predicts a cost of a draft."""
        if name == "latency" and self.is_timed:
            return self.table
        cost = build("cost", name)
        priced: Cost = cost.upon(self.target) if isinstance(cost, Targeted) else cost
        return priced

    @property
    def is_timed(self) -> bool:
        """Whether latency is bounded and a runtime measures it."""
        return bool(self.target.runtime) and self.wants("latency")

    def _original_layers(self) -> Sequence[Layer]:
        """Return the layers whose latency was measured, which after an earlier cut are not those of the graph."""
        if not self.state.plans and not self.graph.ranks:
            return self.graph.layers
        return trace(self.state.original, *self.state.example, proof=False).layers

    def _refuse_idle(self) -> None:
        """Refuse a budget of which the original keeps every bound.

        Raises: BudgetError naming the costs.
        """
        costs = {b.cost: self.original.cost(b.cost) for b in self.bounds}
        if self.bounds and "error" not in self.wanted and all(b.met(costs[b.cost]) for b in self.bounds):
            kept = (f"{b.cost}={b.asked} with {show(costs[b.cost], units()[b.cost])}" for b in self.bounds)
            raise BudgetError(f"The budget asks for nothing: the original meets {', '.join(kept)}.")

    def wants(self, cost: str) -> bool:
        """Tell whether the budget bounds this cost."""
        return any(bound.cost == cost for bound in self.bounds)

    def bound_only(self, bound: Bound) -> None:
        """Let this be the only bound."""
        self.bounds = [bound]
        self._costs = {bound.cost: self._cost(bound.cost)}

    def approach(self, share: float) -> None:
        """Let the bounds be where this share of the way from the network as it is now to the budget ends."""
        now = self(Plan())
        self.bounds = [
            # A bound that is kept already stays as it is.
            replace(
                b,
                limit=max(b.limit, now[b.cost] + share * (b.limit - now[b.cost])),
                asked=f"{share:.3g} of the way to {b.asked}",
            )
            for b in self.bounds
        ]

    def is_measured(self, cost: str) -> bool:
        """Tell whether only the exported file decides about this cost."""
        return cost in self.measured

    def __call__(self, plan: Plan) -> dict[str, float]:
        """Return the predicted costs that the budget bounds."""
        return self.of(self._draft(plan))

    def of(self, draft: Draft, otherwise: Sequence[str] = ()) -> dict[str, float]:
        """Return the predicted costs of a draft that the budget bounds; where it bounds none, these others."""
        costs = self._costs or {name: self._cost(name) for name in otherwise}
        return {name: float(cost(draft)) * self.factors.get(name, 1.0) for name, cost in costs.items()}

    def _draft(self, plan: Plan) -> Draft:
        return Draft(self.graph, plan, self.state.copy_model)

    def costs(self, plan: Plan) -> dict[str, float]:
        """Return the predicted costs, as plain numbers for the book."""
        return {name: round(value, 6) for name, value in self(plan).items()}

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Export a cut network and return what the budget bounds and only the file decides.

        Latency is taken beside the original's in one interleaved run, and scaled to the original's first measurement,
        so that a relative bound means the ratio of the two. A file that will be quantized is so, on few pictures: which
        ranges activations have changes neither its size nor its speed.
        """
        if not any(self.wants(cost) for cost in self.measured):
            return {}
        # The quick exporter gives folded layers other names than those that int8 may keep.
        quick = not self.wants("size") and not (self.run.int8 and self.run.int8.keep)
        file = export_onnx(model, *self.state.example, self.run.scratch / "candidate.onnx", quick=quick)
        if self.run.int8 is not None:
            quantize(file, file, [self.state.data_for("int8").example(SEEN)], roughly(self.run.int8))
        found: dict[str, float] = {}
        if self.wants("size"):
            found["size"] = float(file_bytes(file))
        if self.is_timed:
            files = {"original": self.original.subject, "candidate": Subject(file, model, self.state.example)}
            whole = self.original.cost("latency")
            limit = next(b.limit for b in self.bounds if b.cost == "latency") / whole
            timings = self.run.measure(f"a candidate of {self.run.at}", files, limit)
            found["latency"] = ratio(timings["candidate"], timings["original"]).median * whole
        return found

    def correct(self, plan: Plan, measured: Mapping[str, float]) -> None:
        """Let later predictions agree with what was measured for this plan."""
        predicted = self(plan)
        for name, value in measured.items():
            self.factors[name] *= value / predicted[name]

    def shown(self, name: str, value: float) -> str:
        """Write a cost with its unit and as a share of the original's."""
        return f"{show(value, units()[name])} ({value / self.original.cost(name):.3g}x)"

    def held_back(self, plan: Plan, name: str) -> str:
        """Say which layer most of a plan's cost comes from; nothing where no layer does."""
        found = heaviest(name, self._draft(plan), self.target, self.table)
        return "" if found is None else f"{found[0]} alone takes {show(found[1], units()[name])} of it"

    def told(self, plan: Plan) -> str:
        """Describe a plan's predicted costs beside the bounds, for people."""
        costs = self(plan)
        return ", ".join(
            f"{b.cost} {show(costs[b.cost], units()[b.cost])} (at most {show(b.limit, units()[b.cost])})"
            for b in self.bounds
        )


class Predicting(Pricer):
    """A pricer that exports nothing of the cut network: its predictions decide."""

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Return nothing measured."""
        return {}


def on_file(run: Run) -> StaircaseModel | None:
    """Return the times that the target's file holds, corrected by the runs that it knows; None where it has none."""
    if "times" not in run.made:
        run.made["times"] = measured(run.target) if isinstance(run.target, Runtime) else None
    found: StaircaseModel | None = run.made["times"]
    return found


def timed(run: Run, shape: Shape, batch: int) -> float:
    """Return the time of a layer's shape: what the target's file says, or else what it takes here, timed once a run.

    Where the runtime reads no files it is timed on ONNX Runtime: a first guess, which measurements correct.
    """
    runtime, precision = run.runtime
    before = on_file(run)
    if before is not None and batch == run.batch and before.knows(shape):
        return before.predict(shape)
    if not build("runtime", runtime).reads_files:
        runtime, precision = "onnxruntime", "fp32"
    name = f"time of {shape}" if batch == run.batch else f"time of {shape} in batches of {batch}"
    ms: float = run.journal.once(name, lambda: time_shape(shape, run.threads, batch, runtime, precision))
    return ms


def units() -> dict[str, str]:
    """Return the unit of every cost by name."""
    return {name: str(cost.unit) for name, cost in entries("cost").items()}


def step_of(asked_step: int | None, rewrites: Sequence[str], pricer: Pricer) -> int:
    """Return the multiple that kept counts are rounded to.

    Single weights and blocks need none; channels and ranks keep to 4 under an arithmetic budget, to what a model of the
    hardware states, and to what measured layers teach where latency is measured.
    """
    if asked_step is not None:
        return asked_step
    if not any(name == "channels" or isinstance(build("rewrite", name), Factoring) for name in rewrites):
        return 1
    return pricer.table.step if pricer.is_timed else pricer.target.step or ARITHMETIC_STEP
