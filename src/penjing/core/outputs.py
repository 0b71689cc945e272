"""What a model returns may be a tensor or a nest of tensors; the logits are the first one in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penjing.core.errors import TrainError

if TYPE_CHECKING:
    from torch import Tensor


def first_tensor(outputs: Any) -> Tensor:
    """Return the first tensor in a model's outputs: the tensor itself, or depth first in tuples, lists and dicts.

    Raises: TrainError when there is none.

    >>> import torch
    >>> first_tensor({"hidden": None, "heads": (torch.tensor(7), torch.tensor(8))})
    tensor(7)
    """
    for tensor in _tensors(outputs):
        return tensor
    raise TrainError(f"The model returned {type(outputs).__name__} without a tensor in it; return the logits first.")


def _tensors(outputs: Any) -> Iterator[Tensor]:
    from torch import Tensor

    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str | bytes):
        for value in outputs:
            yield from _tensors(value)
