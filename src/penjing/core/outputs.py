"""What a model returns may be a tensor or a nest of tensors; which of them are the logits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from penjing.core.errors import TrainError

if TYPE_CHECKING:
    from torch import Tensor

KEYS = ("logits", "out", "output", "pred")
"""What networks call their logits, the surest name first."""


def first_tensor(outputs: Any) -> Tensor:
    """Return the logits in a model's outputs.

    That is the tensor itself, the first one in a tuple or list, and in whatever has names (a dict, a named tuple, a
    data class, an object with attributes) what is called ``logits``, ``out``, ``output`` or ``pred``, or the one entry
    that holds tensors.

    Raises: TrainError when there is none; or several with names, and no name tells which.

    >>> import torch
    >>> first_tensor({"hidden": torch.tensor(6), "logits": (torch.tensor(7), torch.tensor(8))})
    tensor(7)
    """
    found = _logits(outputs)
    if found is None:
        raise TrainError(
            f"The model returned {type(outputs).__name__} without a tensor in it; return the logits first."
        )
    return found


def answers(outputs: Any) -> list[Tensor]:
    """Return what a network answers: its logits, or all tensors where none is named and the first one is a map.

    So a detector's backbone answers with every level of its pyramid, and a network with auxiliary heads with its logits
    alone.

    Raises: TrainError when there is none.

    >>> import torch
    >>> [list(map.shape) for map in answers({"0": torch.ones(2, 8, 4, 4), "1": torch.ones(2, 8, 2, 2)})]
    [[2, 8, 4, 4], [2, 8, 2, 2]]
    """
    named = _named(outputs)
    found = [tensor for tensor in tensors_in(outputs) if tensor.is_floating_point()]
    if any(key in named for key in KEYS) or len(found) < 2 or found[0].ndim < 3:
        return [first_tensor(outputs)]
    return found


def input_of(batch: Any) -> Tensor:
    """Return the pictures of a batch: the first tensor, depth first in tuples, lists and dicts.

    Raises: TrainError when there is none.

    >>> import torch
    >>> input_of({"image": torch.tensor(7), "label": torch.tensor(8)})
    tensor(7)
    """
    for tensor in tensors_in(batch):
        return tensor
    raise TrainError(f"A batch is {type(batch).__name__} without a tensor in it; give (x, y) or x.")


def tensors_in(outputs: Any) -> Iterator[Tensor]:
    """Yield every tensor, depth first in the order of tuples, lists and whatever has names."""
    from torch import Tensor

    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Sequence) and not isinstance(outputs, str | bytes):
        for value in outputs:
            yield from tensors_in(value)
    else:
        for value in _named(outputs).values():
            yield from tensors_in(value)


def _logits(outputs: Any) -> Tensor | None:
    from torch import Tensor

    if isinstance(outputs, Tensor):
        return outputs
    entries = _named(outputs)
    if not entries and isinstance(outputs, Sequence) and not isinstance(outputs, str | bytes):
        return next((tensor for value in outputs if (tensor := _logits(value)) is not None), None)
    for key in KEYS:
        if key in entries and (tensor := _logits(entries[key])) is not None:
            return tensor
    # A named tuple is a tuple still: its author put something first.
    if isinstance(outputs, tuple):
        return next((tensor for value in outputs if (tensor := _logits(value)) is not None), None)
    holding = [key for key, value in entries.items() if next(tensors_in(value), None) is not None]
    if len(holding) > 1:
        raise TrainError(
            f"The model returned {type(outputs).__name__} with several tensors ({', '.join(map(repr, holding))}), and "
            f"no name tells which are the logits; call them 'logits', or return them alone."
        )
    return _logits(entries[holding[0]]) if holding else None


def _named(outputs: Any) -> Mapping[Any, Any]:
    """Return the entries of whatever has names, nothing where it has none."""
    if isinstance(outputs, Mapping):
        return outputs
    if isinstance(outputs, tuple):
        return outputs._asdict() if hasattr(outputs, "_asdict") else {}
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, type):
        return {field.name: getattr(outputs, field.name, None) for field in dataclasses.fields(outputs)}
    known = {key: getattr(outputs, key) for key in KEYS if hasattr(outputs, key)}
    return known or getattr(outputs, "__dict__", {})
