"""Kernels that may be cropped: the outer taps go at both ends alike, and the padding with them.

A convolution of k taps at distance d, padded by p, reads at position o the taps o s - p + i d. Without m taps at either
end it reads the same places where p is less by m d, and makes as many positions, whatever the size of its input. A crop
at one end alone would need another padding at either end, which torch's convolutions have not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from penjing.core.errors import PlanError
from penjing.core.layers import Layer
from penjing.graph.graph import Graph
from penjing.graph.surgery import places_of, put

Margin: TypeAlias = tuple[int, ...]
"""How many taps go at both ends of each dimension of a kernel."""

DIMENSIONS = ("planes", "rows", "columns")
"""What the taps of a kernel's last dimensions are called."""


def croppable(model: nn.Module, graph: Graph) -> dict[str, Margin]:
    """Return, by weight, the largest margin that may go of the kernels that may be cropped at all.

    A kernel may where nothing but torch's own forward of the modules that hold it, called as modules, reads it: that
    forward takes its padding from the module. The middle stays, and so does what the padding cannot make up for.
    """
    stands = [node for node in graph.program.nodes if node.op == "placeholder"]
    named = zip(graph.program.names, stands, strict=True)
    users = {name: {user.name for user in node.users} for name, node in named if name is not None}
    calls = {node.name: _module_of(node) for node in graph.program.nodes}
    modules, places = dict(model.named_modules(remove_duplicate=False)), places_of(model)
    found: dict[str, Margin] = {}
    for name in dict.fromkeys(layer.weight for layer in graph.layers if layer.weight and layer.kernel):
        mine = [(layer, node) for layer, node in zip(graph.layers, graph.nodes, strict=True) if layer.weight == name]
        holders = {id(holder) for holder, attribute in places[name] if attribute == "weight"}
        callers = [modules.get(calls.get(node, "")) for _, node in mine]
        if (
            users.get(name) == {node for _, node in mine}
            and len(holders) == len(places[name])
            and all(id(caller) in holders for caller in callers)
            and all(_is_plain(holder) for holder, _ in places[name])
        ):
            largest = [_largest(holder) for holder, _ in places[name]]
            if any(margin := tuple(map(min, zip(*largest, strict=True)))):
                found[name] = margin
    return found


def _module_of(node: torch.fx.Node) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _is_plain(module: nn.Module) -> bool:
    """Tell whether the module convolves as torch's own do, whatever class of the user's it is."""
    own = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    base = next((kind for kind in own if isinstance(module, kind)), None)
    parts = ("forward", "_conv_forward", "_output_padding", "__call__")
    same = base is not None and all(getattr(type(module), p, None) is getattr(base, p, None) for p in parts)
    return same and module.padding_mode == "zeros"  # other modes pad the picture before the convolution reads it


def _largest(module: nn.Module) -> Margin:
    assert isinstance(module, _ConvNd)
    room = [(k - 1) // 2 for k in module.kernel_size]
    if isinstance(module.padding, str):
        return tuple(room) if module.padding == "same" else (0,) * len(room)
    return tuple(min(r, p // d) for r, p, d in zip(room, module.padding, module.dilation, strict=True))


# ------------------------------------------------------------------------------------------------- what is empty


def rings(size: Sequence[int], margin: Margin) -> Iterator[tuple[str, Margin]]:
    """Return each crop along one dimension by its name: the outermost taps, those and the next ones, and so on.

    >>> list(rings((3, 5), (1, 2)))
    [('rows', (1, 0)), ('columns', (0, 1)), ('columns2', (0, 2))]
    """
    for dim, most in enumerate(margin):
        for m in range(1, most + 1):
            name = DIMENSIONS[dim - len(size)] + (str(m) if m > 1 else "")
            yield name, tuple(m if d == dim else 0 for d in range(len(size)))


def empty(weight: Tensor, margin: Margin) -> Margin:
    """Return how much of a margin is zero in all filters."""
    zero = (weight.detach() == 0).flatten(0, 1).all(0)
    found = []
    for dim, most in enumerate(margin):
        along = zero.movedim(dim, 0).flatten(1).all(1).tolist()
        m = 0
        while m < most and along[m] and along[-1 - m]:
            m += 1
        found.append(m)
    return tuple(found)


def inner(tensor: Tensor, margin: Margin) -> Tensor:
    """Return what is left of a weight, or of a mask of it, without a margin."""
    for dim, m in enumerate(margin, tensor.dim() - len(margin)):
        tensor = tensor.narrow(dim, m, tensor.shape[dim] - 2 * m)
    return tensor


def blank(weight: Tensor, margin: Margin) -> None:
    """Set a margin to zero, in place."""
    stays = torch.zeros_like(weight, dtype=torch.bool)
    inner(stays, margin).fill_(True)
    weight.masked_fill_(~stays, 0)


# ------------------------------------------------------------------------------------------------------ the crop


def cropped(layer: Layer, margin: Margin) -> Layer:
    """Return the layer without a margin of its kernel."""
    by = list(zip(layer.kernel, layer.padding, layer.dilation, margin, strict=True))
    # The graph writes -1 where the module says "same".
    padding = tuple(p if p < 0 else p - m * d for _, p, d, m in by)
    return replace(layer, kernel=tuple(k - 2 * m for k, _, _, m in by), padding=padding)


def as_it_is(layer: Layer, weight: Tensor) -> Layer:
    """Return a layer of the original with the kernel that its weight has by now."""
    if not layer.kernel or weight.shape[2:] == layer.kernel:
        return layer
    return cropped(layer, tuple((k - int(now)) // 2 for k, now in zip(layer.kernel, weight.shape[2:], strict=True)))


def crop(model: nn.Module, margins: Mapping[str, Margin]) -> None:
    """Take margins of kernels away, in place, and their share of the padding.

    Raises: PlanError for a weight that the model has not, or that is no convolution's.
    """
    places = places_of(model)
    for name, margin in margins.items():
        holders = [holder for holder, _ in places.get(name, ())]
        if not holders or not all(isinstance(holder, _ConvNd) for holder in holders):
            raise PlanError(f"The model has no convolution whose weight is {name!r}; trace the model that is cropped.")
        old = holders[0].weight
        assert isinstance(old, Tensor)
        put(places[name], old, inner(old.detach(), margin))
        for holder in holders:
            assert isinstance(holder, _ConvNd)
            padding = holder.padding
            if not isinstance(padding, str):
                padding = tuple(p - m * d for p, m, d in zip(padding, margin, holder.dilation, strict=True))
            holder.kernel_size = tuple(k - 2 * m for k, m in zip(holder.kernel_size, margin, strict=True))
            holder.padding = padding
