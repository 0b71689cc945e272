"""Carry out a plan whose decisions belong to several rewrites."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from penjing.core.protocols import Factoring, Removing, Rewrite, Zeroing
from penjing.core.types import Plan
from penjing.graph.graph import Graph


def perform(model: nn.Module, graph: Graph, plan: Plan, changes: Mapping[str, Rewrite]) -> None:
    """Change the traced ``model``, in place, as the plan says; ``changes`` are its rewrites by name.

    Zeros come first, since they are counted in whole tensors; then widths; then chains, which factor what is left of a
    layer; whole blocks go last, since a cut needs the tensors that were traced.
    """
    for name in sorted(plan.rewrites(), key=lambda name: _turn(changes[name])):
        changes[name].apply(model, graph, plan.of_rewrite(name))


def zeros_of(plan: Plan, changes: Mapping[str, Rewrite]) -> Plan:
    """Return what a plan sets to zero, without what it removes."""
    return Plan(tuple(entry for entry in plan if isinstance(changes[entry.rewrite], Zeroing)))


def without_chains(plan: Plan, changes: Mapping[str, Rewrite]) -> Plan:
    """Return a plan without the chains that it puts in layers' places."""
    return Plan(tuple(entry for entry in plan if not isinstance(changes[entry.rewrite], Factoring)))


def provable(changes: Mapping[str, Rewrite]) -> bool:
    """Tell whether these rewrites remove anything, and nothing but what a proof knows: channels, blocks and ranks."""
    shrinking = {name: change for name, change in changes.items() if not isinstance(change, Zeroing)}
    return bool(shrinking) and all(n == "channels" or isinstance(c, Removing | Factoring) for n, c in shrinking.items())


def _turn(change: Rewrite) -> int:
    order = ((Zeroing, 0), (Factoring, 2), (Removing, 3))
    return next((turn for kind, turn in order if isinstance(change, kind)), 1)
