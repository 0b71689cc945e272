"""Chains of linear layers: made from factors, priced, and contracted back into one layer."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.factors.layer import Basis, LayerSpec, Pick, Shift, read

LAST = ("last", "pointwise", "filters", "join")
"""The names of the stages that write what the layer wrote."""


@dataclass(frozen=True)
class Cost:
    """What a chain costs for one sample; ``sizes`` are what each stage writes, [channels, height, width].

    Units: parameters, MACs, values.
    """

    params: int
    macs: int
    sizes: tuple[tuple[int, ...], ...]

    @property
    def per_position(self) -> float:
        """The MACs of one position of the last stage's output."""
        return self.macs / max(1, math.prod(self.sizes[-1][1:]))

    @property
    def between(self) -> int:
        """The values written between the stages, which the layer itself did not write."""
        return sum(math.prod(size) for size in self.sizes[:-1])


def price(stages: Sequence[LayerSpec], size: Sequence[int]) -> Cost:
    """Return what a chain costs on an input of this height and width.

    Raises: PlanError for an input too small for the kernel.
    """
    macs, sizes = 0, []
    for stage in stages:
        macs += stage.macs(size)
        size = stage.out_size(size)
        if min(size, default=1) < 1:
            raise PlanError(f"{stage} gets an input smaller than its kernel; give the height and width that it reads.")
        sizes.append((stage.out_channels, *size))
    return Cost(sum(stage.params for stage in stages), macs, tuple(sizes))


def empty(spec: LayerSpec, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return an ordinary layer of this shape on the meta device, without numbers."""
    mode: Any = spec.padding_mode
    if spec.kind == "pick":
        return Pick(torch.empty(spec.out_channels, dtype=torch.int64, device="meta"), spec.in_channels)
    if spec.kind == "shift":
        raise PlanError(f"{spec} is no shape alone: a shift needs its counts of channels by tap.")
    if spec.kind == "linear":
        return nn.Linear(spec.in_channels, spec.out_channels, spec.bias, device="meta", dtype=dtype)
    return nn.Conv2d(
        spec.in_channels, spec.out_channels, spec.kernel, spec.stride, spec.padding, spec.dilation, spec.groups,
        spec.bias, mode, device="meta", dtype=dtype,
    )  # fmt: skip


def layer(spec: LayerSpec, weight: Tensor, bias: Tensor | None, like: nn.Module) -> nn.Module:
    """Return an ordinary layer with these values, of ``like``'s precision and on its device; draws no random number."""
    if spec.kind == "pick":
        return Pick(weight.to(like.weight.device), spec.in_channels).train(like.training)  # type: ignore[arg-type]
    if spec.kind == "shift":
        return shifted(spec, weight.tolist()).train(like.training)
    made: Any = empty(replace(spec, bias=bias is not None))
    old: Any = like.weight
    made.weight = nn.Parameter(_as(weight.reshape(made.weight.shape), old), old.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(_as(bias, old), old.requires_grad)
    trained: nn.Module = made.train(like.training)
    return trained


def shifted(spec: LayerSpec, counts: Sequence[int]) -> Shift:
    """Return the shift of a shape that moves so many channels by each tap.

    Raises: PlanError for counts of another number of taps.
    """
    return Shift(counts, spec.kernel, spec.stride, spec.padding, spec.dilation, spec.padding_mode)


def _as(new: Tensor, old: Tensor) -> Tensor:
    return new.to(old.device, old.dtype).clone(memory_format=torch.contiguous_format)


def build(stages: Mapping[str, LayerSpec], weights: Mapping[str, Tensor], like: nn.Module) -> nn.Sequential:
    """Return the named stages; the bias of ``like`` goes to the last that has weights, in its order of channels."""
    bias: Tensor | None = getattr(like, "bias", None)
    made: dict[str, nn.Module] = {}
    for name in reversed(list(stages)):
        stage = stages[name]
        if stage.moves:
            if bias is not None:  # the stages before write the channels in another order
                bias = torch.empty_like(bias).index_copy(0, weights[name].to(bias.device), bias.detach())
            made[name] = layer(stage, weights[name], None, like)
        else:
            made[name] = layer(stage, weights[name], None if bias is None else bias.detach(), like)
            bias = None
    return nn.Sequential(OrderedDict((name, made[name]) for name in stages))


def merge(chain: nn.Sequential, name: str = "") -> nn.Module:
    """Return the one layer that computes what a chain of linear stages does.

    A basis counts as the convolution that holds its filters, a shift as a depthwise one. On each axis one stage alone
    may have a kernel. A bias before the last stage is carried through where no padding follows it.

    Raises: PlanError naming the stage that no single layer can hold.
    """
    stages = [square(stage, name) if isinstance(stage, Basis) else stage for stage in chain]
    specs = [read(stage, f"{name}.{key}" if name else key) for key, stage in chain.named_children()]
    weighty = [stage for stage, spec in zip(stages, specs, strict=True) if not spec.moves]
    if not weighty:
        raise PlanError(f"{name or 'The chain'} has no stage with weights; there is nothing to merge.")
    merged = product(specs, name or "The chain")
    dense, bias = contract([numbers(stage) for stage in stages], specs)
    if merged.groups > 1:
        g = merged.groups
        blocks = dense.reshape(g, dense.shape[0] // g, g, dense.shape[1] // g, *dense.shape[2:])
        dense = torch.cat([blocks[i, :, i] for i in range(g)])
    return layer(merged, dense, bias, weighty[-1])


def product(specs: Sequence[LayerSpec], what: str = "The chain") -> LayerSpec:
    """Return the shape of the one layer that stages of these shapes compute, one after the other.

    Raises: PlanError where no single layer does.
    """
    bias, padded = any(spec.bias for spec in specs), False
    for spec in reversed(specs):
        if spec.bias and padded:
            raise PlanError(f"{what} has a bias in front of a padded stage; no single layer computes that.")
        padded |= spec.padding_mode == "zeros" and (spec.padding == "same" or any(spec.padding))
    if all(spec.kind != "conv" for spec in specs):
        return LayerSpec("linear", specs[0].in_channels, specs[-1].out_channels, bias=bias)
    if any(sum(spec.kernel[axis] > 1 for spec in specs) > 1 for axis in (0, 1)):
        raise PlanError(f"{what} has two stages with a kernel along one axis; no layer of that size computes it.")
    return replace(_geometry(specs, what), bias=bias)


def error(whole: nn.Module, chain: nn.Sequential, name: str = "") -> float:
    """Return how far the weights that a chain stands for are from a layer's: the norm of what differs, relative.

    Raises: PlanError for a chain that no single layer computes.
    """
    ours: Any = merge(chain, name)
    weight, old = (one.weight.detach().double() for one in (ours, cast("Any", whole)))
    return float((weight - old).norm() / old.norm().clamp_min(1e-300))


def square(basis: Basis, name: str = "") -> nn.Module:
    """Return the one convolution that computes what filters of several shapes do, each in the middle of a kernel.

    Raises: PlanError for a basis that none computes.
    """
    whole, convs = read(basis, name), list(basis.children())
    laid, biases = [], []
    for conv in convs:
        at: Any = conv
        high, wide = ((k - n) // 2 for k, n in zip(whole.kernel, at.weight.shape[2:], strict=True))
        laid.append(nn.functional.pad(at.weight.detach(), (wide, wide, high, high)))
        biases.append(laid[-1].new_zeros(len(at.weight)) if at.bias is None else at.bias.detach())
    return layer(whole, torch.cat(laid), torch.cat(biases) if whole.bias else None, convs[0])


def contract(
    stages: Sequence[tuple[Tensor, Tensor | None]], specs: Sequence[LayerSpec]
) -> tuple[Tensor, Tensor | None]:
    """Multiply from the last stage to the first, where what is between stays as small as the layer.

    A stage is its weight and bias, all in one precision; of a pick, the index. Differentiable.

    Shapes: [out, in, height, width], [out].
    """
    dtype = next(weight.dtype for weight, _ in stages if weight.is_floating_point())
    dense = torch.eye(specs[-1].out_channels, dtype=dtype)[:, :, None, None]
    bias: Tensor | None = None
    for (weight, own), spec in zip(reversed(stages), reversed(specs), strict=True):
        if spec.kind == "pick":
            columns = torch.zeros(dense.shape[0], spec.in_channels, *dense.shape[2:], dtype=dtype)
            dense = columns.index_add(1, weight, dense)
            continue
        if own is not None:
            through = dense.sum((2, 3)) @ own
            bias = through if bias is None else bias + through
        g, (kh, kw) = spec.groups, spec.kernel
        weight = weight.reshape(g, spec.out_channels // g, spec.in_channels // g, kh, kw)
        outer = dense.reshape(dense.shape[0], g, spec.out_channels // g, *dense.shape[2:])
        (u, v), (x, y) = dense.shape[2:], spec.kernel
        dense = torch.einsum("tgiuv,gijxy->tgjuxvy", outer, weight)
        dense = dense.reshape(dense.shape[0], spec.in_channels, u * x, v * y)
    return dense, bias


def numbers(stage: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return a stage's weight and bias in float64, or a pick's index, on the CPU."""
    if isinstance(stage, Pick):
        return stage.index.cpu(), None
    if isinstance(stage, Shift):
        return stage.kernels(), None
    at: Any = stage
    bias = None if at.bias is None else at.bias.detach().to("cpu", torch.float64)
    return at.weight.detach().to("cpu", torch.float64), bias


def _geometry(specs: Sequence[LayerSpec], what: str) -> LayerSpec:
    """Return the shape of the merged convolution: each axis has what its one stage had."""
    stride, padding, dilation = [1, 1], [0, 0], [1, 1]
    modes = {spec.padding_mode for spec in specs if spec.padding == "same" or any(spec.padding)}
    unpadded = next((spec.padding_mode for spec in specs if spec.padding_mode != "zeros"), "zeros")
    same = any(spec.padding == "same" for spec in specs)
    for axis in (0, 1):
        done = False  # whether the stage with the kernel, a stride or a padding lies behind
        for spec in specs:
            pad = 0 if spec.padding == "same" else int(spec.padding[axis])
            if done and (spec.kernel[axis] > 1 or pad) and (stride[axis] > 1 or pad):
                raise PlanError(f"{what} has a stride or a kernel in front of a padded stage; it cannot be merged.")
            if spec.kernel[axis] > 1 or dilation[axis] == 1:
                dilation[axis] = spec.dilation[axis]
            stride[axis] *= spec.stride[axis]
            padding[axis] += pad
            done |= spec.kernel[axis] > 1 or spec.stride[axis] > 1 or pad > 0
    if len(modes) > 1 or (same and any(padding)):
        raise PlanError(f"{what} has stages that are padded in different ways; it cannot be merged.")
    groups = 1 if any(spec.kind == "pick" for spec in specs) else math.gcd(*(spec.groups for spec in specs))
    kernel = (math.prod(spec.kernel[0] for spec in specs), math.prod(spec.kernel[1] for spec in specs))
    merged = LayerSpec("conv", specs[0].in_channels, specs[-1].out_channels, kernel, groups=groups)
    return replace(
        merged, stride=(stride[0], stride[1]), padding="same" if same else (padding[0], padding[1]),
        dilation=(dilation[0], dilation[1]), padding_mode=modes.pop() if modes else unpadded,
    )  # fmt: skip
