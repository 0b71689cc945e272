"""Let collaborative maps foretell, before any training, where their convolutions have something to say."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.modes import modes_kept
from penjing.core.padding import sides
from penjing.core.random import torch_stream
from penjing.graph.collaborative import Collaborative, collaborators
from penjing.training.least_squares import Moments, damped

PLACES = 128
"""Positions of each picture that are looked at."""

RIDGE = 0.01


@torch.no_grad()
def foretell(model: nn.Module, names: Collection[str], batches: Iterable[Tensor], seed: int) -> None:
    """Fit, in place, the filters of the maps of these layers in least squares to what the ReLU behind will return.

    A shared filter is fitted to its mean over all channels, a pointwise one channel by channel; the statistics of the
    map's batch norm become those of what it then reads. The map itself does not change while that norm's scale is 0.
    """
    layers = {name: layer for name, layer in collaborators(model).items() if name in names}
    moments = {name: Moments() for name in layers}
    places = torch_stream(seed, "foretell")
    hooks = [layer.register_forward_hook(partial(_add, moments[name], places)) for name, layer in layers.items()]
    try:
        with modes_kept(model):
            model.eval()
            for x in batches:
                model(x)
    finally:
        for hook in hooks:
            hook.remove()
    for name, layer in layers.items():
        _fit(layer, moments[name])


def _add(moments: Moments, places: torch.Generator, layer: Collaborative, args: tuple[Any, ...], made: Tensor) -> None:
    """Take in what a layer reads and makes at some positions."""
    cheap = layer.map.conv
    padded = F.pad(args[0], sides(cheap.padding, cheap.kernel_size, cheap.dilation))
    read = F.unfold(padded, cheap.kernel_size, cheap.dilation, stride=cheap.stride).mT
    wanted = F.relu(made).flatten(2).mT
    picks = torch.randperm(read.shape[1], generator=places)[:PLACES].to(read.device)
    wanted = wanted if cheap.out_channels > 1 else wanted.mean(2, keepdim=True)
    moments.add(read[:, picks].flatten(0, 1)[None], wanted[:, picks].flatten(0, 1)[None])


def _fit(layer: Collaborative, moments: Moments) -> None:
    cheap, norm = layer.map.conv, layer.map.norm
    covariance, cross = moments.covariances()
    weight = torch.linalg.solve(damped(covariance, RIDGE), cross)[0]
    # Batch norm makes scale no matter, but the steps that a filter takes grow as it shrinks: He's size.
    weight = weight * (math.sqrt(2) / weight.norm(dim=0).clamp(min=1e-12))
    mean, _ = moments.means()
    cheap.weight.copy_(weight.mT.reshape(cheap.weight.shape))
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(mean[0] @ weight)
    norm.running_var.copy_((weight * (covariance[0] @ weight)).sum(0).clamp(min=0))
