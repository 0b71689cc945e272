"""Write down what a cut did to each site, its proof, and how a training went."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

from torch import nn

from penjing.core import console
from penjing.core.plan import Plan
from penjing.core.protocols import Removing, Rewrite
from penjing.core.registry import build
from penjing.factors.chain import error
from penjing.graph.blocks import lies_in, removed
from penjing.graph.graph import Graph
from penjing.graph.proof import Certificate
from penjing.rewrites.factored import Factored
from penjing.rewrites.lighten import lighten
from penjing.steps.state import Run
from penjing.training.loop import History
from penjing.training.options import Options


def file_widths(run: Run, graph: Graph, plan: Plan, rewrites: Collection[str]) -> None:
    """Write down the width of each site before and after; a second cut goes on from the first one's line."""
    rewrites = [name for name in rewrites if name != "lighten"]  # whose options are told apart
    lines = {(line["kind"], line["site"]): line for line in run.noted("sites")}
    for (kind, name), (before, after) in _widths(graph, plan, rewrites).items():
        if (kind, name) in lines:
            lines[kind, name]["after"] = after
        elif kind in rewrites:
            run.note("sites", {"site": name, "kind": kind, "before": before, "after": after})


def file_errors(run: Run, graph: Graph, plan: Plan, whole: nn.Module, made: nn.Module) -> None:
    """Write down, beside the ranks of each layer, how far its chain is from what it stands for in ``whole``."""
    paths = {layer.name: layer.weight.rpartition(".")[0] for layer in graph.layers}
    lines = {(line["kind"], line["site"]): line for line in run.noted("sites")}
    errors: dict[str, float] = {}
    for entry in plan:
        change = build("rewrite", entry.rewrite)
        if not isinstance(change, Factored) or change.drawn or isinstance(change, lighten):
            continue
        name = entry.site.rpartition("/")[0]
        chain = made.get_submodule(paths[name])
        if isinstance(chain, nn.Sequential):
            if name not in errors:
                errors[name] = error(whole.get_submodule(paths[name]), chain, name)
            lines[entry.rewrite, entry.site]["error"] = errors[name]


def file_certificate(run: Run, certificate: Certificate) -> None:
    """Write down a proof."""
    facts = {"name": certificate.name, "difference": certificate.difference, "tolerance": certificate.tolerance}
    run.note("certificates", {**facts, "ok": certificate.ok, "detail": certificate.trouble})


def _widths(graph: Graph, plan: Plan, rewrites: Collection[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return the units of each site before and after, by rewrite and name.

    These are the sites of the plan, all blocks, and all channels, which go to zero with the block they lie in.
    """
    found = {("channels", site.name): (site.size, site.size) for site in graph.sites}
    for name in rewrites:
        change: Rewrite = build("rewrite", name)
        if isinstance(change, Removing):
            found |= {(name, site.name): (site.size, site.size) for site in change.find(graph)}
    found |= {(entry.rewrite, entry.site): (entry.size, len(entry.kept)) for entry in plan}
    gone = removed(graph, plan)
    for site in graph.sites:
        if lies_in(graph, site, gone):
            found["channels", site.name] = (site.size, 0)
    return found


def tell_epoch(row: Mapping[str, float | int | None], run: Run, epochs: int) -> None:
    """Tell of an epoch that is over, of so many."""
    in_run = len(run.noted("training")) + int(row["epoch"] or 0)
    console.emit("epoch", step=run.at, epochs=epochs, in_run=in_run, **row)
    if console.watched():
        accuracy = "" if row["val_accuracy"] is None else f", validation {row['val_accuracy']:.2f} %"
        loss = f"loss {row['loss']:.4f}{accuracy}, {row['seconds']:.0f} s"
        console.say(f"  epoch {row['epoch']} of {epochs}: {loss}")


def file_training(run: Run, history: History, recipe: Options, terms: Sequence[str]) -> None:
    """Write down a training's epochs, how it was done, and that it was stopped by hand, where it was."""
    run.note("training", *history.rows)
    told = {"terms": list(terms), "precision": history.precision, "device": history.device}
    run.note("trained", told | asdict(recipe))
    if history.stopped:
        stopped = f"stopped by hand after {len(history.rows)} of {recipe.epochs} epochs"
        run.note("stopped", stopped)
        what = f"The training was {stopped}."
        run.note("remarks", what)
        console.remark(f"{what} The run goes on with that.")
