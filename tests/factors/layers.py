"""Layers of every geometry, and what two of them compute."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn


@st.composite
def convolutions(draw: Any) -> nn.Conv2d:
    """Draw a convolution of any kernel, stride, padding, dilation, groups, padding mode and bias."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    size = st.integers(1, 3)
    pair = st.tuples(size, size)
    ins, outs = groups * draw(st.integers(2, 7)), groups * draw(st.integers(2, 7))
    same = draw(st.booleans()) and draw(st.booleans())
    stride = (1, 1) if same else draw(pair)
    padding = "same" if same else draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    mode = draw(st.sampled_from(["zeros", "zeros", "reflect", "circular"]))
    torch.manual_seed(draw(st.integers(0, 99)))
    return nn.Conv2d(ins, outs, draw(pair), stride, padding, draw(pair), groups, draw(st.booleans()), mode)


def apart(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Return the largest difference of what two modules compute, in float64, against the largest value."""
    with torch.no_grad():
        y, z = one.double()(x.double()), other.double()(x.double())
    assert y.shape == z.shape
    return float((y - z).abs().max() / y.abs().max().clamp_min(1e-12))


def error(one: nn.Module, other: nn.Module) -> float:
    """Return the squared difference of two layers' weights."""
    w: Any = one.weight
    v: Any = other.weight
    return float((w.detach().double() - v.detach().double()).square().sum())
