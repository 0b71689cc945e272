"""Layers and drafts made by hand."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from penjing.core.layers import Layer


def conv(ins: int, outs: int, kernel: int = 3, size: int = 8, stride: int = 1, groups: int = 1, **more: Any) -> Layer:
    """Return a square convolution that keeps the size, but for its stride."""
    return layer(
        ins, outs, kernel=(kernel, kernel), stride=(stride, stride), padding=(kernel // 2,) * 2, dilation=(1, 1),
        in_size=(size, size), out_size=((size - 1) // stride + 1,) * 2, groups=groups, **more,
    )  # fmt: skip


def linear(ins: int, outs: int) -> Layer:
    """Return a linear layer."""
    return layer(ins, outs, kind="linear")


def layer(ins: int, outs: int, **more: Any) -> Layer:
    facts: dict[str, Any] = {
        "name": "layer", "kind": "conv", "weight": "layer.weight", "bias": None,
        "in_units": np.full(ins, -1), "out_units": np.full(outs, -1), "in_channels": ins, "out_channels": outs,
        "groups": 1, "kernel": (), "stride": (), "padding": (), "dilation": (), "transposed": False, "in_size": (),
        "out_size": (),
    }  # fmt: skip
    return Layer(**{**facts, **more})


@dataclass
class FakeDraft:
    """A draft with whatever numbers a test wants."""

    layers: tuple[Layer, ...] = ()
    parameters: int = 0
    nonzero: int = 0
    buffers: int = 0
    peak_elements: int = 0
    passes: tuple[Any, ...] = ()
    example: tuple[tuple[Any, ...], dict[str, Any]] = field(default_factory=lambda: ((), {}))
    net: nn.Module | None = None

    def model(self) -> nn.Module:
        assert self.net is not None
        return self.net
