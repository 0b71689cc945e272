"""What a factorisation knows of a layer: its shape, as plain data, and its weights in double precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core import padding
from penjing.core.errors import PlanError

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class LayerSpec:
    """The shape of a convolution, of a linear layer, or of what has no weights: a ``pick``, a ``shift``.

    A pick only orders or repeats channels; a shift displaces each by a tap of its kernel, and has the geometry of a
    depthwise convolution. A linear layer has a kernel of one tap. ``padding`` is a pair, or ``"same"`` as torch writes
    it.
    """

    kind: Literal["conv", "linear", "pick", "shift"]
    in_channels: int
    out_channels: int
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair | str = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    padding_mode: str = "zeros"

    @property
    def taps(self) -> int:
        """The number of positions of the kernel."""
        return math.prod(self.kernel)

    @property
    def moves(self) -> bool:
        """Whether it only moves values and has no weights."""
        return self.kind in ("pick", "shift")

    @property
    def weights(self) -> int:
        """The number of weights, which is the MACs of one output position."""
        return 0 if self.moves else self.out_channels * (self.in_channels // self.groups) * self.taps

    @property
    def params(self) -> int:
        """The number of learned values, the bias among them."""
        return self.weights + self.bias * self.out_channels

    @property
    def depthwise(self) -> bool:
        """Whether each filter reads one channel."""
        return self.groups > 1 and self.groups == self.in_channels

    def out_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the output's height and width for the input's; the positions of a linear layer stay.

        >>> LayerSpec("conv", 3, 8, (3, 3), (2, 2), (1, 1)).out_size((32, 32))
        (16, 16)
        """
        if self.kind not in ("conv", "shift") or isinstance(self.padding, str):
            return tuple(size)
        shape = zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in shape)

    @property
    def least_size(self) -> Pair:
        """The smallest input's height and width that gives an output."""
        if isinstance(self.padding, str):
            return 1, 1
        shape = zip(self.kernel, self.padding, self.dilation, strict=True)
        height, width = (max(d * (k - 1) + 1 - 2 * p, 1) for k, p, d in shape)
        return height, width

    def macs(self, size: Sequence[int]) -> int:
        """Return the MACs of one sample whose input has this height and width."""
        return self.weights * math.prod(self.out_size(size))

    def one_group(self) -> LayerSpec:
        """Return the shape of one of the groups."""
        g = self.groups
        return replace(self, in_channels=self.in_channels // g, out_channels=self.out_channels // g, groups=1)

    def times(self, groups: int) -> LayerSpec:
        """Return the shape of so many of these side by side."""
        g = groups
        return replace(
            self, in_channels=self.in_channels * g, out_channels=self.out_channels * g, groups=self.groups * g
        )

    def __str__(self) -> str:
        """Write the layer as torch does, in short."""
        if self.kind != "conv":
            return f"{self.kind.capitalize()}({self.in_channels}, {self.out_channels})"
        grouped = f", groups={self.groups}" if self.groups > 1 else ""
        return f"Conv2d({self.in_channels}, {self.out_channels}, {self.kernel[0]}x{self.kernel[1]}{grouped})"


def from_json(facts: Mapping[str, Any]) -> LayerSpec:
    """Return the shape that ``dataclasses.asdict`` wrote and JSON read back.

    Raises: ValueError for what is no shape of a layer.
    """
    given: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in facts.items()}
    if set(given) != {field.name for field in fields(LayerSpec)}:
        raise ValueError("not the entries of a shape")
    spec = LayerSpec(**given)
    pairs = [spec.kernel, spec.stride, spec.dilation]
    padding = () if spec.padding == "same" else spec.padding
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in (*pairs, padding or (0, 0))):
        raise ValueError("not a pair")
    numbers = [spec.in_channels, spec.out_channels, spec.groups, *(n for pair in pairs for n in pair)]
    if any(type(n) is not int or not 0 <= n < 2**31 for n in (*numbers, *padding)) or 0 in numbers:
        raise ValueError("not a number of channels or taps")
    kinds, modes = ("conv", "linear", "pick", "shift"), ("zeros", "reflect", "replicate", "circular")
    if (
        spec.kind not in kinds
        or spec.padding_mode not in modes
        or spec.in_channels % spec.groups
        or type(spec.bias) is not bool
    ):
        raise ValueError("not a layer")
    return spec


class Pick(nn.Module):
    """Order or repeat channels; without parameters.

    Shapes: [batch, channels, ...] to [batch, len(index), ...].
    """

    index: Tensor

    def __init__(self, index: Tensor, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        """Return the picked channels."""
        return x.index_select(1, self.index)


class Shift(nn.Module):
    """Displace channels by whole pixels; without parameters and multiplications.

    ``counts`` says how many channels, one after the other, take what lies at each tap of a kernel, row by row: the
    depthwise convolution with a one there and zeros elsewhere. Geometry and padding are that convolution's.

    Shapes: [batch, channels, height, width] to [batch, channels, height', width'].

    Paper: Wu et al., Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions, CVPR 2018, section 3.
    Differs: groups of any size, a stride and dilation of its own.

    Raises: PlanError for counts that are not one a tap, or no channels.
    """

    def __init__(
        self,
        counts: Sequence[int],
        kernel: Pair = (3, 3),
        stride: Pair = (1, 1),
        padding: Pair | str = (1, 1),
        dilation: Pair = (1, 1),
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        if len(counts) != math.prod(kernel) or min(counts, default=-1) < 0 or not sum(counts):
            raise PlanError(
                f"A shift by a kernel of {kernel[0]} x {kernel[1]} has {math.prod(kernel)} counts of channels, one a "
                f"tap; got {list(counts)}."
            )
        self.counts = list(counts)  # a list of numbers, which a cut of channels sets
        self.geometry = (kernel, stride, padding, dilation)
        self.padding_mode = padding_mode

    @property
    def spec(self) -> LayerSpec:
        """The shape."""
        channels, (kernel, stride, padding, dilation) = sum(self.counts), self.geometry
        return LayerSpec(
            "shift", channels, channels, kernel, stride, padding, dilation, channels, padding_mode=self.padding_mode
        )

    def kernels(self) -> Tensor:
        """Return the kernels of the depthwise convolution that computes the same, float64.

        Shapes: [channels, 1, height, width].
        """
        taps = torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))
        ones = F.one_hot(taps, len(self.counts)).double()
        return ones.view(-1, 1, *self.geometry[0])

    def forward(self, x: Tensor) -> Tensor:
        """Return the displaced channels."""
        (kh, kw), (sh, sw), _, (dh, dw) = self.geometry
        high, wide = sides(self.spec)
        if any((*high, *wide)):
            x = F.pad(x, (*wide, *high), "constant" if self.padding_mode == "zeros" else self.padding_mode)
        if self.training and (sh, sw) == (1, 1) and x.is_contiguous(memory_format=torch.channels_last):
            # Slices of channels that lie side by side in memory take three times as long.
            return F.conv2d(x, self.kernels().to(x), dilation=(dh, dw), groups=x.shape[1])
        rows, columns = x.shape[2] - dh * (kh - 1), x.shape[3] - dw * (kw - 1)
        moved = []
        for tap, part in enumerate(x.split(self.counts, 1)):
            if self.counts[tap]:
                top, left = dh * (tap // kw), dw * (tap % kw)
                moved.append(part[:, :, top : top + rows : sh, left : left + columns : sw])
        return torch.cat(moved, 1)

    def extra_repr(self) -> str:
        """Return the counts and the kernel."""
        return f"{self.counts}, kernel={self.geometry[0]}, stride={self.geometry[1]}"


class Basis(nn.Module):
    """Filters of several shapes that read the same input, their outputs one after the other.

    Shapes: [batch, in, height, width] to [batch, filters of all shapes, height', width'].
    """

    def __init__(self, shapes: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, conv in shapes.items():
            self.add_module(name, conv)

    def forward(self, x: Tensor) -> Tensor:
        """Return what all shapes compute."""
        return torch.cat([conv(x) for conv in self.children()], dim=1)


def read(module: nn.Module, name: str = "") -> LayerSpec:
    """Return the shape of a layer; ``name`` is what messages call it.

    A basis has the shape of the convolution that holds each of its filters in the middle of a kernel.

    Raises: PlanError for anything but a Conv2d, Linear, Pick, Shift or Basis whose forward is torch's own.
    """
    cls: Any = type(module)
    if isinstance(module, Basis):
        return around([read(conv, f"{name}.{key}" if name else key) for key, conv in module.named_children()], name)
    if isinstance(module, Pick):
        return LayerSpec("pick", module.channels, len(module.index))
    if isinstance(module, Shift):
        return module.spec
    if isinstance(module, nn.Linear) and cls.forward is nn.Linear.forward:
        return shape(module)
    own = isinstance(module, nn.Conv2d) and cls._conv_forward is nn.Conv2d._conv_forward
    if not own or cls.forward is not nn.Conv2d.forward:
        raise PlanError(
            f"{name or 'A module'} is a {cls.__name__}; factorisations take torch's Conv2d and Linear. Leave it out."
        )
    conv: Any = module
    if nn.parameter.is_lazy(conv.weight):
        raise PlanError(f"{name or 'A module'} is lazy and has no weights yet; run the model once.")
    return shape(conv)


def shape(module: nn.Conv2d | nn.Linear) -> LayerSpec:
    """Return the shape that a convolution or linear layer has, whatever its forward does."""
    if isinstance(module, nn.Linear):
        return LayerSpec("linear", module.in_features, module.out_features, bias=module.bias is not None)
    conv: Any = module
    padding = (0, 0) if conv.padding == "valid" else conv.padding
    return LayerSpec(
        "conv", conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding, conv.dilation, conv.groups,
        conv.bias is not None, conv.padding_mode,
    )  # fmt: skip


def around(shapes: Sequence[LayerSpec], name: str = "") -> LayerSpec:
    """Return the shape of the one convolution in whose kernels the filters of these shapes lie, all in the middle.

    Raises: PlanError for shapes that do not lie side by side.
    """
    kernel = (max(s.kernel[0] for s in shapes), max(s.kernel[1] for s in shapes))
    whole = [replace(s, kernel=kernel, padding=_grown(s, kernel), out_channels=1, bias=False) for s in shapes]
    if len(set(whole)) > 1 or any((k - n) % 2 for s in shapes for k, n in zip(kernel, s.kernel, strict=True)):
        raise PlanError(f"{name or 'A basis'} has filters that do not lie in the middle of one kernel.")
    return replace(whole[0], out_channels=sum(s.out_channels for s in shapes), bias=any(s.bias for s in shapes))


def _grown(spec: LayerSpec, kernel: Pair) -> Pair | str:
    """Return the padding with which a larger kernel sees what this one does in its middle."""
    if isinstance(spec.padding, str):
        return spec.padding
    high, wide = (p + d * (k - n) // 2 for p, d, k, n in zip(spec.padding, spec.dilation, kernel, spec.kernel,
                                                             strict=True))  # fmt: skip
    return high, wide


def sides(spec: LayerSpec) -> tuple[Pair, Pair]:
    """Return the padding before and after each axis, as torch works out ``"same"``."""
    left, right, top, bottom = padding.sides(spec.padding, spec.kernel, spec.dilation)
    return (top, bottom), (left, right)


def values(module: nn.Module, name: str = "") -> Tensor:
    """Return a layer's weights on the CPU in float64, detached.

    Shapes: [out, in / groups, height, width].

    Raises: PlanError for weights that are not finite, or that are on the meta device.
    """
    weight: Any = module.weight
    if weight.is_meta:
        raise PlanError(f"{name or read(module)} is on the meta device and has no weights; load them first.")
    kernel: Tensor = weight.detach().to("cpu", torch.float64)
    wrong = int((~kernel.isfinite()).sum())
    if wrong:
        raise PlanError(
            f"{name or read(module)} holds {wrong} weights that are not finite, of {kernel.numel()}; "
            "train or load it again."
        )
    return kernel if kernel.ndim == 4 else kernel[:, :, None, None]
