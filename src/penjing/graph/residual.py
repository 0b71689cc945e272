"""Finding residual blocks: modules that return what they read once their residual branches are zero.

They are found by running the program on numbers. Inside a module that reads one tensor and returns one of its shape,
a value *carries* the input where it equals it: the input itself, what an operator without weights makes of it
unchanged (the ReLU of what comes from a ReLU), and its sum with anything else, once that, the branch, is zero. Where
what the module returns carries its input, the module may be replaced by the identity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from penjing.graph.assemble import home, last_uses
from penjing.graph.graph import Block, Graph, Visit
from penjing.graph.program import Program, returned_by, runs_of_modules
from penjing.graph.proof import random_example

MARK = "#block"
"""What the name of a block ends with where a channel site bears its module's name."""

SUMS = {"add": (0, 1), "sub": (0,)}
"""Operators that add a branch, and which operand may be the input that they hand on."""


@dataclass(eq=False)
class _Candidate:
    """One run of a module that reads one tensor and returns one of its shape, and what is known of its values.

    ``carried`` are the nodes whose value is the input's once ``branches`` are zero.
    """

    name: str
    nodes: set[fx.Node]
    source: fx.Node
    result: fx.Node
    carried: set[fx.Node] = field(default_factory=set)
    branches: list[tuple[fx.Node, int]] = field(default_factory=list)
    value: Tensor | None = None


def residual_blocks(model: nn.Module, graph: Graph) -> list[Block]:
    """Return the modules of a traced model that return what they read once their branches are zero, the innermost."""
    program = graph.program
    layers = set(graph.nodes)
    candidates = _candidates(program, layers)
    if not candidates or any(p.is_meta for p in model.parameters()):
        return []
    own = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    agreed: dict[_Candidate, list[tuple[fx.Node, int]]] | None = None
    for example in (graph.example, random_example(graph, 0, own)):
        branches = _carry(model, program, [c for c in candidates if agreed is None or c in agreed], example)
        agreed = {c: b for c, b in branches.items() if agreed is None or agreed[c] == b}
    by_name: dict[str, list[_Candidate]] = {}
    for one in candidates:
        by_name.setdefault(one.name, []).append(one)
    good = {
        name: runs
        for name, runs in by_name.items()
        if all(run in (agreed or {}) and _weighs(run, (agreed or {})[run], layers) for run in runs)
    }
    inner = [name for name in good if not any(other.startswith(f"{name}.") for other in good)]
    return [_block(name, good[name], agreed or {}, graph) for name in inner]


def _candidates(program: Program, layers: Collection[str]) -> list[_Candidate]:
    """Return the runs of modules with a layer in them that read one tensor and return one of its shape.

    A module of which another run does something else is none.
    """
    fixed = _fixed(program)
    found, refused = [], set()
    for name, nodes in runs_of_modules(program):
        sources = {n for node in nodes for n in node.all_input_nodes if n not in nodes and n not in fixed}
        results = returned_by(nodes)
        layered = any(node.name in layers for node in nodes)
        if layered and len(sources) == len(results) == 1 and _alike(*sources, *results):
            found.append(_Candidate(name, nodes, sources.pop(), results.pop()))
        elif nodes:
            refused.add(name)
    return [one for one in found if one.name not in refused]


def _fixed(program: Program) -> set[fx.Node]:
    """Return the nodes that do not depend on the input."""
    names = iter(program.names)
    fixed: set[fx.Node] = set()
    for node in program.nodes:
        if node.op == "placeholder":
            if next(names) is not None:
                fixed.add(node)
        elif all(n in fixed for n in node.all_input_nodes):
            fixed.add(node)
    return fixed


def _alike(a: fx.Node, b: fx.Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    return isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape and x.dtype == y.dtype


def _carry(
    model: nn.Module, program: Program, candidates: list[_Candidate], example: Any
) -> dict[_Candidate, list[tuple[fx.Node, int]]]:
    """Run the program and return the candidates whose result carries what they read, with their branches."""
    state: dict[str, Tensor] = dict(model.named_parameters())
    state |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    for one in candidates:
        one.carried, one.branches, one.value = {one.source}, [], None
    try:
        with torch.no_grad():
            _Carrying(program, candidates).run(*program.arguments(state, example))
    except Exception:  # the proofs of channels run the same program, and tell
        return {}
    return {one: list(one.branches) for one in candidates if one.result in one.carried}


class _Carrying(fx.Interpreter):
    """Runs the program, and beside it what each candidate would compute with its branches zero."""

    def __init__(self, program: Program, candidates: list[_Candidate]) -> None:
        super().__init__(program.module)
        self._fixed = _fixed(program)
        self._of: dict[fx.Node, list[_Candidate]] = {}
        self._last: dict[fx.Node, list[_Candidate]] = {}
        order = {node: i for i, node in enumerate(program.nodes)}
        for one in candidates:
            for node in one.nodes:
                self._of.setdefault(node, []).append(one)
            self._last.setdefault(max(one.nodes, key=order.__getitem__), []).append(one)

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and see what it hands on."""
        for one in self._of.get(n, []):
            if one.value is None:
                one.value = self.env[one.source].clone()  # which may be changed in place
            if self._hands_on(one, n):
                one.carried.add(n)
        result = super().run_node(n)
        for one in self._last.get(n, []):
            one.value = None
        return result

    def _hands_on(self, one: _Candidate, node: fx.Node) -> bool:
        """Tell whether a node's value is the candidate's input, once its branches are zero."""
        assert one.value is not None
        inputs = node.all_input_nodes
        carried = [n in one.carried for n in inputs]
        if not any(carried):
            return False
        if all(carried):
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: one.value.clone())  # type: ignore[union-attr]
            made = node.target(*args, **kwargs)  # type: ignore[operator]
            return isinstance(made, Tensor) and made.dtype == one.value.dtype and torch.equal(made, one.value)
        at = _branch(node, one.carried)
        if at is None or not _alike(node, one.source):
            return False
        one.branches.append((node, at))
        return True


def _branch(node: fx.Node, carried: Collection[fx.Node]) -> int | None:
    """Return which operand of a sum is the branch, the other being carried; None for anything else."""
    schema = getattr(node.target, "_schema", None)
    places = SUMS.get(schema.name.partition("::")[2].rstrip("_"), ()) if schema is not None else ()
    if len(node.args) < 2 or not all(isinstance(arg, fx.Node) for arg in node.args[:2]):
        return None
    main = [i for i in places if node.args[i] in carried]
    if len(main) != 1 or (main[0] == 1 and node.kwargs.get("alpha", 1) != 1):
        return None
    return 1 - main[0]


def _weighs(one: _Candidate, branches: Iterable[tuple[fx.Node, int]], layers: Collection[str]) -> bool:
    """Tell whether some branch has a layer in it."""
    waiting = [node.args[at] for node, at in branches]
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if not isinstance(node, fx.Node) or node in seen or node not in one.nodes:
            continue
        if node.name in layers:
            return True
        seen.add(node)
        waiting.extend(node.all_input_nodes)
    return False


def _block(
    name: str, runs: list[_Candidate], branches: Mapping[_Candidate, list[tuple[fx.Node, int]]], graph: Graph
) -> Block:
    position = {node: i for i, node in enumerate(graph.program.nodes)}
    last = last_uses(graph.program, position)
    inside = {node.name for run in runs for node in run.nodes}
    taken = any(site.name == name for site in graph.sites)
    return Block(
        f"{name}{MARK}" if taken else name,
        name,
        tuple(
            Visit(frozenset(position[n] for n in run.nodes), position[home(run.source)], last[run.result])
            for run in runs
        ),
        tuple((node.name, at) for run in runs for node, at in branches[run]),
        frozenset(i for i, node in enumerate(graph.nodes) if node in inside),
    )
