"""What each site of a cut loses and what it saves: by the criterion's scores, and by trials that cut it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.allocators.sensitivity import curve, losing
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.core.search import Trial
from penjing.core.sites import Site
from penjing.core.units import Floats
from penjing.graph.draft import Draft
from penjing.steps.choose import Chooser
from penjing.steps.price import units


def sensitivity(plan: Plan, chooser: Chooser, at: str) -> dict[str, Any]:
    """Return what every site loses and saves under the plan of the step named ``at``, as plain data.

    ``score`` is what all units of a site are worth to the criterion, ``lost`` what goes of it. ``saves`` is the share
    of the network's ``cost`` that comes back if this site alone stays whole; the cost is the one whose bound is
    tightest, and MACs where nothing is bounded. ``measured`` are the counts at which a search tried the site alone,
    each with what was lost of ``minimise`` above the ``whole`` network, and ``expected`` what the curve through them
    tells of the count that was chosen; both are there only where a search did so. ``said`` is what the allocator
    tells of its choice.
    """
    cost, whole, now = _tightest(plan, chooser)
    base, alone = apart(chooser.driver.trials, chooser.minimise)
    kept = {entry.site: entry.kept for entry in plan}
    sites = []
    for site in chooser.sites:
        scores = chooser.scores[site.name]
        stays = scores[kept[site.name]] if site.name in kept else scores
        # The name of a menu lists its options, which are told apart.
        name = f"{site.name.rpartition('/')[0]}/option" if site.kind == "options" else site.name
        facts = {"site": name, "kind": site.rewrite, "size": site.size, "kept": len(stays)}
        facts |= {"score": float(scores.sum()), "lost": float(scores.sum() - stays.sum()), "saves": 0.0}
        if site.name in kept and whole:
            without = Plan(tuple(entry for entry in plan if entry.site != site.name))
            facts["saves"] = (_price(without, chooser)[cost] - now) / whole
        sites.append(facts | _measured(site, scores, len(stays), alone.get(site.name, {})))
    found = {"step": at, "cost": cost, "said": chooser.driver.said, "sites": sites}
    if base is None or not alone:
        return found
    return found | {"minimise": chooser.minimise, "unit": units().get(chooser.minimise, ""), "whole": base}


def apart(trials: Sequence[Trial], minimise: str) -> tuple[float | None, dict[str, dict[int, float]]]:
    """Return what the whole network was measured to have, and by site what counts of it alone lose above that.

    Nothing can be said of a loss where the whole network was not tried.
    """
    base = next((trial[minimise] for trial in trials if not trial.plan.entries), None)
    found: dict[str, dict[int, float]] = {}
    for trial in trials if base is not None else ():
        if len(trial.plan) == 1:
            (entry,) = trial.plan
            found.setdefault(entry.site, {}).setdefault(len(entry.kept), trial[minimise] - (base or 0.0))
    return base, found


def _measured(site: Site, scores: Floats, count: int, alone: Mapping[int, float]) -> dict[str, Any]:
    if not alone:
        return {}
    counts = sorted(alone)
    expected = curve(losing(scores, site), counts, [alone[n] for n in counts])[count]
    return {"measured": [{"kept": n, "loss": alone[n]} for n in counts], "expected": float(expected)}


def _tightest(plan: Plan, chooser: Chooser) -> tuple[str, float, float]:
    """Return the cost that decides, of the whole network and under the plan."""
    before, now = _price(Plan(), chooser), _price(plan, chooser)
    limits = {bound.cost: bound.limit for bound in chooser.pricer.bounds}
    cost = max(now, key=lambda name: now[name] / limits[name] if limits.get(name) else 0.0)
    return cost, before[cost], now[cost]


def _price(plan: Plan, chooser: Chooser) -> Mapping[str, float]:
    """Return the costs that a plan is chosen by; its MACs where nothing is bounded."""
    found = chooser.pricer(plan)
    if found:
        return found
    return {"macs": float(build("cost", "macs")(Draft(chooser.graph, plan, chooser.state.copy_model)))}
