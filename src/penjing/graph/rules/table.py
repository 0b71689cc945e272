"""The table from ATen operator to label rule, and what a rule may use.

A rule receives the tracer's ``Call`` and returns the labels of the result: a ``Tagged``, or a list of them for an
operator with several results. Writing ``@rule("flip")`` over a function is all it takes to support an operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, nn

from penjing.core.units import Ints
from penjing.graph.labels import Labels, Reason, Tagged

Result: TypeAlias = Tagged | list[Tagged]
Rule: TypeAlias = "Callable[[Call], Result]"

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """File a rule under ATen operator names, written without overload or trailing underscore."""

    def file(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return file


@dataclass(frozen=True, eq=False)
class Read:
    """A weighted sum over channels: the operand of a node, its dimension, and the labels that are summed over."""

    node: str
    operand: int
    dim: int
    labels: Ints


@dataclass(frozen=True, eq=False)
class Gather:
    """A buffer whose values are positions along a labelled dimension, and so are renumbered by a cut."""

    buffer: str
    source: Ints


@dataclass(frozen=True, eq=False)
class Count:
    """A number that a module of the user's own holds: ``times`` as many as there are labels.

    ``index`` is its place where the attribute is a list.
    """

    module: str
    attribute: str
    index: int | None
    labels: Ints
    times: int = 1


@dataclass(frozen=True, eq=False)
class Assumption:
    """A guess about the user's code that only a proof can settle, with the labels that rest on it."""

    node: str
    line: str
    labels: Ints


@dataclass(frozen=True, eq=False)
class Choice:
    """A call that could tie its labels in another way, and would at its next level, just as well."""

    node: str
    labels: Ints


@dataclass
class Findings:
    """What the rules write down for later."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    gathers: list[Gather] = field(default_factory=list)
    assumptions: list[Assumption] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    makers: list[tuple[Ints, str]] = field(default_factory=list)
    norms: dict[str, tuple[Ints, int]] = field(default_factory=dict)
    counts: list[Count] = field(default_factory=list)
    refused: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Around:
    """What the rules may know of the network around a call: its modules, index buffers and batch, and what is live.

    ``from_parameters`` maps the identity of a tensor that is computed from parameters alone to that tensor.
    """

    modules: Mapping[str, nn.Module]
    parameters: Set[str]
    buffers: Mapping[str, Tensor]
    live: Set[Any]
    batch: int
    from_parameters: dict[int, Tagged] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Call:
    """One operator call: its arguments by schema name, the shapes of its results, and the books to write in.

    ``owner`` is the module that makes the call, ``module`` its name. ``level`` counts how often a guess made here was
    proved wrong: a rule with several readings takes the next one.
    """

    name: str
    node: str
    args: dict[str, Any]
    shapes: list[tuple[int, ...]]
    module: str
    line: str
    level: int
    live: bool
    labels: Labels
    findings: Findings
    around: Around

    @property
    def owner(self) -> nn.Module | None:
        """The module that makes the call."""
        return self.around.modules.get(self.module)

    def __getitem__(self, key: str) -> Any:
        return self.args[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return an argument, or the default where the operator has none of that name."""
        value = self.args.get(key, default)
        return default if value is None else value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the (first) result."""
        return self.shapes[0]

    def reason(self, why: str, fixed_by_code: bool = False) -> Reason:
        """Return a reason that points at the user's line."""
        return Reason(why, self.line, fixed_by_code)

    def pin(self, labels: Ints | None, why: str, fixed_by_code: bool = False) -> None:
        """Keep these labels, unless nothing of this call reaches an output."""
        if labels is not None and self.live:
            self.labels.pin(labels, self.reason(why, fixed_by_code))

    def read(self, operand: int, dim: int, labels: Ints | None) -> None:
        """Note that this call sums over a dimension of one of its tensors, so that zeros there change nothing."""
        if labels is not None:
            self.findings.reads.append(Read(self.node, operand, dim, labels))

    def from_parameters(self, x: Tagged) -> bool:
        """Tell whether a tensor comes from parameters alone."""
        return bool(x.name) or id(x) in self.around.from_parameters

    def choose(self, labels: Ints | None) -> None:
        """Note that this call could as well tie these labels otherwise."""
        if labels is not None:
            self.findings.choices.append(Choice(self.node, labels))

    def assume(self, labels: Ints | None) -> None:
        """Note that these labels rest on this call's reading of the user's code."""
        if labels is not None:
            self.findings.assumptions.append(Assumption(self.node, self.line, labels))

    def dim(self, x: Tagged, d: int) -> Ints | None:
        """Return the labels of one dimension; a parameter's are made on first use."""
        d %= len(x.shape)
        return self.labels.axis(x.name, d, x.shape[d]) if x.name else x.dims[d]

    def known(self, x: Tagged, d: int) -> Ints | None:
        """Return the labels of one dimension if it has any by now."""
        d %= len(x.shape)
        return self.labels.axes.get((x.name, d)) if x.name else x.dims[d]

    def dims(self, x: Tagged) -> list[Ints | None]:
        """Return the labels of all dimensions."""
        return [self.dim(x, d) for d in range(len(x.shape))]

    def couple(self, x: Tagged, d: int, labels: Ints | None, role: str = "tied") -> None:
        """Say that dimension ``d`` of ``x`` carries ``labels``."""
        d %= len(x.shape)
        if x.name:
            if labels is not None:
                self.labels.bind(x.name, d, labels, role)
            else:
                self.labels.mark(x.name, d, role)
                if (x.name, d) in self.labels.axes:
                    self.pin(self.labels.axes[x.name, d], "meets a dimension that cannot shrink")
        elif labels is None:
            self.pin(x.dims[d], "meets a dimension that cannot shrink")
        elif x.dims[d] is None:
            self.pin(labels, "meets a dimension that cannot shrink")
        else:
            self.labels.tie(_known(x.dims[d]), labels)

    def tagged(self, dims: list[Ints | None], index: int = 0) -> Tagged:
        """Return the result with these labels."""
        shape = self.shapes[index]
        assert len(shape) == len(dims), (self.name, shape, len(dims))
        assert all(d is None or len(d) == n for d, n in zip(dims, shape, strict=True)), (self.name, shape)
        return Tagged(shape, tuple(dims))

    def tensors(self) -> list[Tagged]:
        """Return every tensor argument, in order."""
        found: list[Tagged] = []
        for value in self.args.values():
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, Tagged):
                    found.append(item)
        return found

    def fixed(self, size: int, why: str, fixed_by_code: bool = False) -> Ints:
        """Return labels ``[size]`` that must stay."""
        label = self.labels.fresh(1)
        self.pin(label, why, fixed_by_code)
        return np.repeat(label, size)

    def join(self, parts: list[Ints | None], sizes: list[int]) -> Ints | None:
        """Concatenate labels; parts without labels become fixed ones if any other part has labels."""
        if all(part is None for part in parts):
            return None
        filled = [
            self.fixed(n, "is joined with a tensor whose channels cannot go") if part is None else part
            for part, n in zip(parts, sizes, strict=True)
        ]
        return np.concatenate(filled)


def _known(labels: Ints | None) -> Ints:
    assert labels is not None
    return labels


def unknown(call: Call) -> Result:
    """Pin whatever an operator without a rule touches, and say so."""
    for x in call.tensors():
        for d in range(len(x.shape)):
            call.pin(call.known(x, d), f"passes through {call.name}, an operator without a rule")
            if x.name:
                call.labels.mark(x.name, d, "tied")
                call.pin(call.dim(x, d), f"passes through {call.name}, an operator without a rule")
    results = [Tagged.plain(shape) for shape in call.shapes]
    return results if len(results) > 1 else results[0]
