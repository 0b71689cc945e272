"""How closely a network follows another: what can be told where there are no classes to be right about."""

from __future__ import annotations

import torch
from torch import nn

from penjing.core.errors import TrainError
from penjing.core.modes import modes_kept
from penjing.core.outputs import answers
from penjing.data.splits import Split
from penjing.training.state import device_of


def distance(model: nn.Module, original: nn.Module, split: Split, *, batch: int = 64) -> float:
    """Return how far the outputs of ``model`` are from the original's: the root of ``Σ‖s - t‖² / Σ‖t‖²``.

    The largest over what ``answers`` finds in the outputs counts. Both run in evaluation mode; modes are restored.

    Units: %.
    Raises: TrainError for an empty split.
    """
    apart: list[float] = []
    whole: list[float] = []
    with modes_kept(model), modes_kept(original), torch.inference_mode():
        model.eval()
        original.eval()
        for x, _ in split.batches(batch):
            own, theirs = answers(model(x.to(device_of(model)))), answers(original(x.to(device_of(original))))
            pairs = [(s.double().cpu(), t.double().cpu()) for s, t in zip(own, theirs, strict=True)]
            apart, whole = apart or [0.0] * len(pairs), whole or [0.0] * len(pairs)
            for i, (s, t) in enumerate(pairs):
                apart[i] += float((s - t).square().sum())
                whole[i] += float(t.square().sum())
    if not apart:
        raise TrainError("There is nothing to compare on: the split has 0 samples.")
    return 100 * max(float((a / max(w, 1e-30)) ** 0.5) for a, w in zip(apart, whole, strict=True))
