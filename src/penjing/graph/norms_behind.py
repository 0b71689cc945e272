"""Batch norms that read what one layer writes, and nobody else does, so that the layer may take them in."""

from __future__ import annotations

import torch
from torch import nn

from penjing.graph.graph import Graph
from penjing.graph.readers import Readers, norm_behind
from penjing.graph.trace import trace


def norms_behind(model: nn.Module, graph: Graph) -> dict[str, str]:
    """Return, by the name of its module, the batch norm module that alone reads what a layer writes.

    Both are modules of torch's own that run once and are held in one place, and the norm has running statistics.
    """
    modules, readers = dict(model.named_modules(remove_duplicate=False)), Readers(graph)
    found = {}
    for layer, name in zip(graph.layers, graph.nodes, strict=True):
        if layer.weight not in graph.modules or name not in readers.nodes:
            continue
        node = norm_behind(readers.nodes[name])
        norm = modules.get(readers.module(node)) if node is not None else None
        held = [path for path, module in modules.items() if module is norm]
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d) and len(held) == 1:
            found[layer.weight.rpartition(".")[0]] = held[0]
    return found


def norms_behind_on(model: nn.Module, pictures: torch.Tensor) -> dict[str, str]:
    """Return the same of a model that reads such pictures and has not been traced yet."""
    example = pictures[:2].to(next(model.parameters()).device)
    return norms_behind(model, trace(model, (example,), proof=False))


def factors(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a batch norm multiplies each channel by in evaluation, and what it adds then, float64 [channels]."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    times = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        times = times * norm.weight.detach().double()
    plus = -norm.running_mean.double() * times
    return times, plus if norm.bias is None else plus + norm.bias.detach().double()
