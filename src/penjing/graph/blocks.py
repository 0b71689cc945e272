"""Residual blocks that may be left out whole: which they are, which a plan leaves out, and how that is done.

``residual`` finds them on the program. Leaving one out puts the identity where the user's module was; the proof is the
program with the block's branches added as zero, which says nothing about what else the user's code does with it.
"""

# A protocol is asked for, none is made.
# mypy: disable-error-code="type-abstract"

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from torch import nn

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.plan import Plan
from penjing.core.protocols import Removing
from penjing.core.sites import Note, Site
from penjing.graph.changes import changes
from penjing.graph.graph import Block, Graph
from penjing.graph.program import shell
from penjing.graph.proof import STEADY, Certificate, prove, sifted
from penjing.graph.residual import residual_blocks


def with_blocks(model: nn.Module, graph: Graph, *, proof: bool = True) -> Graph:
    """Return the graph with the blocks of the model that may be left out, the innermost where they are nested.

    With ``proof``, those that cannot be left out of the user's own module are noted instead.
    """
    found = {block.name: block for block in residual_blocks(model, graph)}
    graph = replace(graph, blocks=found, held=_held(model, found))
    if not proof or not found:
        return graph
    failures = sifted([list(found)], lambda names: _stays_true(model, graph, names))
    good = {name: block for name, block in found.items() if name not in failures}
    notes = [
        Note(
            found[name].module,
            1,
            f"could not be left out: the network without it {one.verdict}",
            "".join(one.lines[-1:]),
        )
        for name, one in failures.items()
        if one.name != STEADY
    ]
    return replace(graph, blocks=good, block_notes=tuple(notes), held=_held(model, good))


def removed(graph: Graph, plan: Plan) -> frozenset[str]:
    """Return the names of the blocks that a plan takes out."""
    names: set[str] = set()
    for change, kept in changes(plan, Removing):
        names.update(change.removes(graph, kept))
    return frozenset(names)


def lies_in(graph: Graph, site: Site, without: Collection[str]) -> bool:
    """Tell whether all tensors that a site lies in are lost with these blocks."""
    return bool(site.slots) and all(
        slot.tensor in graph.held and graph.held[slot.tensor].issubset(without) for slot in site.slots
    )


def lost(graph: Graph, without: Collection[str]) -> frozenset[str]:
    """Return the parameters and buffers that only these blocks hold."""
    return frozenset(name for name, blocks in graph.held.items() if blocks.issubset(without))


def take_out(model: nn.Module, names: Iterable[str]) -> None:
    """Put the identity, in place, wherever the model holds these modules.

    Raises: PlanError for a name that the model has not.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    wanted = set()
    for name in names:
        if not name or name not in modules:
            raise PlanError(f"The model has no module {name!r} to take out.{did_you_mean(name, modules)}")
        wanted.add(id(modules[name]))
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if id(child) in wanted:
                parent._modules[key] = nn.Identity().train(parent.training)


def _stays_true(model: nn.Module, graph: Graph, names: Collection[str]) -> Certificate:
    """Take blocks out of a copy and prove it."""
    smaller = shell(model)
    take_out(smaller, [graph.blocks[name].module for name in names])
    return prove(graph, model, smaller, {}, names)


def _held(model: nn.Module, blocks: Mapping[str, Block]) -> dict[str, frozenset[str]]:
    """Name the blocks of every tensor that has no name outside of blocks."""
    ids = {id(model.get_submodule(block.module)): name for name, block in blocks.items()}
    home = {path: ids[id(m)] for path, m in model.named_modules(remove_duplicate=False) if id(m) in ids}
    first: dict[int, str] = {}
    holders: dict[str, set[str | None]] = {}
    everything = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    for name, tensor in everything if blocks else ():
        parts = name.split(".")
        prefixes = (".".join(parts[:n]) for n in range(1, len(parts)))
        own = next((home[prefix] for prefix in prefixes if prefix in home), None)
        holders.setdefault(first.setdefault(id(tensor), name), set()).add(own)
    return {name: frozenset(n for n in of if n is not None) for name, of in holders.items() if None not in of}
