"""Who reads what the layers of a network write."""

from __future__ import annotations

import torch
from torch import fx

from penjing.graph.graph import Graph


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the only node that reads another; None where there is none, or several."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def norm_behind(node: fx.Node) -> fx.Node | None:
    """Return the batch norm that alone reads a node."""
    reader = only_reader(node)
    return reader if reader is not None and reader.target is torch.ops.aten.batch_norm.default else None


class Readers:
    """Tells who reads what the layers of a graph write, in its program."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = {node.name: node for node in graph.program.nodes}
        placeholders = [node for node in graph.program.nodes if node.op == "placeholder"]
        self.tensors = dict(zip(placeholders, graph.program.names, strict=True))

    def module(self, norm: fx.Node) -> str:
        """Return the name of a batch norm's module; nothing where it has no statistics, or they are used elsewhere."""
        mean = norm.args[3]
        tensor = self.tensors.get(mean) if isinstance(mean, fx.Node) and len(mean.users) == 1 else None
        return tensor.rpartition(".")[0] if tensor else ""
