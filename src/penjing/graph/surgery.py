"""The one place that edits tensors: remove units from the parameters, buffers and attributes of a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.types import Ints, Kept
from penjing.graph.graph import Graph


def cut(model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
    """Remove, in place, every unit that ``kept`` does not keep; sites not named stay whole.

    Raises: PlanError when the model is not the one that was traced.
    """
    gone = graph.gone(kept)
    places = _places(model)
    _renumber(graph, gone, places)
    for table in graph.axes:
        stays = _stays(table.units, gone)
        if stays.all():
            continue
        if table.tensor not in places:
            raise PlanError(f"The model has no tensor {table.tensor!r}; trace the model that is to be cut.")
        owner, attribute = places[table.tensor][0]
        old = getattr(owner, attribute)
        if old.shape[table.axis] != len(stays):
            raise PlanError(
                f"{table.tensor} has {old.shape[table.axis]} entries on axis {table.axis}, {len(stays)} were traced; "
                "trace the model again before a second cut."
            )
        index = torch.from_numpy(np.flatnonzero(stays)).to(old.device)
        _replace(places[table.tensor], old, old.detach().index_select(table.axis, index))
    _describe(model, graph, gone)


def _stays(units: Ints, gone: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return ~((units >= 0) & gone[np.maximum(units, 0)])


def _places(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Map each tensor's first name to every (module, attribute) that holds the same tensor."""
    by_identity: dict[int, list[tuple[nn.Module, str]]] = {}
    names: dict[str, int] = {}
    for prefix, module in model.named_modules():
        for attribute, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                by_identity.setdefault(id(tensor), []).append((module, attribute))
                names[f"{prefix}.{attribute}" if prefix else attribute] = id(tensor)
    return {name: by_identity[identity] for name, identity in names.items()}


def _replace(places: list[tuple[nn.Module, str]], old: torch.Tensor, new: torch.Tensor) -> None:
    """Put one new tensor wherever the old one was, as a parameter where it was one."""
    new = new.contiguous()
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for owner, attribute in places:
        setattr(owner, attribute, new)


def _renumber(
    graph: Graph, gone: np.ndarray[Any, np.dtype[np.bool_]], places: Mapping[str, list[tuple[nn.Module, str]]]
) -> None:
    """Let index buffers point at the new positions; entries that pointed at removed ones are cut with their axis."""
    for gather in graph.gathers:
        stays = _stays(gather.units, gone)
        position = torch.from_numpy(np.cumsum(stays) - 1)
        owner, attribute = places[gather.buffer][0]
        old = getattr(owner, attribute)
        new = position.to(old.device)[old.long()].to(old.dtype).clamp(min=0)
        _replace(places[gather.buffer], old, new)


def _describe(model: nn.Module, graph: Graph, gone: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    """Keep the descriptive attributes of standard modules true."""
    modules = dict(model.named_modules())
    for layer in graph.layers:
        module = modules.get(layer.weight.rpartition(".")[0]) if layer.weight else None
        small = layer.shrunk(gone)
        if isinstance(module, nn.modules.conv._ConvNd):
            module.in_channels, module.out_channels = small.in_channels, small.out_channels
            module.groups = small.groups
        elif isinstance(module, nn.Linear):
            module.in_features, module.out_features = small.in_channels, small.out_channels
    for norm in graph.norms:
        module = modules[norm.module]
        channels = int(_stays(norm.units, gone).sum())
        if isinstance(module, nn.GroupNorm):
            module.num_channels, module.num_groups = channels, channels // norm.per_group
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.num_features = channels
    for module in modules.values():
        if isinstance(module, nn.PReLU):
            module.num_parameters = module.weight.shape[0]
        elif isinstance(module, nn.Embedding):
            module.embedding_dim = module.weight.shape[1]
