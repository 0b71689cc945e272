"""What a run would do: the first cut's plan with its proof and its predicted costs, and the steps that would follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from penjing.core.console import table
from penjing.core.errors import PlanError
from penjing.core.plain import told, written
from penjing.core.plan import Plan
from penjing.costs.units import resolve, show
from penjing.graph.trace import trace
from penjing.report import light
from penjing.report.few_bits import SITE, changed, summary
from penjing.report.table import plain
from penjing.steps.factorize import factorize
from penjing.steps.few_bits import FewBits, few_bits
from penjing.steps.lightened import Lightened
from penjing.steps.merge import merge
from penjing.steps.original import counted, drafted, estimated
from penjing.steps.price import Predicting, Pricer, units
from penjing.steps.prune import prune
from penjing.steps.quantize import quantize
from penjing.steps.settle import Cut
from penjing.steps.stands_for import as_cut
from penjing.steps.state import Run, State

NOTED = ("sites", "certificates", "lowest", "pinned", "rounds", "searches", "lightened")
"""What a cut writes down that a preview tells."""


@dataclass(frozen=True, eq=False)
class Preview:
    """What a run would do: ``plan`` is what its first cut would keep, ``facts`` tell all there is to tell.

    ``facts`` are plain JSON data; printed, a preview is the same for people. ``before`` and ``then`` are the steps
    around the cut.
    """

    plan: Plan
    facts: Mapping[str, Any]
    before: Sequence[Any]
    then: Sequence[Any]

    def __str__(self) -> str:
        """Return the facts as text."""
        return "\n\n".join([*_tables(self.facts), "\n".join(self._lines())])

    def _lines(self) -> Iterator[str]:
        for proof in self.facts["certificates"]:
            difference = f"difference {proof['difference']:.1e} (at most {proof['tolerance']:.0e})"
            yield f"Proof {'holds' if proof['ok'] else 'fails'}: {proof['name']}, {difference}."
        if few := self.facts["few bits"]:
            yield plain(summary([FewBits(**one) for one in few]))
        if pinned := self.facts["pinned"]:
            count = sum(int(note["units"]) for note in pinned)
            yield f"Pinned: {count} units in {len(pinned)} places; penjing inspect says why."
        yield from (f"Merge: {merged}." for merged in self.facts["merged"])
        if self.before:
            yield f"Before the cut comes {', '.join(map(written, self.before))}; this plan is for the network as it is."
        yield f"Then: {', '.join(map(written, self.then)) or 'nothing'}."


def previewed(steps: Sequence[Any], state: State, run: Run) -> Preview:
    """Let the first cut among the steps choose, on the network as it is, whose chains are merged where steps say so.

    Where no step cuts or quantizes, what is merged is all there is to see.

    Raises: PlanError when no step prunes, quantizes or merges; Infeasible when the budget cannot be met.
    """
    steps = [as_cut(step) for step in steps]
    cuts = [i for i, step in enumerate(steps) if isinstance(step, prune | factorize | quantize)]
    places = cuts or [i for i, step in enumerate(steps) if isinstance(step, merge)]
    if not places:
        raise PlanError("There is no plan to preview: no step cuts before anything is trained, as prune does.")
    at = places[0]
    before, then = steps[:at], steps[at + 1 :]
    try:
        for step in before:
            if isinstance(step, merge):
                state = step(state, run)
        step = steps[at]
        if isinstance(step, quantize):
            step = step.as_prune() if step.searched else replace(step, refresh=0)  # a preview has no accuracy
        if isinstance(step, factorize | merge | quantize):
            made = step(state, run)
            pricer = Predicting(trace(made.model, *state.example, proof=False), state, run)
            cut = Cut(made.plans[-1] if made.plans else Plan(), made.model, None)
            rows = _costs(cut, pricer, state, Plan())
        else:
            cut, pricer = step.decide(state, run, Predicting)
            rows = _costs(cut, pricer, state, cut.plan)
    finally:
        run.close()
    before = [step for step in before if not isinstance(step, merge)]
    facts = {
        "name": f"{type(state.original).__name__} on {state.data.name if state.data else 'no data'}",
        "before": [told(step) for step in before],
        "step": told(steps[at]),
        "then": [told(step) for step in then],
        "costs": rows,
        "few bits": few_bits(cut.model, drafted(cut.model, state.example).layers, run.target),
        "merged": [stage["detail"] for stage in run.noted("stages") if stage["name"] == "merge"],
    }
    noted = {name: run.noted(name) for name in NOTED}
    return Preview(cut.plan, facts | noted, before, then)


def _costs(cut: Cut, pricer: Pricer, state: State, plan: Plan) -> list[dict[str, Any]]:
    """Return a row a cost, those asked first: the original's, what is asked, and what is predicted, where it is.

    ``plan`` is what the pricer has yet to hear of the cut.
    """
    draft = drafted(cut.model, state.example)
    predicted = counted(draft) | estimated(draft, pricer.target) | pricer(plan)
    original = pricer.original.counts | {b.cost: pricer.original.cost(b.cost) for b in pricer.bounds}
    rows = []
    for name in dict.fromkeys([*pricer.wanted, *predicted]):
        one = pricer.wanted.get(name)
        known = one is not None and (name in original or one.kind == "absolute")
        rows.append(
            {
                "cost": name,
                "unit": units()[name],
                "original": original.get(name),
                "asked": one and one.text,
                "limit": resolve(one, original.get(name, 0.0)).limit if one is not None and known else None,
                "predicted": predicted.get(name),
            }
        )
    return rows


def _tables(facts: Mapping[str, Any]) -> list[str]:
    sites = facts["sites"]
    widths = [_site_cells(site) for site in sites]
    cut = sum(site["after"] < site["before"] for site in sites)
    return [
        f"Preview of {facts['name']}: nothing is trained or exported, and the test set is not read.",
        table("", ["cost", "original", "asked", "predicted"], [_cost_cells(row) for row in facts["costs"]]),
        *(
            [table(f"{cut} of {len(sites)} sites are cut.", ["site", "units", "kept", "share"], widths)]
            if sites
            else []
        ),
        *([_light(lightened)] if (lightened := [Lightened(**one) for one in facts["lightened"]]) else []),
    ]


def _light(lightened: Sequence[Lightened]) -> str:
    rows = [[line.layer, line.became, line.macs, line.missed] for line in light.lines(lightened)]
    text = table(light.summary(lightened), ["layer", "becomes", "MACs", "response missed"], rows)
    return plain(text)


def _site_cells(site: Mapping[str, Any]) -> list[str]:
    before, after = site["before"], site["after"]
    kept = plain(changed(before, after)) if site["site"].endswith(SITE) else str(after)
    return [site["site"], str(before), kept, f"{after / before:.0%}"]


def _cost_cells(row: Mapping[str, Any]) -> list[str]:
    def cell(value: float | None) -> str:
        return "" if value is None else show(value, row["unit"])

    asked, predicted = row["asked"] or "", cell(row["predicted"]) or "known after the work"
    if asked and row["limit"] is not None and cell(row["limit"]) != asked:
        asked = f"{asked} = {cell(row['limit'])}"
    if row["predicted"] is not None and row["original"]:
        predicted += f" ({row['predicted'] / row['original']:.3g}x)"
    return [row["cost"], cell(row["original"]), asked, predicted]
