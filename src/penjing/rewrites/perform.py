"""Carry out a plan whose decisions belong to several rewrites."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from penjing.core.plan import Plan
from penjing.core.protocols import Cropping, Factoring, Quantizing, Removing, Rewrite, Zeroing
from penjing.graph.graph import Graph
from penjing.graph.kernels import blank


def perform(model: nn.Module, graph: Graph, plan: Plan, changes: Mapping[str, Rewrite]) -> None:
    """Change the traced ``model``, in place, as the plan says; ``changes`` are its rewrites by name.

    Zeros come first, since they are counted in whole tensors; then widths and kernels; then chains, which factor what
    is left of a layer; then whole blocks, since a cut needs the tensors that were traced; roundings last, since they
    are of what is left.
    """
    for name in sorted(plan.rewrites(), key=lambda name: _turn(changes[name])):
        changes[name].apply(model, graph, plan.of_rewrite(name))


def blanked(model: nn.Module, graph: Graph, plan: Plan, changes: Mapping[str, Rewrite]) -> nn.Module:
    """Return what a plan's cut is proved against: the model with zeros where the plan sets them or crops kernels."""
    zeros = Plan(tuple(entry for entry in plan if isinstance(changes[entry.rewrite], Zeroing)))
    margins: dict[str, tuple[int, ...]] = {}
    for name in plan.rewrites():
        change = changes[name]
        if isinstance(change, Cropping):
            margins |= change.crops(graph, plan.of_rewrite(name))
    if not (len(zeros) or margins):
        return model
    reference = copy.deepcopy(model)
    perform(reference, graph, zeros, changes)
    with torch.no_grad():
        for name, margin in margins.items():
            blank(reference.get_parameter(name), margin)
    return reference


def without_roundings(plan: Plan, changes: Mapping[str, Rewrite]) -> Plan:
    """Return a plan without the bits that it takes from weights."""
    return Plan(tuple(entry for entry in plan if not isinstance(changes[entry.rewrite], Quantizing)))


def without_chains(plan: Plan, changes: Mapping[str, Rewrite]) -> Plan:
    """Return a plan without what only comes near the network: roundings, and the chains in layers' places."""
    exact = without_roundings(plan, changes)
    return Plan(tuple(entry for entry in exact if not isinstance(changes[entry.rewrite], Factoring)))


def provable(changes: Mapping[str, Rewrite]) -> bool:
    """Tell whether these rewrites remove anything, and only what a proof knows: channels, blocks, taps and ranks."""
    shrinking = {name: change for name, change in changes.items() if not isinstance(change, Zeroing | Quantizing)}
    known = (n == "channels" or isinstance(c, Removing | Cropping | Factoring) for n, c in shrinking.items())
    return bool(shrinking) and all(known)


def _turn(change: Rewrite) -> int:
    order = ((Zeroing, 0), (Factoring, 2), (Removing, 3), (Quantizing, 4))
    return next((turn for kind, turn in order if isinstance(change, kind)), 1)
