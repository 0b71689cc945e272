"""From labels to a Graph: which labels are units, which units form a site, and why the rest must stay."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import fx, nn

from penjing.core.layers import Layer, Value
from penjing.core.sites import Note, Site, Slot
from penjing.core.units import Ints, is_gone
from penjing.graph.graph import Axis, Count, Gather, Graph, Norm, Read
from penjing.graph.labels import Labels, Reason, Tagged
from penjing.graph.program import Program
from penjing.graph.readers import norm_behind
from penjing.graph.rules.table import Findings

SAME_IN_EVAL = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
"""Operators that hand on their input in eval mode."""


@dataclass(frozen=True, eq=False)
class Guess:
    """What the rules assumed at one node, on which line, and the units that rest on it."""

    node: str
    line: str
    units: Ints


@dataclass(frozen=True, eq=False)
class Assembly:
    """A graph, what it rests on, and the nodes that could have tied otherwise what is now all one.

    ``results`` holds the labelled results of each node, ``unit_of`` the unit of each label.
    """

    graph: Graph
    guesses: tuple[Guess, ...]
    alternatives: tuple[str, ...]
    results: Mapping[str, list[Tagged]]
    unit_of: Ints

    def shapes(self, node: str, gone: NDArray[np.bool_]) -> list[tuple[int, ...]]:
        """Return the shapes a node's results should have once units are gone."""
        return [
            tuple(
                size if labels is None else size - int(is_gone(self.unit_of[labels], gone).sum())
                for size, labels in zip(tagged.shape, tagged.dims, strict=True)
            )
            for tagged in self.results.get(node, [])
        ]


def assemble(
    model: nn.Module,
    program: Program,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    labels: Labels,
    findings: Findings,
    records: list[tuple[Any, Tagged]],
    results: Mapping[str, list[Tagged]],
    batch: int,
) -> Assembly:
    """Turn labels into units, sites and notes."""
    labels.part_groups()
    classes = labels.classes()
    number, reasons = labels.reasons(classes)
    written = [(owner, vector) for vector, owner in {id(v): (v, o) for v, o in findings.makers}.values()]
    made, maker = _first_makers([(owner, classes[vector]) for owner, vector in written])
    made = made[number[made] < 0]
    axes = [(Place(*key, labels.roles.get(key, "tied")), classes[vector]) for key, vector in labels.axes.items()]
    axes += [_by_group(tensor, g, classes[vector]) for (tensor, g), vector in labels.grouped.items()]
    groups = _group(made, [c for _, c in axes], len(number))
    lone = np.array([members[0] for members in groups if len(members) == 1], dtype=np.int64)
    groups = [members for members in groups if len(members) > 1]
    unit_of, sites = _units(groups, maker, len(number))
    tables = tuple(Axis(at.tensor, at.axis, at.role, unit_of[c], at.groups) for at, c in axes)
    boundary = np.array([reason.boundary for reason in reasons], dtype=np.bool_)
    inner = (number < 0) | ~boundary[number] if len(boundary) else np.ones(len(number), dtype=np.bool_)
    outputs = tuple((owner, unit_of[classes[vector]]) for owner, vector in written)
    normed = {node.name for node in program.nodes if norm_behind(node) is not None}
    graph = Graph(
        layers=tuple(_layer(facts, classes, unit_of) for facts in findings.layers),
        nodes=tuple(facts["node"] for facts in findings.layers),
        reading_dims=tuple(facts["reading_dim"] for facts in findings.layers),
        writing_dims=tuple(facts["writing_dim"] for facts in findings.layers),
        spans=tuple(
            tuple(None if v is None else unit_of[classes[v]] for v in facts["spans"]) for facts in findings.layers
        ),
        sites=_sites(sites, tables, outputs, len(unit_of)),
        notes=(*_notes(written, classes, number, reasons), *_collapsed(written, classes, lone, labels)),
        written=outputs,
        axes=tuple(axis for axis in tables if (axis.units >= 0).any()),
        reads=tuple(Read(r.node, r.operand, r.dim, unit_of[classes[r.labels]]) for r in findings.reads),
        gathers=tuple(Gather(g.buffer, unit_of[classes[g.source]]) for g in findings.gathers),
        norms=tuple(Norm(module, unit_of[classes[v]], per) for module, (v, per) in findings.norms.items()),
        counts=tuple(
            Count(c.module, c.attribute, c.index, unit_of[classes[c.labels]], c.times) for c in findings.counts
        ),
        values=_values(program, records, classes, unit_of, batch),
        passes=(),
        shapes={name: tuple(p.shape) for name, p in model.named_parameters()},
        buffer_shapes={name: tuple(b.shape) for name, b in model.named_buffers()},
        units=sum(len(ids) for _, ids in sites),
        free=sum(int((units >= 0).sum()) for _, units in outputs),
        total=sum(int(inner[classes[vector]].sum()) for _, vector in written),
        batch=batch,
        program=program,
        example=example,
        normed=frozenset(i for i, facts in enumerate(findings.layers) if facts["node"] in normed),
    )
    guesses = [Guess(a.node, a.line, unit_of[classes[a.labels]]) for a in findings.assumptions]
    return Assembly(
        graph,
        tuple(Guess(g.node, g.line, g.units[g.units >= 0]) for g in guesses if (g.units >= 0).any()),
        tuple(dict.fromkeys(c.node for c in findings.choices if np.isin(classes[c.labels], lone).any())),
        results,
        unit_of[classes],
    )


class Place(NamedTuple):
    """An axis before its units are known."""

    tensor: str
    axis: int
    role: str
    groups: int = 1


def _by_group(tensor: str, groups: int, classes: Ints) -> tuple[Place, Ints]:
    """Return the second axis of a grouped kernel: a plain one where all groups lose the same of it."""
    rows = classes.reshape(groups, -1)
    alike = (rows == rows[:1]).all()
    return (Place(tensor, 1, "in"), rows[0]) if alike else (Place(tensor, 1, "in", groups), classes)


def _first_makers(written: list[tuple[str, Ints]]) -> tuple[Ints, dict[int, str]]:
    """Return the classes that are made, in order of the first layer that makes them, and that layer's name."""
    if not written:
        return np.arange(0), {}
    vectors = [vector for _, vector in written]
    owner = np.repeat(np.arange(len(written)), [len(vector) for vector in vectors])
    made, first = np.unique(np.concatenate(vectors), return_index=True)
    order = np.argsort(first)
    return made[order], {int(c): written[owner[i]][0] for c, i in zip(made, first, strict=True)}


def _group(made: Ints, axes: list[Ints], count: int) -> list[Ints]:
    """Part the classes into groups that lie equally often on the same axes, both in the order given."""
    wanted = np.zeros(count, dtype=np.bool_)
    wanted[made] = True
    group = np.zeros(count, dtype=np.int64)
    unused = 1
    for axis in axes:
        present, times = np.unique(axis[wanted[axis]], return_counts=True)
        if present.size:
            _, fresh = np.unique(group[present] * (times.max() + 1) + times, return_inverse=True)
            group[present] = unused + fresh
            unused += int(fresh.max()) + 1
    _, first, inverse = np.unique(group[made], return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[inverse] if made.size else inverse
    order = np.argsort(rank, kind="stable")
    return _runs(made[order], rank[order])


def _runs(values: Ints, keys: Ints) -> list[Ints]:
    """Part values where the key beside them changes."""
    return np.split(values, np.flatnonzero(np.diff(keys)) + 1) if values.size else []


def _units(groups: list[Ints], maker: Mapping[int, str], count: int) -> tuple[Ints, list[tuple[str, Ints]]]:
    """Give units numbers, and sites the name of the first layer that makes them; its second site gets ``#2``."""
    unit_of = np.full(count, -1, dtype=np.int64)
    seen: dict[str, int] = {}
    sites = []
    start = 0
    for members in groups:
        ids = np.arange(start, start + len(members))
        unit_of[members] = ids
        start += len(members)
        base = maker[int(members[0])]
        seen[base] = seen.get(base, 0) + 1
        sites.append((base if seen[base] == 1 else f"{base}#{seen[base]}", ids))
    return unit_of, sites


def _sites(
    named: list[tuple[str, Ints]], tables: tuple[Axis, ...], outputs: tuple[tuple[str, Ints], ...], units: int
) -> tuple[Site, ...]:
    """Find the slots of all sites in one pass over the axes; those that differ by group have no index of their own."""
    whose = np.full(units, -1, dtype=np.int64)
    for k, (_, ids) in enumerate(named):
        whose[ids] = k
    slots: list[list[Slot]] = [[] for _ in named]
    for table in (table for table in tables if table.groups == 1):
        index = np.flatnonzero(table.units >= 0)
        site = whose[table.units[index]]
        order = np.argsort(site, kind="stable")
        for part in _runs(index[order], site[order]):
            k = int(whose[table.units[part[0]]])
            slots[k].append(Slot(table.tensor, table.axis, table.role, part, table.units[part] - named[k][1][0]))
    widths = np.ones(len(named), dtype=np.int64)
    for _, vector in outputs:
        owner = whose[vector[vector >= 0]]
        for k in np.unique(owner[owner >= 0]).tolist():
            widths[k] = max(widths[k], -(-int((owner == k).sum()) // len(named[k][1])))
    return tuple(
        Site(name, "channels", len(ids), tuple(slots[k]), ids, width=int(widths[k]))
        for k, (name, ids) in enumerate(named)
    )


def _layer(facts: dict[str, Any], classes: Ints, unit_of: Ints) -> Layer:
    facts = dict(facts)
    ins, outs, *_ = (facts.pop(key) for key in ("in", "out", "node", "reading_dim", "writing_dim", "spans"))
    none = np.full(1, -1, dtype=np.int64)
    return Layer(
        in_units=np.repeat(none, facts["in_channels"]) if ins is None else unit_of[classes[ins]],
        out_units=np.repeat(none, facts["out_channels"]) if outs is None else unit_of[classes[outs]],
        **facts,
    )


def _notes(written: list[tuple[str, Ints]], classes: Ints, number: Ints, reasons: list[Reason]) -> list[Note]:
    """Count pinned output channels by layer and reason."""
    found: dict[tuple[str, Reason], int] = {}
    for owner, vector in written:
        which, times = np.unique(number[classes[vector]], return_counts=True)
        for i, n in zip(which.tolist(), times.tolist(), strict=True):
            if i >= 0 and not reasons[i].boundary:
                found[owner, reasons[i]] = found.get((owner, reasons[i]), 0) + n
    return [Note(where, n, r.why, r.line, r.fixed_by_code) for (where, r), n in found.items()]


def _collapsed(written: list[tuple[str, Ints]], classes: Ints, lone: Ints, labels: Labels) -> list[Note]:
    """Tell of units that are alone: nothing may go where one must stay."""
    notes = []
    for owner, vector in written:
        for c in np.intersect1d(classes[vector], lone).tolist():
            own = vector[classes[vector] == c]
            if len(own) == 1:
                notes.append(Note(owner, 1, "is one channel by itself, and one must stay"))
                continue
            causes, counted = labels.ties_among(own, classes)
            why = f"has all {len(own)} channels tied into one unit by {' and '.join(causes[-2:]) or 'layers before it'}"
            notes.append(Note(owner, len(own), why, fixed_by_code=counted))
    return notes


def _values(
    program: Program,
    records: list[tuple[Any, Tagged]],
    classes: Ints,
    unit_of: Ints,
    batch: int,
) -> tuple[Value, ...]:
    """Record the activations of one sample and how long each is needed; views and in-place results are not counted."""
    position = {node: i for i, node in enumerate(program.nodes)}
    last = last_uses(program, position)
    values = []
    for node, tagged in records:
        values.append(value_of(tagged, unit_of[classes], batch, position[node], last[node]))
    return tuple(values)


def value_of(tagged: Tagged, unit_of: Ints, batch: int, born: int, dies: int) -> Value:
    """Return what one sample has of a tensor; ``unit_of`` names the unit of each label."""
    fixed, units = 1, []
    for vector, size in zip(tagged.dims, tagged.shape, strict=True):
        mapped = None if vector is None else unit_of[vector]
        if mapped is None or (mapped < 0).all():
            fixed *= size
        else:
            units.append(mapped)
    return Value(fixed // batch if fixed % batch == 0 else fixed, tuple(units), born, dies)


def last_uses(program: Program, position: Mapping[Any, int]) -> dict[Any, int]:
    """Return the last position that needs the memory of each node's result, through all views of it."""
    last: dict[Any, int] = {}
    for node in reversed(program.nodes):
        ends = (last[u] if is_view(u) and u.args[0] is node else position[u] for u in node.users)
        last[node] = max(ends, default=position[node])
    return last


def home(node: fx.Node) -> fx.Node:
    """Return the node in whose memory a node's result lies."""
    while is_view(node):
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node


def is_view(node: Any) -> bool:
    """Tell whether a node's result lies in the memory of its first argument."""
    if node.op != "call_function":
        return False
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.target is operator.getitem
    name = schema.name.partition("::")[2]
    return name in SAME_IN_EVAL or any(a.alias_info is not None for a in schema.returns)
