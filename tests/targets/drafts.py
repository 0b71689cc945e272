"""Layers and drafts without a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penjing.core.layers import Layer, Traffic


def conv(
    name: str = "conv",
    ins: int = 16,
    outs: int = 32,
    out: int = 8,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    density: float = 1.0,
) -> Layer:
    """A convolution whose input has no padding."""
    none, size = np.full(0, -1), (out - 1) * stride + kernel
    return Layer(
        name, "conv", f"{name}.weight", None, none, none, ins, outs, groups, (kernel,) * 2, (stride,) * 2, (0, 0),
        (1, 1), False, (size, size), (out, out), density=density,
    )  # fmt: skip


def linear(ins: int = 64, outs: int = 10) -> Layer:
    return replace(conv("head", ins, outs), kind="linear", kernel=(), stride=(), dilation=(), in_size=(), out_size=())


@dataclass(frozen=True)
class Fake:
    """A draft of these layers and passes."""

    layers: tuple[Layer, ...] = ()
    passes: tuple[Traffic, ...] = ()
    parameters: int = 1000
    nonzero: int = 1000
    buffers: int = 0
    peak_elements: int = 500
    example: Any = ((), {})

    def model(self) -> Any:
        raise AssertionError("an estimate builds no network")
