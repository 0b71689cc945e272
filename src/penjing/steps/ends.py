"""The first and the last layers of a network, whose bits stay unless somebody asks for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from penjing.core.layers import Layer
from penjing.graph.graph import Graph


def ends_of(graph: Graph) -> list[Layer]:
    """Return the layers that read the network's input or write its output; where these cannot be told, none.

    What is between them and the outside, poolings and batch norms among them, is passed over.
    """
    nodes = {node.name: node for node in graph.program.nodes}
    layers = {nodes[name]: layer for name, layer in zip(graph.nodes, graph.layers, strict=True) if name in nodes}
    inputs = [
        node
        for node, name in zip(
            (node for node in graph.program.nodes if node.op == "placeholder"), graph.program.names, strict=False
        )
        if name is None
    ]
    outputs = [node for node in graph.program.nodes if node.op == "output"]
    first = _met(inputs, layers, lambda node: list(node.users))
    last = _met(outputs, layers, lambda node: list(node.all_input_nodes))
    return [layer for node, layer in layers.items() if node in first or node in last]


def _met(begin: Sequence[fx.Node], layers: Mapping[fx.Node, Layer], further: Any) -> set[fx.Node]:
    """Return the layers that are met first on the way from some nodes."""
    seen, met, todo = set(begin), set[fx.Node](), list(begin)
    while todo:
        for node in further(todo.pop()):
            if node in layers:
                met.add(node)
            elif node not in seen:
                seen.add(node)
                todo.append(node)
    return met
