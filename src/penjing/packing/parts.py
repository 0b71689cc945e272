"""A stored weight: plain facts and named tensors; and how what comes from a file is taken from them with care."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penjing.core.errors import BundleError


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight as it is stored: ``facts`` are plain JSON, ``tensors`` uint8 or float32, by name, on the CPU."""

    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def bytes(self) -> int:
        """The bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def only(found: Any, known: set[str], what: str) -> None:
    """Refuse a mapping whose keys are not the known ones.

    Raises: BundleError naming those that are missing or too many.
    """
    if not isinstance(found, Mapping) or found.keys() != known:
        keys = sorted(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise BundleError(f"its {what} are {keys}, not {sorted(known)}.")


def whole(facts: Mapping[str, Any], key: str, least: int, most: int) -> int:
    """Return a whole number of the facts.

    Raises: BundleError when it is none, or out of bounds.
    """
    number = facts[key]
    if type(number) is not int or not least <= number <= most:
        raise BundleError(f"{key!r} is a whole number from {least} to {most}; got {str(number)[:40]}.")
    return number


def raw(tensors: Mapping[str, Tensor], name: str) -> NDArray[np.uint8]:
    """Return a tensor of bytes.

    Raises: BundleError when it is none.
    """
    return _of(tensors, name, torch.uint8, (1,)).numpy()


def floats(tensors: Mapping[str, Tensor], name: str, dims: tuple[int, ...]) -> Tensor:
    """Return a float32 tensor of so many dimensions.

    Raises: BundleError when it is none, or holds NaN or infinity.
    """
    tensor = _of(tensors, name, torch.float32, dims)
    if not torch.isfinite(tensor).all():
        raise BundleError(f"tensor {name!r} holds NaN or infinity.")
    return tensor


def _of(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, dims: tuple[int, ...]) -> Tensor:
    tensor = tensors[name]
    if not isinstance(tensor, Tensor) or tensor.dtype != dtype or tensor.ndim not in dims:
        is_there = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise BundleError(f"tensor {name!r} is {is_there}, not {dtype} of {' or '.join(map(str, dims))} dimensions.")
    return tensor.detach().cpu().contiguous()
