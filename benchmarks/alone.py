"""Layers by themselves, priced on a target: a draft of nothing but layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import nn

from penjing.core.layers import Layer, Traffic

NONE = np.arange(0)


@dataclass(frozen=True)
class Alone:
    """A draft whose cost is that of its layers."""

    layers: Sequence[Layer]
    passes: Sequence[Traffic] = ()
    parameters: int = 0
    nonzero: int = 0
    buffers: int = 0
    peak_elements: int = 0
    example: Any = ((), MappingProxyType({}))

    def model(self) -> nn.Module:
        """Say that there is none."""
        raise NotImplementedError("Layers alone make no model.")


def square(name: str, ins: int, outs: int, groups: int, kernel: int, stride: int, out: int) -> Layer:
    """Return a convolution of square pictures, padding being part of its input."""
    size = (out - 1) * stride + kernel
    return Layer(
        name, "conv", f"{name}.weight", None, NONE, NONE, ins, outs, groups, (kernel,) * 2, (stride,) * 2, (0, 0),
        (1, 1), False, (size, size), (out, out),
    )  # fmt: skip
