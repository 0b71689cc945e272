"""Which operators, beside the layers, run over whole activations on their own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.core.layers import Pass
from penjing.core.units import Ints
from penjing.graph.assemble import is_view, value_of
from penjing.graph.labels import Tagged
from penjing.graph.program import Program

LAYERS = ("conv", "linear", "addmm", "matmul", "bmm", "mm", "einsum", "baddbmm")
"""How the names of operators begin that are layers, or cost like one."""

ACTIVATIONS = ("relu", "relu6", "hardtanh", "prelu", "dropout", "feature_dropout")
"""Operators on one element at a time that do not say so."""


def passes(program: Program, env: Mapping[fx.Node, Any], unit_of: Ints, batch: int) -> tuple[Pass, ...]:
    """Return the operators that neither are layers, nor views, nor folded into what made their input.

    ``env`` holds the labelled result of each node, ``unit_of`` the unit of each label.
    """
    position = {node: i for i, node in enumerate(program.nodes)}
    names: Counter[str] = Counter()
    found = []
    for node in program.nodes:
        result = env.get(node)
        result = result[0] if isinstance(result, list) and result else result
        if node.op != "call_function" or not isinstance(result, Tagged) or not result.shape:
            continue
        inputs = [env[n] for n in node.all_input_nodes if _is_activation(env.get(n))]
        operator = _operator(node)
        if not inputs or operator.startswith(LAYERS) or is_view(node) or _is_folded(node, operator, len(inputs)):
            continue
        name = _name(node, operator)
        names[name] += 1
        found.append(
            Pass(
                name if names[name] == 1 else f"{name}#{names[name]}",
                _kind(node, operator),
                operator,
                _window(node, operator, len(inputs)),
                tuple(value_of(x, unit_of, batch, position[node], position[node]) for x in inputs),
                value_of(result, unit_of, batch, position[node], position[node]),
            )
        )
    return tuple(found)


def _is_activation(value: Any) -> bool:
    return isinstance(value, Tagged) and not value.name and bool(value.shape)


def _operator(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    name = schema.name.partition("::")[2] if schema is not None else str(node.target)
    return str(name).rstrip("_")


def _is_pointwise(node: fx.Node, operator: str) -> bool:
    return operator in ACTIVATIONS or torch.Tag.pointwise in getattr(node.target, "tags", ())


def _is_folded(node: fx.Node, operator: str, inputs: int) -> bool:
    """Tell whether a runtime computes this on the way out of the operator before."""
    if operator == "batch_norm":
        before = node.args[0]
        return isinstance(before, fx.Node) and before.op == "call_function" and _operator(before).startswith(LAYERS)
    return inputs == 1 and _is_pointwise(node, operator)


def _kind(node: fx.Node, operator: str) -> str:
    if "pool" in operator or operator in ("mean", "sum", "amax", "max"):
        return "pool"
    changes = _is_pointwise(node, operator) or "norm" in operator or "softmax" in operator
    return "elementwise" if changes else "move"


def _window(node: fx.Node, operator: str, inputs: int) -> int:
    """Return how many elements of the input make one of the output; 0 where that is all of them."""
    arguments = [a.name for a in getattr(getattr(node.target, "_schema", None), "arguments", ())]
    if "kernel_size" in arguments and len(node.args) > (at := arguments.index("kernel_size")):
        kernel: Any = node.args[at]
        sides = [int(k) for k in kernel] if isinstance(kernel, list | tuple) else [int(kernel)]
        rank = 3 if "3d" in operator else 1 if "1d" in operator else 2
        return math.prod(sides) if len(sides) > 1 else sides[0] ** rank
    return max(inputs - 1, 1) if _is_pointwise(node, operator) else 0


def _name(node: fx.Node, operator: str) -> str:
    """Return the module's name where it is one of torch's own, or else the user's module and the operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = str(stack[-1][0]) if stack else ""
    kind = stack[-1][1] if stack else ""
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    if module and kind.startswith("torch.nn.modules"):
        return module
    return f"{module}.{operator}" if module else operator
