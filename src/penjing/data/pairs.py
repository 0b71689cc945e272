"""A user's batches, checked: pictures with a class each, with masks, or alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from penjing.core.errors import DataError, PenjingError, reason

Batches = Iterator[tuple[Tensor, Tensor | None]]


def pairs(loader: Iterable[Any], source: str) -> Batches:
    """Yield a user's batches, checked; whatever their code raises becomes one sentence with its cause attached."""
    try:
        for item in loader:
            yield _pair(item, source)
    except PenjingError:
        raise
    except Exception as error:
        raise DataError(f"{source} failed while it was read with {reason(error)}") from error


def _pair(item: Any, source: str) -> tuple[Tensor, Tensor | None]:
    """Return a user's batch as float32 pictures and int64 labels, None where there are none."""
    parts = [item] if isinstance(item, Tensor) else item
    if not isinstance(parts, list | tuple) or len(parts) not in (1, 2):
        count = f" of {len(parts)}" if isinstance(parts, list | tuple) else ""
        raise DataError(f"{source} gives {type(item).__name__}{count}; penjing wants pairs (x, y), or x alone.")
    x = parts[0]
    if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
        found = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise DataError(f"{source} gives pictures as {found}; penjing wants float tensors [n, c, h, w], normalised.")
    x = x.detach().to("cpu", torch.float32)
    # One sum tells it nearly always; only where it is not finite every pixel is looked at.
    if not bool(x.sum().isfinite()) and not bool((finite := x.isfinite().flatten(1).all(1)).all()):
        broken = int((~finite).sum())
        raise DataError(
            f"{source} gives NaN or infinity in {broken} of {len(x)} pictures of a batch; look for broken files and "
            "for a deviation of 0 in the normalisation."
        )
    return x, _labels(parts[1], x, source) if len(parts) == 2 else None


def _labels(given: Any, x: Tensor, source: str) -> Tensor:
    """Return the labels as int64: a class a picture, or a mask of classes."""
    y = torch.as_tensor(given, device="cpu")
    whole = not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or y.shape[:1] != x.shape[:1] or y.ndim not in (1, 3):
        n = len(x)
        raise DataError(
            f"{source} gives labels as {y.dtype} {list(y.shape)}; {n} pictures need integers [{n}], or masks of "
            f"integers [{n}, h, w]. Of other labels give the pictures alone: the cut network then learns from the "
            "original."
        )
    return y.to(torch.int64)


def labels_of(pair: tuple[Tensor, Tensor | None]) -> npt.NDArray[np.int64]:
    """Return the classes of a batch; nothing where its pictures have none, or masks."""
    y = pair[1]
    return np.empty(0, np.int64) if y is None or y.ndim != 1 else y.numpy()
