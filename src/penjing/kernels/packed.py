"""What packed layers share: what the C reads of a convolution, and buffers that stay as the C can read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.padding import sides

Pair = int | tuple[int, int]
Sides = Pair | tuple[int, int, int, int] | str


@dataclass(frozen=True)
class Geometry:
    """A layer on pictures of one size: what the C reads, the shape it writes, and the threads that pay."""

    numbers: Tensor
    out: tuple[int, int, int, int]
    threads: int


class PackedConv2d(nn.Module):
    """A convolution whose weights are packed; ``what`` it is of, and what its buffers ``held`` are made of.

    ``padding`` is torch's, or four numbers: left, right, top, bottom. ``grain`` is how many products a thread must be
    spared to be worth its making, where the number of threads is left open; ``known`` for how many shapes of inputs the
    geometry is kept.

    Raises: PlanError for what does not fit together.
    """

    what: ClassVar[str]
    held: ClassVar[Mapping[str, torch.dtype]]
    grain: ClassVar[int]
    known: ClassVar[int] = 64
    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        shape: torch.Size,
        stride: Pair,
        padding: Sides,
        dilation: Pair,
        groups: int,
        threads: int | None,
        path: str | None,
    ) -> None:
        super().__init__()
        if len(shape) != 4 or not shape.numel() or groups < 1 or shape[0] % groups:
            raise PlanError(f"{self.what.capitalize()} {list(shape)} are none of a convolution in {groups} groups.")
        self.out_channels, self.kernel_size = shape[0], (shape[2], shape[3])
        self.in_channels, self.groups, self.threads, self.path = shape[1] * groups, groups, threads, path
        self.stride, self.dilation = pair("stride", stride), pair("dilation", dilation)
        self.padding = sides(padding, self.kernel_size, self.dilation)
        self._seen: dict[torch.Size, Geometry] = {}
        self.register_load_state_dict_post_hook(_settled)  # type: ignore[no-untyped-call]

    @property
    def nbytes(self) -> int:
        """Bytes of all that it holds."""
        return sum(getattr(self, name).nbytes for name in self.held)

    def extra_repr(self) -> str:
        """Return what sets it apart from others when it is printed."""
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, groups={self.groups}"

    def hold_scale_and_bias(self, scale: Tensor | None, bias: Tensor | None) -> None:
        """Register a scale and a bias for each output; one scale serves all, 1 and 0 stand where there is none."""
        outs = self.out_channels
        scale = torch.ones(outs) if scale is None else scale
        self.register_buffer("scale", numbers("scale", scale.expand(outs) if scale.ndim == 0 else scale, outs))
        self.register_buffer("bias", numbers("bias", torch.zeros(outs) if bias is None else bias, outs))

    def take_in(self, times: Tensor, plus: Tensor) -> None:
        """Multiply outputs by ``times`` and add ``plus``, [out], from now on: a batch norm behind the layer."""
        scale, bias = self.scale.double() * times, self.bias.double() * times + plus
        self.scale, self.bias = scale.float(), bias.float()

    def measured(self, shape: torch.Size) -> Geometry:
        """Return the geometry of the layer on inputs of a shape.

        Raises: PlanError for an input that it cannot read.
        """
        if shape not in self._seen:
            found = self.laid_out(shape, *self.sizes(shape))
            if len(self._seen) >= self.known:
                self._seen = {}
            self._seen[shape] = found
        return self._seen[shape]

    def sizes(self, shape: torch.Size) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return height and width of a padded input, and of what the layer makes of it.

        Raises: PlanError for an input that it cannot read.
        """
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise PlanError(f"A convolution of {self.what} reads [n, {self.in_channels}, h, w]; got {list(shape)}.")
        left, right, top, bottom = self.padding
        images, _, height, width = shape
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        padded = height + top + bottom, width + left + right
        out = (padded[0] - dh * (kh - 1) - 1) // sh + 1, (padded[1] - dw * (kw - 1) - 1) // sw + 1
        if not images or height < 1 or width < 1 or min(out) < 1:
            raise PlanError(f"An input {list(shape)} is too small for a kernel {self.kernel_size} with its padding.")
        return padded, out

    def laid_out(self, shape: torch.Size, padded: tuple[int, int], out: tuple[int, int]) -> Geometry:
        """Return the geometry of the layer on inputs of a shape, once their sizes are known to fit."""
        left, _, top, _ = self.padding
        images, _, height, width = shape
        kh, kw = self.kernel_size
        ins, outs = self.in_channels // self.groups, self.out_channels // self.groups
        told = [
            images, self.groups, ins, height, width, outs, kh, kw, *self.stride, top, left, *self.dilation, *padded,
            *out,
        ]  # fmt: skip
        made = (images, self.out_channels, *out)
        return Geometry(torch.tensor(told, dtype=torch.int64), made, 1 + math.prod(made) * ins * kh * kw // self.grain)

    def check_float32(self, x: Tensor) -> None:
        """Refuse inputs of another kind.

        Raises: PlanError.
        """
        if x.dtype != torch.float32:
            raise PlanError(f"A layer of {self.what} reads float32; got {x.dtype}.")

    def settle(self) -> None:
        """See to it that the C can read what the layer holds now."""
        for name, kind in self.held.items():
            held = getattr(self, name)
            if held.is_floating_point() != kind.is_floating_point:
                raise PlanError(f"{name} of a packed layer is {kind}; got {held.dtype}.")
            self._buffers[name] = held.to(kind).contiguous()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Stay in float32 where a network is made half or double: the C reads nothing else."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.settle()
        return self


def _settled(layer: PackedConv2d, *_: Any) -> None:
    layer.settle()


def pair(name: str, given: Pair) -> tuple[int, int]:
    """Return two numbers, of one or two.

    Raises: PlanError naming them.
    """
    two = (given, given) if isinstance(given, int) else tuple(given)
    if len(two) != 2 or min(two) < 1:
        raise PlanError(f"{name} is one or two numbers from 1 on; got {given}.")
    return two[0], two[1]


def numbers(name: str, given: Tensor, count: int) -> Tensor:
    """Return a copy of ``count`` numbers that the C can read.

    Raises: PlanError naming them.
    """
    if given.shape != (count,) or not given.is_floating_point():
        raise PlanError(f"{name} is float32 [{count}]; got {given.dtype} {list(given.shape)}.")
    return given.detach().to("cpu", torch.float32).contiguous().clone()
