"""From a module to a Graph: record ATen operators, run them on labels, prove what was assumed.

The program is interpreted once with a label for each channel instead of numbers. Operators with weights
hand out labels and tie them to their weights; all others pass labels on as they pass data (``rules``). What is tied
together becomes one unit; units that lie on the same tensors become one Site.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penjing.core.errors import TraceError
from penjing.core.layers import Layer
from penjing.graph.assemble import Assembly, assemble, is_view
from penjing.graph.blocks import with_blocks
from penjing.graph.chains import with_modules
from penjing.graph.graph import Graph
from penjing.graph.kernels import croppable
from penjing.graph.labels import Labels, Reason, Tagged
from penjing.graph.passes import passes
from penjing.graph.program import Program, capture, line_of, plain, shell
from penjing.graph.proof import STEADY, Certificate, try_out, two_thirds
from penjing.graph.quantized import Precision, floated, precisions, with_bits
from penjing.graph.rules import concat, layers, norms, pieces, pointwise, shape  # noqa: F401  (filling the table)
from penjing.graph.rules.table import RULES, Around, Call, Findings, unknown
from penjing.graph.surgery import cut

__all__ = ["plain", "trace"]

ROUNDS = 12
"""How many readings of the user's code are tried before what is left unproved is pinned."""

UNSTEADY = "could not be proved: forward gives another result when it runs again, with nothing cut"

WHOLE = "could not be proved: with nothing cut, the copied model"

TRIES = 8
"""For how many nodes other ways to tie are tried where everything collapsed into one unit."""


def trace(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None, *, proof: bool = True
) -> Graph:
    """Trace a module on an example input (batch of two or more) and find what may be cut.

    The module must not hold parametrizations; ``plain`` folds them. ``proof`` cuts a third of every site and compares
    with the zeroed original, so that code the labels cannot see (a division by the width, say) is found before any
    plan is made. Without it, only readings of the user's code that rest on an assumption are tried out. The same holds
    for the residual blocks that may be left out. Quantized layers are traced as ordinary ones with the rounded weights.

    Raises: TraceError when the module cannot be traced: data-dependent control flow, a failing forward.
    """
    rounded, model = precisions(model), floated(model)
    graph = with_modules(model, with_blocks(model, _channels(model, args, kwargs, proof), proof=proof))
    return replace(graph, kernels=croppable(model, graph), layers=tuple(_layer(one, rounded) for one in graph.layers))


def _layer(layer: Layer, rounded: Mapping[str, Precision]) -> Layer:
    """Return a layer with its bits, if it has few."""
    precision = rounded.get(layer.weight.rpartition(".")[0])
    return layer if precision is None else with_bits(layer, precision)


def _channels(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, proof: bool) -> Graph:
    """Find the channels that may be cut."""
    network = _Network(model, (tuple(args), dict(kwargs or {})))
    levels: dict[str, int] = {}
    found = _freest(network, levels)
    if not proof and not found.guesses:
        return found.graph
    for _ in range(ROUNDS):
        failures = try_out(model, found.graph)
        if unsteady := [one for one in failures.values() if one.name == STEADY]:
            told = f"{WHOLE} {unsteady[0].verdict}" if unsteady[0].trouble else UNSTEADY
            return found.graph.without_sites(failures, told)
        wrong = {node for site, certificate in failures.items() for node in network.blamed(found, site, certificate)}
        if not wrong:
            return _without(found.graph, failures)
        for node in wrong:
            levels[node] = levels.get(node, 0) + 1
        found = _freest(network, levels)
    return _without(found.graph, try_out(model, found.graph))


def _without(graph: Graph, failures: Mapping[str, Certificate]) -> Graph:
    """Pin what could not be proved, each site for its own reason."""
    for site, certificate in failures.items():
        why = f"could not be proved: the cut model {certificate.verdict}"
        graph = graph.without_sites([site], why, {site: certificate.lines[-1]} if certificate.lines else None)
    return graph


def _freest(network: _Network, levels: dict[str, int]) -> Assembly:
    """Interpret the program; where ties left a single unit, try the other ways to tie and keep what frees more."""
    best = network.interpret(levels)
    for node in best.alternatives[:TRIES]:
        other = network.interpret({**levels, node: 1})
        if other.graph.free > best.graph.free:
            best = other
            levels[node] = 1
    return best


class _Network:
    """A module with its program, and what all interpretations of it share."""

    def __init__(self, model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        self.model, self.example = model, example
        self.program = capture(model, *example)
        self.steps = [_step(node) for node in self.program.nodes]
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.parameters = {name for name, _ in model.named_parameters()}
        integers = (torch.int64, torch.int32)
        self.buffers = {name: b for name, b in model.named_buffers() if b.dtype in integers}
        self.live = _live(self.program)
        zeros = {name: (p == 0).cpu() for name, p in model.named_parameters() if not p.is_meta}
        self.zeros = {name: zero for name, zero in zeros.items() if bool(zero.any())}
        self.batch = _batch(example)

    def interpret(self, levels: Mapping[str, int]) -> Assembly:
        """Run the program on labels; ``levels`` says which reading each node takes."""
        labels, findings = Labels(), Findings()
        results: dict[str, list[Tagged]] = {}
        around = Around(self.modules, self.parameters, self.buffers, self.live, self.batch)
        names = iter(self.program.names)
        env: dict[Any, Any] = {}
        records: list[tuple[Any, Tagged]] = []
        for step in self.steps:
            node = step.node
            if node.op == "placeholder":
                name = next(names)
                env[node] = _placeholder(step, name)
                if name is None:
                    records.append((node, env[node]))
            elif node.op == "output":
                _pin_outputs(node, env, labels)
            elif node.op == "call_function":
                env[node] = _run(step, env, labels, findings, levels, around)
                made = [t for t in (env[node] if isinstance(env[node], list) else [env[node]]) if isinstance(t, Tagged)]
                results[node.name] = made
                if _computed_from_parameters([env.get(n) for n in node.all_input_nodes], around):
                    around.from_parameters.update({id(t): t for t in made})
                elif not is_view(node):
                    records.extend((node, t) for t in made)
            else:
                constant = getattr(self.program.module, node.target, None)
                env[node] = Tagged.plain(tuple(constant.shape)) if isinstance(constant, Tensor) else None
        found = assemble(self.model, self.program, self.example, labels, findings, records, results, self.batch)
        graph = replace(found.graph, zeros=self.zeros, passes=passes(self.program, env, found.unit_of, self.batch))
        return replace(found, graph=graph)

    def blamed(self, found: Assembly, site: str, certificate: Certificate) -> list[str]:
        """Return the guesses behind a site's failed proof.

        That is the first on a line that its exception passed through; or else the first whose result has another size
        in the cut model than it should; or else all that touch the site.
        """
        ids = found.graph.site(site).ids
        touching = [guess for guess in found.guesses if np.isin(guess.units, ids).any()]
        there = [guess.node for guess in touching if guess.line in certificate.lines]
        if there or not touching:
            return there[:1]
        nodes = [guess.node for guess in touching]
        surprise = self._first_surprise(found, site)
        return [surprise] if surprise in nodes else nodes

    def _first_surprise(self, found: Assembly, site: str) -> str:
        """Cut one site, trace, and return the first node whose shape is not the one expected."""
        kept = {site: two_thirds(found.graph.site(site))}
        gone = found.graph.gone(kept)
        small = shell(self.model)
        cut(small, found.graph, kept)
        try:
            steps = [_step(node) for node in capture(small, *self.example).nodes]
        except TraceError:
            return ""
        for before, after in zip(self.steps, steps, strict=False):
            if before.name != after.name:
                break
            if before.node.op == "call_function" and found.shapes(before.node.name, gone) != after.shapes:
                return str(before.node.name)
        return ""


@dataclass(frozen=True, eq=False)
class _Step:
    """What every interpretation needs to know of one node."""

    node: Any
    name: str
    module: str
    line: str
    shapes: list[tuple[int, ...]]


def _step(node: Any) -> _Step:
    value = node.meta.get("val")
    results = value if isinstance(value, list | tuple) else [value]
    shapes = [tuple(int(s) for s in v.shape) for v in results if isinstance(v, Tensor)]
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return _Step(node, _name_of(node), stack[-1][0] if stack else "", line_of(node.meta.get("stack_trace")), shapes)


def _run(
    step: _Step,
    env: Mapping[Any, Any],
    labels: Labels,
    findings: Findings,
    levels: Mapping[str, int],
    around: Around,
) -> Any:
    """Apply one operator's rule."""
    node = step.node
    if node.target is operator.getitem:
        source, index = env[node.args[0]], node.args[1]
        return source[index] if isinstance(source, list) else source
    if not step.shapes:
        return node.meta.get("val")
    call = Call(
        name=step.name,
        node=node.name,
        args=_arguments(node, env),
        shapes=step.shapes,
        module=step.module,
        line=step.line,
        level=levels.get(node.name, 0),
        live=node in around.live,
        labels=labels,
        findings=findings,
        around=around,
    )
    labels.cause = _cause(call)
    rule = RULES.get(call.name)
    if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
        rule = pointwise.elementwise
    if rule is None:
        rule = unknown if call.tensors() else _constant
    return rule(call)


def _cause(call: Call) -> str:
    """Name what does the call: one of torch's own modules by its name, anything else by operator and line."""
    if call.module and type(call.owner).__module__.startswith("torch.nn.modules"):
        return call.module
    return f"{call.name} at {call.line}" if call.line else call.name


def _constant(call: Call) -> Any:
    results = [Tagged.plain(s) for s in call.shapes]
    return results if len(results) > 1 else results[0]


def _pin_outputs(node: Any, env: Mapping[Any, Any], labels: Labels) -> None:
    for value in torch.utils._pytree.tree_leaves(node.args[0]):
        tagged = env.get(value)
        for vector in tagged.dims if isinstance(tagged, Tagged) else ():
            if vector is not None:
                labels.pin(vector, Reason("is an output of the network", boundary=True))


def _computed_from_parameters(inputs: list[Any], around: Around) -> bool:
    return bool(inputs) and all(isinstance(x, Tagged) and (x.name or id(x) in around.from_parameters) for x in inputs)


def _live(program: Program) -> set[Any]:
    """Return the nodes that reach an output or change something in place."""
    live: set[Any] = set()
    for node in reversed(program.nodes):
        if node.op == "output" or node in live or (node.op == "call_function" and _name_of(node) != _full_name(node)):
            live.add(node)
            live.update(node.all_input_nodes)
    return live


def _placeholder(step: _Step, name: str | None) -> Tagged:
    (size,) = step.shapes
    return Tagged.plain(size) if name is None else Tagged(size, (None,) * len(size), name)


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


def _batch(example: tuple[tuple[Any, ...], dict[str, Any]]) -> int:
    """Return the first dimension of the first tensor with dimensions."""
    leaves: Iterable[Any] = torch.utils._pytree.tree_leaves(example)
    return next((int(leaf.shape[0]) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()), 1)
