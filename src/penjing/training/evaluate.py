"""Top-1 accuracy and loss of a classifier, and whether it says more than guessing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.modes import modes_kept
from penjing.core.outputs import first_tensor
from penjing.training.state import device_of

if TYPE_CHECKING:
    from penjing.data.splits import Split

__all__ = ["Metrics", "class_scores", "evaluate", "first_tensor", "near_chance"]

SIGMAS = 3
"""How far above a guess's mean an accuracy must be to count as more than a guess."""


@dataclass(frozen=True)
class Metrics:
    """How well a classifier did: ``correct`` of ``count`` samples, and the mean cross-entropy ``loss`` in nats."""

    correct: int
    count: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in %."""
        return 100 * self.correct / self.count

    @property
    def error(self) -> float:
        """Top-1 error in %."""
        return 100 * (self.count - self.correct) / self.count


def evaluate(model: nn.Module, split: Split, *, batch: int = 256) -> Metrics:
    """Measure a classifier on a labelled split, in evaluation mode, on the model's device and in its own precision.

    Modes are restored. Of a model that returns several tensors, those that ``first_tensor`` takes for the logits count.

    Raises: TrainError for an empty or unlabelled split, or outputs that are not [samples, classes].
    """
    if len(split) == 0:
        raise TrainError("There is nothing to evaluate on: the split has 0 samples.")
    device, classes, count = device_of(model), class_count(split), 0
    loss = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    with modes_kept(model), torch.inference_mode():
        model.eval()
        for x, y in split.batches(batch):
            if y is None or y.ndim != 1:
                raise TrainError("This split has no labels, a class a picture; accuracy needs a labelled one.")
            labels = y.to(device)
            scores = class_scores(model(x.to(device)), len(labels), classes).float()
            loss += F.cross_entropy(scores, labels, reduction="sum")
            correct += (scores.argmax(1) == labels).sum()
            count += len(labels)
    return Metrics(int(correct), count, float(loss) / count)


def near_chance(metrics: Metrics, classes: int) -> bool:
    """Tell whether so many right answers are no more than guessing among ``classes`` would give, within three sigma.

    >>> near_chance(Metrics(27, 200, 2.3), classes=10), near_chance(Metrics(60, 200, 2.0), classes=10)
    (True, False)
    """
    if classes < 2:
        return False
    share = 1 / classes
    return metrics.correct <= metrics.count * share + SIGMAS * math.sqrt(metrics.count * share * (1 - share))


def class_count(split: Split) -> int:
    """Return the number of classes the labels of a split need, 0 without labels."""
    return int(split.labels.max()) + 1 if len(split.labels) else 0


def class_scores(outputs: Any, samples: int, classes: int) -> Tensor:
    """Return the logits in a model's outputs, ``[samples, at least classes]``.

    Raises: TrainError when they have another shape.
    """
    scores = first_tensor(outputs)
    if scores.ndim != 2 or len(scores) != samples:
        raise TrainError(
            f"The model's output has the shape {list(scores.shape)}; {samples} samples of {classes} classes need "
            f"[{samples}, {classes}]. Return the logits first, one row a sample."
        )
    if scores.shape[1] < classes:
        raise TrainError(
            f"The model has {scores.shape[1]} outputs and the labels go up to {classes - 1}; "
            f"build it with {classes} classes."
        )
    return scores
