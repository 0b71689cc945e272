"""Refresh the running statistics of batch norm after the weights before it changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from penjing.core.errors import TrainError
from penjing.core.modes import modes_kept
from penjing.core.outputs import input_of
from penjing.training.state import Snapshot, device_of


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norm layers that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.running_mean is not None]


def recalibrate(model: nn.Module, batches: Iterable[Any]) -> None:
    """Replace the running mean and variance of every batch norm by their plain averages over ``batches``.

    Labels are not needed: of a batch that is a tuple or dict the first tensor is the input. Every batch weighs the
    same, so give batches of one size; a batch of one sample has no variance and is passed over. Only batch norm
    layers run in training mode (dropout stays off); modes and momenta are restored, and when a batch fails the
    statistics too. Without batch norm nothing is run.

    Raises: TrainError when there is no batch of two samples or more.
    """
    norms = batch_norms(model)
    if not norms:
        return
    device, seen = device_of(model), 0
    momenta = [norm.momentum for norm in norms]
    before = Snapshot([buffer for norm in norms for buffer in norm.buffers(recurse=False)])
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # PyTorch's word for the cumulative average
                norm.training = True
            for batch in batches:
                x = input_of(batch)
                if len(x) > 1:
                    model(x.to(device))
                    seen += 1
        if not seen:
            raise TrainError(
                f"Recalibrating {len(norms)} batch norm layers needs at least one batch of two samples; got none."
            )
    except BaseException:
        before.restore()
        raise
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
