"""Networks that run from their packed weights, in C: signs by XOR, few numbers by look-up, few weights one by one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core.errors import PenjingError, PlanError
from penjing.graph.blocks import take_out
from penjing.graph.chains import put_in
from penjing.graph.norms_behind import factors, norms_behind
from penjing.graph.quantized import QuantConv2d, Quantized, beside
from penjing.graph.trace import trace
from penjing.kernels import build, codebook
from penjing.kernels.codebook import CodebookConv2d, CodebookLinear
from penjing.kernels.packed import PackedConv2d
from penjing.kernels.sparse import SparseConv2d
from penjing.kernels.xnor import XnorConv2d, XnorLinear
from penjing.packing.levels import Levels
from penjing.quantizers.base import Reads

SPARSE = 0.7
"""The share of zeros from which on a sparse convolution is the faster one (``benchmarks/kernels.py``)."""

LEAST = 64
"""Weights of a filter below which there is nothing to gain."""

LONG, MANY = 512, 2**18
"""Numbers of a filter, and of all, from which a convolution by look-up pays."""


class Scaled(nn.Module):
    """A layer of signs whose outputs are multiplied by what is seen of its inputs before they are rounded.

    Shapes: those of the layer.
    """

    def __init__(self, layer: XnorConv2d, like: Quantized) -> None:
        super().__init__()
        self.layer, self.reads, self.like = layer, like.reads, [like]  # of which the sizes alone are wanted
        self.threshold, self.bias = like.threshold, like.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes."""
        y: Tensor = self.layer(x)
        seen = x if self.threshold is None else x - beside(self.threshold, x)
        assert self.reads is not None
        gain = self.reads.gain(seen, self.like[0])
        y = y if gain is None else y * gain
        y = y if self.bias is None else y + beside(self.bias, y)
        return y


def run_packed(model: nn.Module, inputs: Sequence[Sequence[int]] = ()) -> nn.Module:
    """Let the layers of a loaded network that have a kernel run from their packed weights, in place; return it.

    These are layers whose weights and inputs are signs; linear layers whose inputs are not rounded, and whose weights
    are one of at most 16 numbers each; convolutions of that kind where it is no slower (``_pays``); and convolutions of
    which at least ``SPARSE`` is zero. The others compute with the numbers that their codes stand for: tables of more
    numbers, and all without a C compiler. Where the shapes of one sample's ``inputs`` are known, a layer with a kernel
    takes in the batch norm behind it.
    Nothing of it is trained then: no gradient would come through, and what lies before would learn nothing.
    """
    packed = {}
    for name, layer in list(model.named_modules()):
        made = _made(layer)
        if made is not None:
            packed[name] = made.train(layer.training)
    norms = _norms(model, inputs) if packed else {}
    for name, layer in packed.items():
        if name in norms and isinstance(layer, PackedConv2d):
            layer.take_in(*factors(model.get_submodule(norms[name])))
            take_out(model, [norms[name]])
        put_in(model, name, layer)
    if packed:
        model.requires_grad_(False)
    return model


def refuse_packed(model: nn.Module) -> None:
    """Refuse a network that runs from packed weights where it must be traced or trained.

    Raises: PlanError naming the first of the layers.
    """
    name = next((name for name, one in model.named_modules() if isinstance(one, PackedConv2d)), None)
    if name is not None:
        raise PlanError(
            f"{name} runs from its packed weights, which can be run and nothing else; to train, export or look at this "
            "network, load it with packed=False."
        )


def _made(layer: nn.Module) -> nn.Module | None:
    """Return the packed form of a layer; None of one that has none."""
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return None
    if not isinstance(layer, Quantized):
        return _sparse(layer)
    levels = layer.weights.levels(layer.weight)
    if not isinstance(levels, Levels):
        return None
    return _few(layer, levels) if layer.reads is None else _signs(layer, levels)


def _norms(model: nn.Module, inputs: Sequence[Sequence[int]]) -> dict[str, str]:
    """Return the batch norms behind layers; none where the network cannot be traced."""
    if not inputs:
        return {}
    try:
        return norms_behind(model, trace(model, tuple(torch.randn(2, *shape) for shape in inputs), proof=False))
    except PenjingError:
        return {}


def _sparse(layer: nn.Module) -> nn.Module | None:
    """Return the sparse form of a convolution that has few weights; None of any other."""
    if type(layer) is not nn.Conv2d or layer.weight.dtype != torch.float32:
        return None
    if layer.weight[0].numel() < LEAST or float((layer.weight == 0).float().mean()) < SPARSE:
        return None
    return SparseConv2d(layer.weight, layer.bias, **_window(layer))


def _few(layer: Quantized, levels: Levels) -> nn.Module | None:
    """Return the packed form of a layer of few numbers; None of any other."""
    if levels.width != 1 or len(levels.table) > codebook.LEVELS:
        return None
    if build.load("codebook", codebook.DECLARATIONS) is None:  # to look up in PyTorch on each run would take longer
        return None
    codes, table, scale = levels.codes.view(levels.shape), levels.table.flatten(), levels.scale.detach()
    scale = scale.reshape(-1) if scale.numel() == levels.shape[0] else scale.reshape(())
    bias = None if layer.bias is None else layer.bias.detach()
    if isinstance(layer, QuantConv2d):
        return (
            CodebookConv2d(codes, table, scale, bias, **_window(layer)) if _pays(levels.shape, layer.groups) else None
        )
    return CodebookLinear(codes, table, scale, bias)


def _pays(shape: tuple[int, ...], groups: int) -> bool:
    """Tell whether a convolution by look-up is no slower than torch's on one picture.

    ``benchmarks/kernels.py`` has the measurement, rows ``codebook-conv``. Where one register holds all 16 numbers, the
    two take as long for an output. What counts is the rest: torch lays out all its weights anew on every run, which
    costs most in large layers of few pixels; by look-up inputs are laid out, which costs most where filters are short
    or channels fill no register. In batches that matters less. Without such registers torch is mostly the faster one.
    """
    library = build.load("codebook", codebook.DECLARATIONS)
    wide = library is not None and library.path() == build.PATHS.index("avx512")
    numbers, ins = prod(shape), shape[1]
    return wide and groups == 1 and ins % codebook.LANES == 0 and numbers // shape[0] >= LONG and numbers >= MANY


def _window(layer: nn.Conv2d) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}


def _signs(layer: Quantized, levels: Levels) -> nn.Module | None:
    """Return the packed form of a layer of signs; None of any other."""
    reads = layer.reads
    if levels.bits != 1 or reads is None or reads.bits != 1:
        return None
    if not layer.precision.quantizer.signed or levels.table.tolist() != [-1.0, 1.0]:
        return None
    signs, gains = levels.codes.view(levels.shape).bool(), type(reads).gain is not Reads.gain
    held = {"scale": levels.scale, "bias": None if gains else layer.bias, "threshold": layer.threshold}
    given: dict[str, Any] = {key: None if value is None else value.detach() for key, value in held.items()}
    if isinstance(layer, QuantConv2d):
        made: XnorConv2d = XnorConv2d(signs, **given, **_window(layer))
    else:
        made = XnorLinear(signs, **given)
    return Scaled(made, layer) if gains else made
