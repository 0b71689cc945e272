"""Weights as a finished network's bundle stores them: codes of quantized layers, and of sparse ones what is not zero.

Latent weights, and what rounds them, stay behind: a network that is loaded again computes with what was rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core.errors import BundleError
from penjing.graph import form
from penjing.graph.quantized import quantized, settle
from penjing.packing import stored

BETWEEN = "/"
"""What stands between a weight's name and those of the tensors that store it."""


def packed(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what stores a finished network: tensors by name, and facts by the names of the weights that are packed.

    Raises: PlanError naming a layer whose weights are not finite.
    """
    tensors, facts = dict(form.tensors(model)), dict[str, Any]()
    for name, layer in quantized(model).items():
        inner = f"{name}.weights."
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(inner)}
        with torch.no_grad():
            _put(f"{name}.weight", layer.weights.levels(layer.weight.detach()), tensors, facts)
    for name, tensor in list(tensors.items()):
        if name not in facts and tensor.dtype == torch.float32 and tensor.dim() >= 2 and bool((tensor == 0).any()):
            one = stored.pack(name, tensor.detach())
            if one.bytes < tensor.nbytes:
                _put(name, tensor.detach(), tensors, facts)
    return tensors, facts


def _put(name: str, weight: Any, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    one = stored.pack(name, weight)
    tensors.pop(name, None)
    facts[name] = dict(one.facts)
    tensors |= {f"{name}{BETWEEN}{part}": tensor for part, tensor in one.tensors.items()}


def take_in(model: nn.Module, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return all tensors of a network by name, those that were packed unpacked, and settle its quantized layers.

    Raises: BundleError naming the weight that the network has not, or that cannot be read.
    """
    own, layers = form.tensors(model), quantized(model)
    parts: dict[str, dict[str, Tensor]] = {name: {} for name in facts}
    given: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(BETWEEN)
        if name in parts:
            parts[name][part] = tensor
        else:
            given[key] = tensor
    for name, told in facts.items():
        weight = stored.unpack(name, told, parts[name], _shape(name, told, own))
        path = name.removesuffix(".weight")
        if path in layers:
            settle(layers[path], None if isinstance(weight, Tensor) else weight)
        given[name] = weight if isinstance(weight, Tensor) else weight.values()
    if left := [path for path in layers if f"{path}.weight" not in facts]:
        raise BundleError(f"The weight of {left[0]}, a layer in few bits, is not among the packed ones.")
    return given


def _shape(name: str, told: Any, own: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Return the shape that facts tell, once it is known to be none larger than the network's own.

    Raises: BundleError.
    """
    if name not in own:
        raise BundleError(f"The network has no {name!r}, of which a packed weight is told.")
    whole, shape = list(own[name].shape), told.get("shape") if isinstance(told, dict) else None
    named = isinstance(shape, list) and len(shape) == len(whole) and all(type(n) is int for n in shape)
    if not isinstance(shape, list) or not named or not all(1 <= n <= m for n, m in zip(shape, whole, strict=True)):
        raise BundleError(f"The packed weight {name} is of shape {str(shape)[:60]}, and the network's of {whole}.")
    return tuple(shape)
