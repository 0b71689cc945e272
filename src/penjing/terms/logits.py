"""The logits of a model and its teacher, one row a sample."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from penjing.core.errors import TrainError
from penjing.core.outputs import first_tensor


def both(term: str, outputs: Any, answer: Any) -> tuple[Tensor, Tensor]:
    """Return the logits in what the model and in what the teacher returned, in float64.

    Doubles, because T² multiplies the rounding error: at T = 100 floats keep three digits.

    Shapes: [n, classes] or [n, classes, ...] each, the same for both.
    Raises: TrainError, naming the term, where they differ or are none.
    """
    own, theirs = first_tensor(outputs).double(), first_tensor(answer).double()
    if own.shape != theirs.shape:
        raise TrainError(
            f"{term}: the teacher returns {list(theirs.shape)} and the model {list(own.shape)}; "
            "both need the same classes."
        )
    return own, theirs


def rows(logits: Tensor) -> Tensor:
    """Return logits with every place a sample of its own: [n, classes, ...] → [n * places, classes].

    >>> import torch
    >>> rows(torch.arange(4).view(1, 2, 1, 2))
    tensor([[0, 2],
            [1, 3]])
    """
    return logits.movedim(1, -1).flatten(0, -2)
