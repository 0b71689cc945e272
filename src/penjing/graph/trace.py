"""From a module to a Graph: export to ATen, run on labels, prove what was assumed.

The exported program is interpreted once with a label for each channel instead of numbers. Operators with weights
hand out labels and tie them to their weights; all others pass labels on as they pass data (``rules``). What is tied
together becomes one unit; units that lie on the same tensors become one Site.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind

from penjing.core.errors import TraceError
from penjing.core.types import Ints, Layer, Note, Site, Slot, Value
from penjing.graph.graph import Axis, Gather, Graph, Norm, Read
from penjing.graph.labels import Labels, Reason, Tagged
from penjing.graph.rules import layers, pointwise, shape  # noqa: F401  (filling the table)
from penjing.graph.rules.table import RULES, Call, Findings

ROUNDS = 12
"""How many readings of the user's code are tried before what is left unproved is pinned."""


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Graph:
    """Trace a module on an example input (batch of two or more) and find what may be cut.

    The module must not hold parametrizations; ``plain`` folds them.

    Raises: TraceError when the module cannot be exported: data-dependent control flow, a failing forward.
    """
    from penjing.graph.proof import try_out

    example = (tuple(args), dict(kwargs or {}))
    program = export(model, *example)
    levels: dict[str, int] = {}
    graph, assumptions = _interpret(model, program, example, levels)
    for _ in range(ROUNDS):
        failures = try_out(model, graph)
        if not failures:
            return graph
        wrong = {a for site, lines in failures.items() for a in _blamed(graph, assumptions, site, lines)}
        if not wrong:
            break
        for node in wrong:
            levels[node] = levels.get(node, 0) + 1
        graph, assumptions = _interpret(model, program, example, levels)
    failures = try_out(model, graph)
    return graph.without_sites(failures, "could not be proved: the cut model differs from the zeroed one")


def _blamed(graph: Graph, assumptions: list[tuple[str, str, Ints]], site: str, lines: list[str]) -> list[str]:
    """Return the assumptions behind a site's failed proof: those on a line of the traceback, or else all."""
    ids = graph.site(site).ids
    touching = [(node, line) for node, line, units in assumptions if np.isin(units, ids).any()]
    return [node for node, line in touching if line in lines] or [node for node, _ in touching]


def plain(model: nn.Module) -> nn.Module:
    """Return a private copy in eval mode whose parametrizations are folded into ordinary parameters."""
    from torch.nn.utils import parametrize

    try:
        model = copy.deepcopy(model)
    except Exception as error:
        raise TraceError(f"{type(model).__name__} cannot be copied: {error}. Remove state that cannot be.") from None
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model.eval()


def export(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.export.ExportedProgram:
    """Export in eval mode to ATen operators.

    Raises: TraceError with the first line of what went wrong and the user's line it points at.
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(model, args, kwargs, strict=False)
    except Exception as error:
        text = " ".join(str(error).split("\n\n")[0].split())[:300]
        where = _user_line_of(error)
        raise TraceError(
            f"{type(model).__name__} could not be exported{f' at {where}' if where else ''}: {text} "
            "Forward must run on the example input and must not branch on the values of tensors."
        ) from None
    finally:
        for module, mode in training.items():
            module.training = mode


def _user_line_of(error: BaseException) -> str:
    import traceback

    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_users(f.filename)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def _is_users(filename: str) -> bool:
    parts = Path(filename).parts
    return "torch" not in parts and not ("penjing" in parts and "graph" in parts) and not filename.startswith("<")


def _line(stack: str | None) -> str:
    """Return ``file.py:12`` of the innermost frame in the user's own code."""
    for text in reversed((stack or "").splitlines()):
        text = text.strip()
        if text.startswith("File ") and ", line " in text:
            filename = text.split('"')[1]
            if _is_users(filename):
                return f"{Path(filename).name}:{text.split(', line ')[1].split(',')[0]}"
    return ""


def _interpret(
    model: nn.Module,
    program: torch.export.ExportedProgram,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    levels: Mapping[str, int],
) -> tuple[Graph, list[tuple[str, str, Ints]]]:
    """Run the program on labels; return the graph and what it assumes as (node, line, units)."""
    labels, findings = Labels(), Findings()
    names = _first_names(model)
    buffers = {name: b for name, b in model.named_buffers() if b.dtype in (torch.int64, torch.int32)}
    env: dict[Any, Any] = {}
    from_parameters: dict[int, Any] = {}
    context: dict[str, Any] = {"from_parameters": from_parameters, "buffers": buffers, "live": _live(program)}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    records: list[tuple[Any, Tagged]] = []
    for node in program.graph.nodes:
        if node.op == "placeholder":
            env[node] = _placeholder(node, specs[node.name], names)
            continue
        if node.op == "output":
            for value in _flat(node.args[0]):
                tagged = env.get(value)
                if isinstance(tagged, Tagged):
                    for d in tagged.dims:
                        if d is not None:
                            labels.pin(d, Reason("is an output of the network", boundary=True))
            continue
        if node.op == "get_attr":
            env[node] = None
            continue
        env[node] = _run(node, env, labels, findings, levels, context)
        results = env[node] if isinstance(env[node], list) else [env[node]]
        inputs = [env.get(n) for n in node.all_input_nodes]
        if inputs and all(isinstance(i, Tagged) and (i.name or id(i) in from_parameters) for i in inputs):
            from_parameters.update({id(r): r for r in results if isinstance(r, Tagged)})
        elif isinstance(env[node], Tagged):
            records.append((node, env[node]))
    return _assemble(model, program, example, labels, findings, records)


def _live(program: torch.export.ExportedProgram) -> set[Any]:
    """Return the nodes that reach an output or change something in place."""
    live: set[Any] = set()
    for node in reversed(program.graph.nodes):
        if node.op == "output" or node in live or (node.op == "call_function" and _name_of(node) != _full_name(node)):
            live.add(node)
            live.update(node.all_input_nodes)
    return live


def _first_names(model: nn.Module) -> dict[str, str]:
    """Map every name of a parameter or buffer to the first name of the same tensor."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for source in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in source:
            names[name] = first.setdefault(id(tensor), name)
    return names


def _placeholder(node: Any, spec: Any, names: Mapping[str, str]) -> Any:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return value
    size = tuple(int(s) for s in value.shape)
    if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
        return Tagged(size, (None,) * len(size), names.get(spec.target, spec.target))
    return Tagged.plain(size)


def _flat(value: Any) -> list[Any]:
    return list(torch.utils._pytree.tree_leaves(value))


def _run(
    node: Any,
    env: dict[Any, Any],
    labels: Labels,
    findings: Findings,
    levels: Mapping[str, int],
    context: dict[str, Any],
) -> Any:
    """Apply one operator's rule."""
    if node.target is operator.getitem:
        source, index = env[node.args[0]], node.args[1]
        return source[index] if isinstance(source, list) else source
    value = node.meta.get("val")
    results = [v for v in (value if isinstance(value, list | tuple) else [value]) if isinstance(v, Tensor)]
    if not results:
        return value
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    kind = stack[-1][1] if stack else ""
    call = Call(
        name=_name_of(node),
        node=node.name,
        args=_arguments(node, env),
        shapes=[tuple(int(s) for s in v.shape) for v in results],
        module=stack[-1][0] if stack else "",
        module_type=(kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2],
        line=_line(node.meta.get("stack_trace")),
        level=levels.get(node.name, 0),
        live=node in context["live"],
        labels=labels,
        findings=findings,
        values=context,
    )
    rule = RULES.get(call.name)
    if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
        rule = pointwise.elementwise
    if rule is None:
        rule = layers.unknown if call.tensors() else _constant
    return rule(call)


def _constant(call: Call) -> Any:
    results = [Tagged.plain(s) for s in call.shapes]
    return results if len(results) > 1 else results[0]


def _full_name(node: Any) -> str:
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema is not None else str(node.target)


def _name_of(node: Any) -> str:
    """Return the operator's name without the underscore of its in-place form."""
    base = _full_name(node)
    return base.rstrip("_") if base.endswith("_") and not base.endswith("__") else base


def _arguments(node: Any, env: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the arguments by schema name, tensors replaced by their tags."""

    def tagged(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return env.get(value)
        if isinstance(value, list | tuple):
            return [tagged(v) for v in value]
        return value

    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): tagged(a) for i, a in enumerate(node.args)} | {k: tagged(v) for k, v in node.kwargs.items()}
    given = {a.name: tagged(v) for a, v in zip(schema.arguments, node.args, strict=False)}
    given |= {k: tagged(v) for k, v in node.kwargs.items()}
    for argument in schema.arguments:
        if argument.name not in given and argument.has_default_value():
            given[argument.name] = argument.default_value
    return given


def _assemble(
    model: nn.Module,
    program: torch.export.ExportedProgram,
    example: tuple[tuple[Any, ...], dict[str, Any]],
    labels: Labels,
    findings: Findings,
    records: list[tuple[Any, Tagged]],
) -> tuple[Graph, list[tuple[str, str, Ints]]]:
    """Turn labels into units, sites and notes."""
    classes = labels.classes()
    reasons = labels.reasons(classes)
    count = int(classes.max()) + 1 if classes.size else 0
    made = np.zeros(count, dtype=np.bool_)
    maker: dict[int, str] = {}
    for vector, owner in findings.makers:
        made[classes[vector]] = True
        for c in classes[vector].tolist():
            maker.setdefault(c, owner)
    free = made.copy()
    free[list(reasons)] = False
    outputs = np.zeros(count, dtype=np.bool_)
    outputs[[c for c, reason in reasons.items() if reason.boundary]] = True
    written = [classes[vector] for vector in {id(v): v for v, _ in findings.makers}.values()]
    axes = [(key, classes[vector]) for key, vector in labels.axes.items()]
    groups = _group(axes, free, maker)
    unit_of = np.full(count + 1, -1, dtype=np.int64)
    sites = []
    start = 0
    for name, members in _named(groups, maker):
        ids = np.arange(start, start + len(members))
        unit_of[members] = ids
        start += len(members)
        sites.append((name, ids))
    tables = tuple(Axis(t, a, labels.roles.get((t, a), "tied"), unit_of[c]) for (t, a), c in axes)
    batch = _batch(example)
    graph = Graph(
        layers=tuple(_layer(facts, classes, unit_of) for facts in findings.layers),
        sites=tuple(_site(name, ids, tables) for name, ids in sites),
        notes=_notes(reasons, findings, classes),
        axes=tuple(axis for axis in tables if (axis.units >= 0).any()),
        reads=tuple(Read(r.node, r.operand, r.dim, unit_of[classes[r.labels]]) for r in findings.reads),
        gathers=tuple(Gather(g.buffer, unit_of[classes[g.source]]) for g in findings.gathers),
        norms=tuple(Norm(module, unit_of[classes[v]], per) for module, (v, per) in findings.norms.items()),
        values=_values(program, records, classes, unit_of, batch),
        shapes={name: tuple(p.shape) for name, p in model.named_parameters()},
        buffers=sum(b.numel() for b in model.buffers()),
        units=start,
        free=sum(int(free[c].sum()) for c in written),
        total=sum(int((~outputs[c]).sum()) for c in written),
        batch=batch,
        program=program,
        example=example,
    )
    assumed = [(a.node, a.line, unit_of[classes[a.labels]]) for a in findings.assumptions]
    return graph, [(node, line, units[units >= 0]) for node, line, units in assumed if (units >= 0).any()]


def _group(
    axes: list[tuple[tuple[str, int], Ints]], free: np.ndarray[Any, Any], maker: Mapping[int, str]
) -> dict[tuple[Any, ...], list[int]]:
    """Collect free classes that lie equally often on the same axes; their order is that of the first maker."""
    pairs = [np.stack([c, np.full(len(c), i)], axis=1) for i, (_, c) in enumerate(axes)]
    table = np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)
    table = table[free[table[:, 0]]] if len(table) else table
    unique, counts = np.unique(table, axis=0, return_counts=True)
    signature: dict[int, list[tuple[int, int]]] = {int(c): [] for c in np.flatnonzero(free)}
    for (c, i), n in zip(unique.tolist(), counts.tolist(), strict=True):
        signature[c].append((i, n))
    groups: dict[tuple[Any, ...], list[int]] = {}
    order = [c for c in maker if c in signature]
    for c in order:
        groups.setdefault(tuple(signature[c]), []).append(c)
    return groups


def _named(groups: dict[tuple[Any, ...], list[int]], maker: Mapping[int, str]) -> list[tuple[str, list[int]]]:
    """Name each site after the first layer that makes it; a second site of one layer gets a number."""
    seen: dict[str, int] = {}
    named = []
    for members in groups.values():
        base = maker[members[0]]
        seen[base] = seen.get(base, 0) + 1
        named.append((base if seen[base] == 1 else f"{base}#{seen[base]}", members))
    return named


def _site(name: str, ids: Ints, tables: tuple[Axis, ...]) -> Site:
    slots = []
    low, high = ids[0], ids[-1]
    for table in tables:
        index = np.flatnonzero((table.units >= low) & (table.units <= high))
        if index.size:
            slots.append(Slot(table.tensor, table.axis, table.role, index, table.units[index] - low))
    return Site(name, "channels", len(ids), tuple(slots), ids)


def _layer(facts: dict[str, Any], classes: Ints, unit_of: Ints) -> Layer:
    facts = dict(facts)
    ins, outs = facts.pop("in"), facts.pop("out")
    none = np.full(1, -1, dtype=np.int64)
    return Layer(
        in_units=np.repeat(none, facts["in_channels"]) if ins is None else unit_of[classes[ins]],
        out_units=np.repeat(none, facts["out_channels"]) if outs is None else unit_of[classes[outs]],
        **facts,
    )


def _notes(reasons: Mapping[int, Reason], findings: Findings, classes: Ints) -> tuple[Note, ...]:
    """Count pinned output channels by layer and reason."""
    found: dict[tuple[str, Reason], int] = {}
    for vector, owner in {id(v): (v, o) for v, o in findings.makers}.values():
        for c in classes[vector].tolist():
            reason = reasons.get(c)
            if reason is not None and not reason.boundary:
                found[owner, reason] = found.get((owner, reason), 0) + 1
    return tuple(Note(where, n, r.why, r.line, r.fixed_by_code) for (where, r), n in found.items())


def _batch(example: tuple[tuple[Any, ...], dict[str, Any]]) -> int:
    """Return the first dimension of the first tensor with dimensions."""
    for leaf in _flat(example):
        if isinstance(leaf, Tensor) and leaf.dim():
            return int(leaf.shape[0])
    return 1


def _values(
    program: torch.export.ExportedProgram,
    records: list[tuple[Any, Tagged]],
    classes: Ints,
    unit_of: Ints,
    batch: int,
) -> tuple[Value, ...]:
    """Record the activations of one sample and how long each is needed; views and in-place results are not counted."""
    position = {node: i for i, node in enumerate(program.graph.nodes)}
    values = []
    for node, tagged in records:
        if _is_view(node):
            continue
        fixed, units = 1, []
        for d, size in enumerate(tagged.shape):
            vector = tagged.dims[d]
            mapped = None if vector is None else unit_of[classes[vector]]
            if mapped is None or (mapped < 0).all():
                fixed *= size
            else:
                units.append(mapped)
        fixed = max(1, fixed // batch) if tagged.shape and tagged.shape[0] == batch else fixed
        values.append(Value(fixed, tuple(units), position[node], _last_use(node, position)))
    return tuple(values)


def _last_use(node: Any, position: Mapping[Any, int]) -> int:
    last = position[node]
    for user in node.users:
        last = max(last, _last_use(user, position) if _is_view(user) else position[user])
    return last


def _is_view(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return node.target is operator.getitem
    if schema.name.endswith("_"):
        return True
    return any(a.alias_info is not None for a in schema.returns)


def rebased(graph: Graph, step: Mapping[str, int], least: int = 1) -> Graph:
    """Return the graph with the rounding step of each site set (sites not named keep theirs)."""
    return replace(
        graph,
        sites=tuple(
            replace(s, step=min(step.get(s.name, s.step), s.size), least=min(least, s.size)) for s in graph.sites
        ),
    )
