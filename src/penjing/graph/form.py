"""The form of a network: its tensors by name and the counts its modules hold, enough to make it from its original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from penjing.core.errors import PlanError
from penjing.graph.quantized import Quantized, inside, quantized
from penjing.graph.rules.held import is_held, numbers
from penjing.graph.surgery import places_of, put

COUNTS = (
    "in_channels",
    "out_channels",
    "groups",
    "in_features",
    "out_features",
    "num_features",
    "num_channels",
    "num_groups",
    "num_parameters",
    "embedding_dim",
)
"""What torch's own modules hold beside their tensors and a cut changes; of others, a cut may set any number."""

TAPS = {"kernel_size": 1, "padding": 0}
"""What torch's convolutions hold of each dimension and a crop makes smaller, with the least it can be."""

Counts = Mapping[str, Mapping[str, Any]]


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer once, under its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def counts(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what modules say of their sizes, by name: torch's own by ``COUNTS`` and ``TAPS``, others by all."""
    found: dict[str, dict[str, Any]] = {}
    rounding = {id(inner) for layer in quantized(model).values() for inner in inside(layer)}
    for name, module in model.named_modules():
        if id(module) in rounding:  # which is made anew, for a layer of the size that it has by then
            continue
        own: dict[str, Any] = numbers(module)
        if type(module).__module__.startswith("torch.nn.") or isinstance(module, Quantized):
            own = {key: getattr(module, key) for key in COUNTS if type(getattr(module, key, None)) is int}
            own |= {key: list(value) for key in TAPS if (value := _taps(module, key)) is not None}
        if own:
            found[name] = own
    return found


def identities(model: nn.Module) -> list[str]:
    """Return the first names of the modules that hand on what they read."""
    return [name for name, module in model.named_modules() if name and type(module) is nn.Identity]


def refill(model: nn.Module, given: Mapping[str, Tensor], sizes: Counts) -> nn.Module:
    """Give an original, in place, the tensors and counts of a network made from it, and return it.

    Tensors may be of other sizes; the original's may lie on the meta device.

    Raises: PlanError naming what the original has and the other lacks, or the other way round, or has otherwise.
    """
    own, modules, places = tensors(model), dict(model.named_modules()), places_of(model)
    for one, other, lacks in ((own, given, "lack"), (given, own, "have")):
        if missing := [name for name in one if name not in other]:
            text = "the network has" if lacks == "lack" else "the network has not"
            raise PlanError(f"The tensors {lacks} {missing[0]}, which {text}; they belong to another one.")
    for name, new in given.items():
        old = own[name]
        if old.dim() != new.dim() or old.is_floating_point() != new.is_floating_point():
            raise PlanError(
                f"{name} is {old.dtype} with {old.dim()} dimensions in the network, not {new.dtype} with {new.dim()}."
            )
    for name, facts in sizes.items():
        for key, value in facts.items():
            if not _is_possible(value, key, modules.get(name)):
                raise PlanError(f"The network has no count {key!r} of {name or 'its root'} that could be {value!r}.")
    for name, new in given.items():
        put(places[name], own[name], new.to(own[name].dtype) if new.dtype != own[name].dtype else new)
    for name, facts in sizes.items():
        for key, value in facts.items():
            setattr(modules[name], key, type(getattr(modules[name], key))(value))
    return model


def _taps(module: nn.Module | None, key: str) -> tuple[int, ...] | None:
    """Return what a convolution of torch's own holds; None where it is a word, such as the padding "same"."""
    value = getattr(module, key, None) if isinstance(module, _ConvNd) else None
    return value if isinstance(value, tuple) else None


def _is_possible(value: Any, key: str, module: nn.Module | None) -> bool:
    """Tell whether a number that a module holds could be this one; kernels and paddings only become smaller."""
    if key in COUNTS:
        return _fits(value, getattr(module, key, None)) and value >= 1
    if key in TAPS and (whole := _taps(module, key)) is not None:
        return _fits(value, whole) and all(TAPS[key] <= now <= was for now, was in zip(value, whole, strict=True))
    return _fits(value, numbers(module).get(key))


def _fits(value: Any, known: Any) -> bool:
    """Tell whether a number, or a list of as many, may stand for the one that is known."""
    if type(known) is int:
        return type(value) is int
    return is_held(known) and is_held(value) and type(value) is not int and len(value) == len(known)


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Tell whether two networks' tensors are equal to the bit."""
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and torch.equal(a[n], b[n]) for n in a)
