"""What evidence judges a network's outputs by: all its logits as they are, or their cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core.errors import PlanError
from penjing.core.outputs import answers, first_tensor


def logits_of(outputs: object, samples: int, like: object = None) -> Tensor:
    """Return all numbers that count of each sample: [samples, numbers], float32.

    Of several answers, the levels of a pyramid, each is taken relative to its size, or to that in ``like``.

    Raises: PlanError for outputs without classes.
    """
    found = answers(outputs)
    if len(found) == 1:
        return _sound(found[0].float()).reshape(samples, -1)
    sizes = [t.detach().norm() for t in (found if like is None else answers(like))]
    return torch.cat([(t.float() / size).reshape(samples, -1) for t, size in zip(found, sizes, strict=True)], 1)


def loss_of(outputs: object, y: Tensor | None, *, reduction: str = "sum") -> Tensor:
    """Return the cross-entropy with the labels, or with the model's own predictions where there are none.

    Raises: PlanError for outputs without classes, or labels that do not fit.
    """
    logits = _sound(first_tensor(outputs).float())
    target = logits.detach().argmax(1) if y is None else y
    try:
        return F.cross_entropy(logits, target, reduction=reduction)
    except (RuntimeError, ValueError, IndexError) as error:
        raise PlanError(
            f"Labels {list(target.shape)} of {target.dtype} do not fit outputs {list(logits.shape)} ({error}); "
            "leave the labels out to use the model's own predictions."
        ) from None


def _sound(logits: Tensor) -> Tensor:
    if logits.dim() < 2:
        raise PlanError(
            f"Gradients need logits [samples, classes], but the model returns {list(logits.shape)}; "
            "use a criterion that reads activations or weights, such as hrank or l1."
        )
    return logits
