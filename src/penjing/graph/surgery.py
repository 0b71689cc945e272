"""The one place that edits tensors: remove units from the parameters, buffers and attributes of a module."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.types import Kept
from penjing.graph.graph import Graph, is_gone


def cut(model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
    """Remove, in place, every unit that ``kept`` does not keep; sites not named stay whole.

    Raises: PlanError when the model is not the one that was traced.
    """
    gone = graph.gone(kept)
    places = _places(model)
    _renumber(graph, gone, places)
    for table in graph.axes:
        stays = ~is_gone(table.units, gone)
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
    _describe(model, graph, gone, places)


def shell(model: nn.Module) -> nn.Module:
    """Return a copy that shares the parameters of the model, for a cut, which replaces parameters and edits none."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


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
    laid_out = old.dim() == 4 and old.is_contiguous(memory_format=torch.channels_last) and not old.is_contiguous()
    new = new.contiguous(memory_format=torch.channels_last if laid_out else torch.contiguous_format)
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    for owner, attribute in places:
        setattr(owner, attribute, new)


def _renumber(graph: Graph, gone: NDArray[np.bool_], places: Mapping[str, list[tuple[nn.Module, str]]]) -> None:
    """Let index buffers point at the new positions; entries that pointed at removed ones are cut with their axis."""
    for gather in graph.gathers:
        stays = ~is_gone(gather.units, gone)
        position = torch.from_numpy(np.cumsum(stays) - 1)
        owner, attribute = places[gather.buffer][0]
        old = getattr(owner, attribute)
        new = position.to(old.device)[old.long()].to(old.dtype).clamp(min=0)
        _replace(places[gather.buffer], old, new)


def _describe(
    model: nn.Module,
    graph: Graph,
    gone: NDArray[np.bool_],
    places: Mapping[str, list[tuple[nn.Module, str]]],
) -> None:
    """Keep the descriptive attributes of standard modules true to their tensors."""
    modules = dict(model.named_modules())
    groups: dict[int, int] = {}
    for layer in graph.layers:
        holders = [holder for holder, _ in places[layer.weight]] if layer.weight else [modules.get(layer.name)]
        groups |= {id(holder): layer.shrunk(gone).groups for holder in holders}
    for norm in graph.norms:
        module = modules[norm.module]
        channels = int((~is_gone(norm.units, gone)).sum())
        if isinstance(module, nn.GroupNorm):
            module.num_channels, module.num_groups = channels, channels // norm.per_group
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.num_features = channels
    for module in modules.values():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor):
            continue
        if isinstance(module, nn.modules.conv._ConvNd) and weight.dim() == len(module.kernel_size) + 2:
            module.groups = groups.get(id(module), module.groups)
            one, other = weight.shape[0], weight.shape[1] * module.groups
            module.in_channels, module.out_channels = (one, other) if module.transposed else (other, one)
        elif isinstance(module, nn.Linear) and weight.dim() == 2:
            module.out_features, module.in_features = weight.shape
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            module.num_features = weight.shape[0]
        elif isinstance(module, nn.PReLU):
            module.num_parameters = weight.shape[0]
        elif isinstance(module, nn.Embedding):
            module.embedding_dim = weight.shape[1]
