"""What a factorisation knows of a layer: its shape, as plain data, and its weights in double precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class LayerSpec:
    """The shape of a convolution, of a linear layer, or of a ``pick`` that only orders or repeats channels.

    A linear layer has a kernel of one tap. ``padding`` is a pair, or ``"same"`` as torch writes it.
    """

    kind: Literal["conv", "linear", "pick"]
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
    def weights(self) -> int:
        """The number of weights, which is the MACs of one output position."""
        return 0 if self.kind == "pick" else self.out_channels * (self.in_channels // self.groups) * self.taps

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
        if self.kind != "conv" or isinstance(self.padding, str):
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
    kinds, modes = ("conv", "linear", "pick"), ("zeros", "reflect", "replicate", "circular")
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


def read(module: nn.Module, name: str = "") -> LayerSpec:
    """Return the shape of a layer; ``name`` is what messages call it.

    Raises: PlanError for anything but a Conv2d, Linear or Pick whose forward is torch's own.
    """
    cls: Any = type(module)
    if isinstance(module, Pick):
        return LayerSpec("pick", module.channels, len(module.index))
    if isinstance(module, nn.Linear) and cls.forward is nn.Linear.forward:
        return LayerSpec("linear", module.in_features, module.out_features, bias=module.bias is not None)
    own = isinstance(module, nn.Conv2d) and cls._conv_forward is nn.Conv2d._conv_forward
    if not own or cls.forward is not nn.Conv2d.forward:
        raise PlanError(
            f"{name or 'A module'} is a {cls.__name__}; factorisations take torch's Conv2d and Linear. Leave it out."
        )
    conv: Any = module
    if nn.parameter.is_lazy(conv.weight):
        raise PlanError(f"{name or 'A module'} is lazy and has no weights yet; run the model once.")
    padding = (0, 0) if conv.padding == "valid" else conv.padding
    return LayerSpec(
        "conv", conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, padding, conv.dilation, conv.groups,
        conv.bias is not None, conv.padding_mode,
    )  # fmt: skip


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
