"""Batch norms that read what one layer writes, and nobody else does, so that the layer may take them in."""

from __future__ import annotations

import torch
from torch import fx, nn

from penjing.graph.graph import Graph


def norms_behind(model: nn.Module, graph: Graph) -> dict[str, str]:
    """Return, by the name of its module, the batch norm module that alone reads what a layer writes.

    Both are modules of torch's own that run once and are held in one place, and the norm has running statistics.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    nodes = {node.name: node for node in graph.program.nodes}
    placeholders = [node for node in graph.program.nodes if node.op == "placeholder"]
    tensors = dict(zip(placeholders, graph.program.names, strict=False))
    found = {}
    for layer, name in zip(graph.layers, graph.nodes, strict=True):
        if layer.weight not in graph.modules or name not in nodes:
            continue
        readers = list(nodes[name].users)
        if len(readers) != 1 or readers[0].target is not torch.ops.aten.batch_norm.default:
            continue
        mean = readers[0].args[3]
        tensor = tensors.get(mean) if isinstance(mean, fx.Node) and len(mean.users) == 1 else None
        norm = tensor.rpartition(".")[0] if tensor else ""
        held = [path for path, module in modules.items() if module is modules.get(norm)]
        if type(modules.get(norm)) in (nn.BatchNorm1d, nn.BatchNorm2d) and len(held) == 1:
            found[layer.weight.rpartition(".")[0]] = norm
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
