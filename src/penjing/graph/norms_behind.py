"""Batch norms that read what one layer writes, and nobody else does, so that the layer may take them in."""

from __future__ import annotations

import torch
from torch import fx, nn

from penjing.graph.graph import Graph


class Readers:
    """Tells who reads what the layers of a graph write, in its program."""

    def __init__(self, graph: Graph) -> None:
        self.nodes = {node.name: node for node in graph.program.nodes}
        placeholders = [node for node in graph.program.nodes if node.op == "placeholder"]
        self.tensors = dict(zip(placeholders, graph.program.names, strict=True))

    def only(self, node: fx.Node) -> fx.Node | None:
        """Return the only node that reads another; None where there is none, or several."""
        return next(iter(node.users)) if len(node.users) == 1 else None

    def norm(self, node: fx.Node) -> fx.Node | None:
        """Return the batch norm that alone reads a node."""
        reader = self.only(node)
        return reader if reader is not None and reader.target is torch.ops.aten.batch_norm.default else None

    def module(self, norm: fx.Node) -> str:
        """Return the name of a batch norm's module; nothing where it has no statistics, or they are used elsewhere."""
        mean = norm.args[3]
        tensor = self.tensors.get(mean) if isinstance(mean, fx.Node) and len(mean.users) == 1 else None
        return tensor.rpartition(".")[0] if tensor else ""


def norms_behind(model: nn.Module, graph: Graph) -> dict[str, str]:
    """Return, by the name of its module, the batch norm module that alone reads what a layer writes.

    Both are modules of torch's own that run once and are held in one place, and the norm has running statistics.
    """
    modules, readers = dict(model.named_modules(remove_duplicate=False)), Readers(graph)
    found = {}
    for layer, name in zip(graph.layers, graph.nodes, strict=True):
        if layer.weight not in graph.modules or name not in readers.nodes:
            continue
        node = readers.norm(readers.nodes[name])
        norm = modules.get(readers.module(node)) if node is not None else None
        held = [path for path, module in modules.items() if module is norm]
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d) and len(held) == 1:
            found[layer.weight.rpartition(".")[0]] = held[0]
    return found


def factors(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a batch norm multiplies each channel by in evaluation, and what it adds then, float64 [channels]."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    times = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        times = times * norm.weight.detach().double()
    plus = -norm.running_mean.double() * times
    return times, plus if norm.bias is None else plus + norm.bias.detach().double()
