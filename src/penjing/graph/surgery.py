"""The one place that edits tensors: remove units from the parameters, buffers and attributes of a module."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.units import Kept, is_gone
from penjing.graph.graph import Axis, Graph


def cut(model: nn.Module, graph: Graph, kept: Mapping[str, Kept]) -> None:
    """Remove, in place, every unit that ``kept`` does not keep; sites not named stay whole.

    Raises: PlanError when the model is not the one that was traced.
    """
    gone = graph.gone(kept)
    places = places_of(model)
    changed = [axis for axis in graph.axes if is_gone(axis.units, gone).any()]
    _check(changed, places)
    _renumber(graph, gone, places)
    for axis in changed:
        owner, attribute = places[axis.tensor][0]
        old = getattr(owner, attribute)
        put(places[axis.tensor], old, what_stays(old.detach(), axis, gone))
    _describe(model, graph, gone, places)


def _check(axes: list[Axis], places: Mapping[str, list[tuple[nn.Module, str]]]) -> None:
    """Refuse a model that is not the one that was traced, before anything of it is changed."""
    for axis in axes:
        if axis.tensor not in places:
            raise PlanError(f"The model has no tensor {axis.tensor!r}; trace the model that is to be cut.")
        owner, attribute = places[axis.tensor][0]
        size, traced = getattr(owner, attribute).shape[axis.axis], len(axis.units) // axis.groups
        if size != traced:
            raise PlanError(
                f"{axis.tensor} has {size} entries on axis {axis.axis}, {traced} were traced; "
                "trace the model again before a second cut."
            )


def what_stays(tensor: torch.Tensor, axis: Axis, gone: NDArray[np.bool_]) -> torch.Tensor:
    """Return a tensor without what is gone along one of its axes."""
    stays = torch.from_numpy(~is_gone(axis.units, gone)).to(tensor.device)
    if axis.groups == 1:
        return tensor.index_select(axis.axis, stays.nonzero()[:, 0])
    rows = zip(tensor.chunk(axis.groups), stays.view(axis.groups, -1), strict=True)
    return torch.cat([part.index_select(axis.axis, of_group.nonzero()[:, 0]) for part, of_group in rows])


def places_of(model: nn.Module) -> dict[str, list[tuple[nn.Module, str]]]:
    """Map each tensor's first name to every (module, attribute) that holds the same tensor."""
    by_identity: dict[int, list[tuple[nn.Module, str]]] = {}
    names: dict[str, int] = {}
    for prefix, module in model.named_modules():
        for attribute, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                by_identity.setdefault(id(tensor), []).append((module, attribute))
                names[f"{prefix}.{attribute}" if prefix else attribute] = id(tensor)
    return {name: by_identity[identity] for name, identity in names.items()}


def put(places: list[tuple[nn.Module, str]], old: torch.Tensor, new: torch.Tensor) -> None:
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
        put(places[gather.buffer], old, new)


def _describe(
    model: nn.Module,
    graph: Graph,
    gone: NDArray[np.bool_],
    places: Mapping[str, list[tuple[nn.Module, str]]],
) -> None:
    """Keep the descriptive attributes of standard modules true to their tensors."""
    modules = dict(model.named_modules(remove_duplicate=False))  # the graph may know a module by any of its names
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
    for count in graph.counts:
        if is_gone(count.units, gone).any():
            left = count.times * int((~is_gone(count.units, gone)).sum())
            _set(modules[count.module], count.attribute, count.index, left)
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


def _set(module: nn.Module, attribute: str, index: int | None, number: int) -> None:
    """Set a number that a module holds; a list of them is replaced, for others may hold the same list."""
    if index is not None:
        listed = list(getattr(module, attribute))
        listed[index] = number
        setattr(module, attribute, type(getattr(module, attribute))(listed))
    else:
        setattr(module, attribute, number)
