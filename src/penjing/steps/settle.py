"""Cut, measure the exported file, correct what predicts, and cut again, until the measured bounds hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torch import nn

from penjing.core.errors import Infeasible, PlanError
from penjing.core.plan import Plan
from penjing.core.search import Bound
from penjing.costs.units import show
from penjing.graph.chains import prove_chains
from penjing.graph.draft import Draft
from penjing.graph.folds import fold
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate, worse
from penjing.steps.price import Pricer, units
from penjing.steps.state import Run

WASTE = 0.05
"""A plan whose measured cost is below its bound by more than this share is corrected and tried again."""

MARGIN = 0.97
"""A measured bound is aimed at with this factor, so that the noise of the last measurement does not break it."""

SAFE = 0.98
"""A plan measured above this share of its latency is taken only when the rounds find no other: the same file, measured
again, may miss."""


@dataclass(frozen=True, eq=False)
class Cut:
    """A plan, the network it makes, and the proof of the cut; weights set to zero need none.

    ``measured`` are the costs of its exported file, of those that the budget bounds.
    """

    plan: Plan
    model: nn.Module
    certificate: Certificate | None
    measured: Mapping[str, float] = field(default_factory=dict)


def refolded(cut: Cut, graph: Graph) -> Cut:
    """Return a cut with the chains that no longer pay, as its plan was priced, put as one layer each, proved.

    Raises: PlanError when the proof fails.
    """
    paths = Draft(graph, cut.plan, lambda: cut.model).folds
    if not paths:
        return cut
    model = fold(cut.model, paths)
    certificate = prove_chains(graph, cut.model, model)
    if not certificate.ok:
        raise PlanError(f"The layers do not compute what their chains did: {certificate.verdict}.")
    both = certificate if cut.certificate is None else worse(cut.certificate, certificate)
    return replace(cut, model=model, certificate=both)


def aims(pricer: Pricer) -> list[Bound]:
    """Return what plans are to be predicted within, so that what is measured keeps the bounds."""
    return [replace(b, limit=b.limit * MARGIN) if pricer.is_measured(b.cost) else b for b in pricer.bounds]


def settle(pricer: Pricer, run: Run, rounds: int, make: Callable[[Sequence[Bound]], Cut]) -> Cut:
    """Let ``make`` cut within bounds and, where a bound wants it, measure, until what is measured holds without waste.

    A plan that holds but leaves more than ``WASTE`` of every measured bound unused, or less than what is ``SAFE``,
    is taken only when the rounds find no better.

    Raises: Infeasible when nothing within the rounds holds.
    """
    bounds, aim = pricer.bounds, aims(pricer)
    best: dict[str, float] = {}
    holding: tuple[tuple[bool, float], Cut] | None = None
    for round_ in range(1, rounds + 1):
        try:
            cut = make(aim)
        except Infeasible:
            if holding is None:
                raise
            break
        if holding is not None and _same(cut.plan, holding[1].plan):
            break  # there is nothing between it and the bound
        measured = pricer.measure(cut.model)
        if measured:
            told = {"predicted": pricer.costs(cut.plan), "measured": measured}
            run.note("rounds", {"round": round_} | told)
        mine = [b for b in bounds if b.cost in measured]
        if all(b.met(measured[b.cost]) for b in mine):
            used = max((measured[b.cost] / b.limit for b in mine), default=1.0)
            safe = all(measured[b.cost] <= SAFE * b.limit for b in mine if b.cost == "latency")
            rank = (safe, used if safe else -used)
            if holding is None or rank > holding[0]:
                holding = rank, replace(cut, measured=measured)
            if safe and used >= 1 - WASTE:
                break
        best = dict(pricer(cut.plan)) | measured
        pricer.correct(cut.plan, measured)
    if holding is None:
        raise Infeasible(_missed(bounds, best, rounds), best)
    return holding[1]


def _same(a: Plan, b: Plan) -> bool:
    return len(a) == len(b) and all(
        (x.rewrite, x.site) == (y.rewrite, y.site) and np.array_equal(x.kept, y.kept) for x, y in zip(a, b, strict=True)
    )


def _missed(bounds: Sequence[Bound], best: Mapping[str, float], rounds: int) -> str:
    misses = [
        f"{b.cost} {b.asked} is {show(b.limit, units()[b.cost])}, measured {show(best[b.cost], units()[b.cost])}"
        for b in bounds
        if b.cost in best and not b.met(best[b.cost])
    ]
    times = "1 round" if rounds == 1 else f"{rounds} rounds"
    return f"The exported file misses the budget after {times}: {'; '.join(misses)}. Raise the bound."
