"""Run a model as it will be shipped, and leave it as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from penjing.core.modes import modes_kept


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode without gradients; every module gets its own mode back."""
    with modes_kept(model), torch.no_grad():
        model.eval()
        yield
