"""Build a network from a written name and fill it from a weights file, refusing anything that could run code."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penjing import zoo
from penjing.core.errors import RecipeError, did_you_mean, reason
from penjing.core.importing import call_named
from penjing.core.random import derive
from penjing.core.spec import Spec
from penjing.factors.layer import Pick

WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts file the state dict beside an epoch and an optimiser."""

SUFFIXES = (".safetensors", ".pt", ".pth")


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Fill ``model`` in place from a .safetensors file or a .pt/.pth state dict, and return it.

    A ``state_dict`` or ``model`` wrapper and a ``module.`` prefix are taken off; floating tensors are cast to
    the network's own types. The network is left as it was unless everything fits. Batch norm's
    ``num_batches_tracked`` may be missing, as in files older than PyTorch 0.4.1, and so may the order in which channels
    are shuffled, which other code computes.

    Raises: RecipeError naming the file and the tensors that are missing, unexpected, of another shape or type,
    or not finite.
    """
    path = Path(path)
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = _without_prefix(_read(path), own)
    _match_names(path, model, own, given)
    ready: dict[str, Tensor] = {}
    for key, value in given.items():
        want = own[key]
        if value.shape != want.shape:
            raise RecipeError(
                f"{path.name}: {key} is {list(value.shape)} in the file and {list(want.shape)} in the network; "
                "the weights belong to a network of other widths or another number of classes."
            )
        if value.is_floating_point() != want.is_floating_point():
            raise RecipeError(f"{path.name}: {key} is {value.dtype} in the file and {want.dtype} in the network.")
        ready[key] = value.to(want.dtype)
    # Checked after the cast: a float32 value beyond float16's range turns infinite only there.
    broken = [key for key, value in ready.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise RecipeError(f"{path.name} holds NaN or infinity in {_listed(broken)}; take an earlier checkpoint.")
    model.load_state_dict(ready, strict=False)
    return model


def build(spec: str, weights: str | Path | None = None, *, seed: int | None = None) -> nn.Module:
    """Build the network that ``package.module:builder`` or a bare zoo name means, and fill it.

    Arguments follow in brackets: ``resnet56(num_classes=100)``; they are plain values. A class works as well as a
    function. ``seed`` draws the weights that it begins with, by default PyTorch's global generator.

    Raises: RecipeError for a module or builder that does not exist, a builder that fails or returns something
    other than a module, and weights that do not fit.

    >>> type(build("resnet20")).__name__
    'CifarResNet'
    """
    spec = builder_of(spec)
    with nullcontext() if seed is None else torch.random.fork_rng(devices=[]):
        if seed is not None:
            torch.manual_seed(derive(seed, "network"))
        model = call_named(spec, "builder", RecipeError)
    if not isinstance(model, nn.Module):
        raise RecipeError(f"{spec} returned {type(model).__name__}; a builder returns a torch.nn.Module.")
    if weights is not None:
        load_weights(model, weights)
    return model


def builder_of(spec: str) -> str:
    """Return ``package.module:builder`` for a bare zoo name, and others as they are; arguments stay.

    Raises: RecipeError for a name that the zoo has not.

    >>> builder_of("resnet20(num_classes=100)")
    'penjing.zoo.resnet:resnet20(num_classes=100)'
    """
    asked = Spec.read(spec, RecipeError)
    if ":" in asked.name:
        return str(asked)
    if asked.name not in zoo.BUILDERS:
        raise RecipeError(
            f"There is no network {asked.name!r} in the zoo.{did_you_mean(asked.name, zoo.BUILDERS)} "
            "Your own is written package.module:builder."
        )
    return str(replace(asked, name=f"{zoo.__name__}.{zoo.BUILDERS[asked.name]}:{asked.name}"))


def _read(path: Path) -> dict[str, Tensor]:
    """Return the file's named tensors, wrapper taken off."""
    if path.suffix not in SUFFIXES:
        raise RecipeError(f"{path} is not a weights file penjing reads: give one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise RecipeError(f"There is no weights file {path}.")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping):
        raise RecipeError(f"{path.name} holds {type(loaded).__name__}; penjing wants a dict of named tensors.")
    others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others:
        raise RecipeError(
            f"{path.name} holds more than tensors ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''}); "
            f"save model.state_dict(), alone or under the key {' or '.join(map(repr, WRAPPERS))}."
        )
    return {str(key): value for key, value in loaded.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        if zipfile.is_zipfile(path) or _head(path).startswith(b"\x80\x02"):
            raise RecipeError(
                f"{path.name} looks like a PyTorch file inside; rename it to {path.with_suffix('.pt').name}."
            ) from None
        raise RecipeError(f"{path.name} is not a sound .safetensors file: {reason(error)}") from error


def _head(path: Path) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as handle:
        return handle.read(16)


def _read_torch(path: Path) -> Any:
    # A .safetensors file begins with the length of its header in eight bytes, and the header with a brace.
    head = _head(path)
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        raise RecipeError(
            f"{path.name} looks like safetensors inside; rename it to {path.with_suffix('.safetensors').name}."
        )
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of what it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"Python objects ({found[1]})" if found else "more than plain tensors"
        raise RecipeError(
            f"{path.name} is refused because it holds {what}, and reading those can run code: "
            "save model.state_dict() as .safetensors and give that."
        ) from None
    except Exception as error:  # a damaged file fails in as many ways as the format has parts
        raise RecipeError(f"{path.name} is not a sound PyTorch file: {reason(error)}") from error


def _without_prefix(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off the ``module.`` that DataParallel writes, unless the network itself has it."""
    prefix = "module."
    if any(key.startswith(prefix) for key in own) or not all(key.startswith(prefix) for key in given):
        return given
    return {key.removeprefix(prefix): value for key, value in given.items()}


def _match_names(path: Path, model: nn.Module, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    orders = {f"{name}.index" for name, module in model.named_modules() if isinstance(module, Pick)}
    missing = [key for key in own if key not in given and not (key in orders or key.endswith("num_batches_tracked"))]
    unexpected = [key for key in given if key not in own]
    parts = []
    if missing:
        parts.append(f"lacks {_listed(missing)} of the network")
    if unexpected:
        parts.append(f"has {_listed(unexpected)} unknown to the network")
    if parts:
        raise RecipeError(
            f"{path.name} does not fit {type(model).__name__}: it {' and '.join(parts)}; "
            "use the builder these weights were trained with."
        )


def _listed(names: Iterable[str]) -> str:
    """Return the count and the first three names."""
    names = list(names)
    noun = "tensor" if len(names) == 1 else "tensors"
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {noun} ({shown})"
