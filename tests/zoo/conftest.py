from collections.abc import Callable

import pytest
import torch
from torch import nn


def _macs(model: nn.Module, x: torch.Tensor) -> int:
    """Count multiply-accumulates the slow way: one hook on every convolution and linear layer."""
    total = 0

    def hook(layer: nn.Module, _: object, y: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            kh, kw = layer.kernel_size
            total += y.shape[1] * y.shape[2] * y.shape[3] * (layer.in_channels // layer.groups) * kh * kw
        elif isinstance(layer, nn.Linear):
            total += layer.in_features * layer.out_features

    handles = [layer.register_forward_hook(hook) for layer in model.modules()]
    model.eval()
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return total


@pytest.fixture
def macs() -> Callable[[nn.Module, torch.Tensor], int]:
    return _macs
