"""Small hand-written networks, each with one structure on which channel pruning can go wrong.

Every network is deterministic (all parameters, statistics and inputs are drawn from the name's own generator), takes
a batch of two, and ends in logits, a vector or a dense map.

``Case.named`` marks structures that the specification names. ``Case.constant`` says in one phrase why a large part of
the network must keep its width: a literal in the user's code, or a statistic over channels that no zeroed weight can
imitate. Where it is None, most hidden channels may go, though single layers may still be pinned.
"""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
NetClass = TypeVar("NetClass", bound=type[nn.Module])

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Case:
    """One network: how to build it, what to feed it, and what may be expected of a pruner."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], Inputs]
    named: bool
    constant: str | None


HOSTILE: dict[str, Case] = {}


def generator(name: str) -> torch.Generator:
    """Return a generator that depends on the name alone."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Give every parameter and running statistic a telling random value, in place, and return the model.

    Scales of norms get both signs, running statistics differ from 0 and 1, weights follow He et al., so that no
    channel is redundant by accident and deep outputs do not vanish.
    """
    rng = torch.Generator().manual_seed(seed)

    def normal(like: Tensor, scale: float) -> Tensor:
        return torch.randn(like.shape, generator=rng) * scale

    def around_one(like: Tensor) -> Tensor:
        sign = torch.where(torch.rand(like.shape, generator=rng) < 0.25, -1.0, 1.0)
        return (torch.rand(like.shape, generator=rng) + 0.5) * sign

    def value(owner: nn.Module, name: str, old: Tensor) -> Tensor:
        if "bias" in name:
            return normal(old, 0.3)
        if isinstance(owner, nn.PReLU):
            return torch.rand(old.shape, generator=rng) * 0.5
        if isinstance(owner, nn.ConvTranspose2d):
            taps = old[0, 0].numel() / (owner.stride[0] * owner.stride[1])
            return normal(old, (2 / (old.shape[0] / owner.groups * taps)) ** 0.5)
        if not isinstance(owner, LAYERS):
            if old.numel() == max(old.shape, default=1):
                return around_one(old)
            if old.shape[0] == 1 or isinstance(owner, nn.Embedding):
                return normal(old, 0.5)
        return normal(old, (2 / old[0].numel()) ** 0.5)

    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                parameter.copy_(value(module, name, parameter))
            for name, buffer in module.named_buffers(recurse=False):
                if name == "running_mean":
                    buffer.copy_(normal(buffer, 0.3))
                elif name == "running_var":
                    buffer.copy_(torch.rand(buffer.shape, generator=rng) * 1.5 + 0.5)
    return model


def tensors(*shapes: tuple[int, ...], **named_shapes: tuple[int, ...]) -> Callable[[], Inputs]:
    """Return a maker of normal inputs of these shapes, each with a batch of two in front."""

    def make() -> Inputs:
        rng = generator("inputs")
        args = tuple(torch.randn((2, *shape), generator=rng) for shape in shapes)
        return args, {name: torch.randn((2, *s), generator=rng) for name, s in named_shapes.items()}

    return make


IMAGE = tensors((3, 8, 8))
WIDE_IMAGE = tensors((3, 16, 16))


def hostile(
    name: str,
    inputs: Callable[[], Inputs] = IMAGE,
    *,
    named: bool = True,
    constant: str | None = None,
    **options: Any,
) -> Callable[[NetClass], NetClass]:
    """Register the class below under this name, built with these options."""

    def register(net: NetClass) -> NetClass:
        def build() -> nn.Module:
            return randomise(net(**options), zlib.crc32(name.encode())).eval()

        assert name not in HOSTILE, name
        HOSTILE[name] = Case(build, inputs, named, constant)
        return net

    return register


def unit(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Return convolution, BN and, unless told otherwise, ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs)
    return nn.Sequential(conv, norm, nn.ReLU()) if act else nn.Sequential(conv, norm)


def pooled(width: int, classes: int = 5) -> nn.Sequential:
    """Return global average pooling and a linear classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channel groups, with every size read from the tensor."""
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Bare(nn.Module):
    """A stem and a head; the structure under test sits between them, in `middle`."""

    def __init__(self, width: int = 16, out: int | None = None, act: bool = True) -> None:
        super().__init__()
        self.stem = unit(3, width, act=act)
        self.head = pooled(width if out is None else out)

    def middle(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x)))


@hostile("plain_chain")
class PlainChain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20, stride=2), unit(20, 16))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@hostile("plain_chain_biased", bias=True)
@hostile("plain_chain_without_bias_or_norm", bias=False)
class NormFreeChain(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(10, 18, 3, stride=2, padding=1, bias=bias)
        self.conv3 = nn.Conv2d(18, 14, 1, bias=bias)
        self.fc1 = nn.Linear(14, 22, bias=bias)
        self.fc2 = nn.Linear(22, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = F.relu(self.conv3(x)).mean((2, 3))
        return self.fc2(F.relu(self.fc1(x)))


@hostile("deep_chain_30")
class DeepChain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [unit(3, 8)]
        for _ in range(29):
            # After thirty ReLUs all inputs would give one output, and no error could be seen.
            layers += [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.LeakyReLU(0.5)]
        self.body = nn.Sequential(*layers)
        self.head = pooled(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@hostile("pointwise_only", tensors((12, 1, 1)))
class PointwiseOnly(nn.Module):
    """Space is 1x1 throughout, so that channel and spatial axes are easily confused with axes of size one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(12, 16, 1), unit(16, 24, 3), unit(24, 8, 1))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).squeeze(3).squeeze(2))


@hostile("nested_containers")
class NestedContainers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        inner = nn.Sequential(nn.Sequential(unit(3, 12)), nn.Identity())
        self.stages = nn.ModuleList([inner, nn.ModuleList([unit(12, 12), unit(12, 20)])])
        self.head = pooled(20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages[0](x)
        pair = self.stages[1]
        assert isinstance(pair, nn.ModuleList)
        x = x + pair[0](x)
        return self.head(pair[1](x))


@hostile("module_dict")
class DictOfModules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.paths = nn.ModuleDict({"near": unit(16, 12, 1), "far": unit(16, 12, 3), "join": unit(24, 16)})
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([self.paths[key](x) for key in ("near", "far")], 1)
        return self.head(self.paths["join"](x))


@hostile("residual")
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.blocks = nn.ModuleList(nn.Sequential(unit(16, inner), unit(inner, 16, act=False)) for inner in (12, 20))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = F.relu(x + block(x))
        return self.head(x)


@hostile("option_a_shortcut", WIDE_IMAGE, literal=True)
@hostile("option_a_shortcut_by_shape", WIDE_IMAGE, literal=False)
class OptionA(nn.Module):
    """Shortcuts that slice space and pad channels with zeros, as in the ResNets for CIFAR."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.stem = unit(3, 8)
        widths = (8, 8, 16, 32)
        self.widths = widths[1:]
        self.blocks = nn.ModuleList(
            nn.Sequential(unit(a, b, stride=1 if a == b else 2), unit(b, b, act=False)) for a, b in pairwise(widths)
        )
        self.head = pooled(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block, planes in zip(self.blocks, self.widths, strict=True):
            y = block(x)
            if x.shape[-1] != y.shape[-1]:
                pad = planes // 4 if self.literal else (y.shape[1] - x.shape[1]) // 2
                x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, pad, pad), "constant", 0)
            x = F.relu(x + y)
        return self.head(x)


@hostile("option_b_shortcut")
class OptionB(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8)
        self.body1 = nn.Sequential(unit(8, 16, stride=2), unit(16, 16, act=False))
        self.short1 = unit(8, 16, 1, stride=2, act=False)
        self.body2 = nn.Sequential(unit(16, 24, stride=2), unit(24, 24, act=False))
        self.short2 = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 24, 1))
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.body1(x) + self.short1(x))
        x = F.relu(self.body2(x) + self.short2(x))
        return self.head(x)


@hostile("bottleneck", groups=1)
@hostile("resnext_16x4", groups=16)
class Bottleneck(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        inner = 12 if groups == 1 else 4 * groups
        self.stem = unit(3, 16)
        self.body1 = nn.Sequential(unit(16, inner, 1), unit(inner, inner, groups=groups), unit(inner, 48, 1, act=False))
        self.short1 = unit(16, 48, 1, act=False)
        self.body2 = nn.Sequential(unit(48, inner, 1), unit(inner, inner, groups=groups), unit(inner, 48, 1, act=False))
        self.head = pooled(48)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.body1(x) + self.short1(x))
        return self.head(F.relu(self.body2(x) + x))


@hostile("preactivation")
class PreActivation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.norm1, self.conv1 = nn.BatchNorm2d(16), nn.Conv2d(16, 12, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(12), nn.Conv2d(12, 16, 3, padding=1)
        self.norm3, self.conv3 = nn.BatchNorm2d(16), nn.Conv2d(16, 24, 3, stride=2, padding=1)
        self.short3 = nn.Conv2d(16, 24, 1, stride=2)
        self.norm4 = nn.BatchNorm2d(24)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(F.relu(self.norm1(x)))
        x = x + self.conv2(F.relu(self.norm2(y)))
        # The shortcut starts after the activation, which is what differs from the first block.
        y = F.relu(self.norm3(x))
        x = self.conv3(y) + self.short3(y)
        return self.head(F.relu(self.norm4(x)))


@hostile("rezero")
class ReZero(nn.Module):
    """The residual branch is scaled by a parameter without any axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.body = nn.Sequential(unit(16, 24), nn.Conv2d(24, 16, 3, padding=1))
        self.alpha = nn.Parameter(torch.tensor(1.0))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + 0.5 * self.alpha * self.body(x))


@hostile("dense_concat")
class DenseConcat(nn.Module):
    """BN, ReLU, convolution on ever wider concats, with a transition between two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 10, 3, padding=1)
        self.first = self.block(10, 6)
        self.transition = nn.Sequential(nn.BatchNorm2d(28), nn.ReLU(), nn.Conv2d(28, 14, 1), nn.AvgPool2d(2))
        self.second = self.block(14, 6)
        self.norm = nn.BatchNorm2d(32)
        self.head = pooled(32)

    @staticmethod
    def block(width: int, growth: int) -> nn.ModuleList:
        widths = [width + growth * index for index in range(3)]
        return nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(w), nn.ReLU(), nn.Conv2d(w, growth, 3, padding=1)) for w in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.first:
            x = torch.cat([x, layer(x)], 1)
        x = self.transition(x)
        features = [x]
        for layer in self.second:
            features.append(layer(torch.cat(features, 1)))
        return self.head(F.relu(self.norm(torch.cat(features, 1))))


@hostile("independent_branches_concat")
class BranchesConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 10), unit(3, 14, 1)
        self.join = unit(24, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.join(torch.cat([self.left(x), self.right(x)], 1)))


@hostile("inception", named=False)
class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.point = unit(16, 8, 1)
        self.small = nn.Sequential(unit(16, 12, 1), unit(12, 10))
        self.asymmetric = nn.Sequential(
            nn.Conv2d(16, 8, (1, 3), padding=(0, 1)), nn.Conv2d(8, 12, (3, 1), padding=(1, 0)), nn.ReLU()
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), unit(16, 6, 1))
        self.head = pooled(36)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([self.point(x), self.small(x), self.asymmetric(x), self.pool(x)], dim=-3))


@hostile("concat_with_itself", mode="same")
@hostile("concat_with_own_negative", mode="negative")
class SelfConcat(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(16, 20)
        self.mode = mode
        self.conv = unit(32, 20)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(torch.cat([x, x if self.mode == "same" else 0.5 - x], 1)))


@hostile("spatial_pyramid_concat", named=False)
class PyramidConcat(Bare):
    """The same channels appear three times in a concat, pooled ever wider."""

    def __init__(self) -> None:
        super().__init__(12, 20)
        self.conv = unit(36, 20, 1)

    def middle(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(x, 3, 1, 1)
        return self.conv(torch.cat([x, y, F.max_pool2d(y, 3, 1, 1)], 1))


@hostile("concat_with_input")
class ConcatWithInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = unit(3, 13), unit(16, 18)
        self.conv3 = unit(21, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(torch.cat([x, self.conv1(x)], 1))
        return self.head(self.conv3(torch.cat([y, x], 1)))


@hostile("add_with_input", tensors((8, 8, 8)))
class AddWithInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(8, 20), unit(20, 8, act=False))
        self.conv = unit(8, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x + self.body(x)))


@hostile("concat_along_height")
class ConcatAlongHeight(nn.Module):
    """Two producers meet along height, so their channels become one."""

    def __init__(self) -> None:
        super().__init__()
        self.upper, self.lower = unit(3, 16), unit(3, 16, 1)
        self.conv = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(torch.cat([self.upper(x), self.lower(x)], 2)))


@hostile("residual_over_concat")
class ResidualOverConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 10), unit(3, 14)
        self.inner = unit(24, 16)
        self.back = unit(16, 24, act=False)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(F.relu(x + self.back(self.inner(x))))


@hostile("residual_of_two_concats", named=False)
class ResidualOfTwoConcats(nn.Module):
    """Concats with different borders are added: the borders cut the channels into three pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.a1, self.a2 = unit(3, 10), unit(3, 14)
        self.b1, self.b2 = unit(3, 18, 1), unit(3, 6, 1)
        self.conv = unit(24, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.cat([self.a1(x), self.a2(x)], 1)
        b = torch.cat([self.b1(x), self.b2(x)], 1)
        return self.head(self.conv(a + b))


@hostile("norm_before_convolution_on_concat")
class NormOnConcat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 9, 3, padding=1), nn.Conv2d(3, 15, 1)
        self.norm, self.conv = nn.BatchNorm2d(24), nn.Conv2d(24, 12, 3, padding=1, bias=False)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.left(x), self.right(x)), 1)
        return self.head(F.relu(self.conv(F.relu(self.norm(x)))))


@hostile("constant_channels_concat", named=False)
class CoordinateConcat(Bare):
    """Two channels of the concat are coordinates, made from the shape alone."""

    def __init__(self) -> None:
        super().__init__(14, 20)
        self.conv = unit(16, 20)

    def middle(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(n, 1, h, w)
        return self.conv(torch.cat([x, rows, columns], 1))


@hostile("global_context_concat", named=False)
class GlobalContextConcat(Bare):
    def __init__(self) -> None:
        super().__init__(14, 20)
        self.conv = unit(28, 20)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(torch.cat([x, x.amax((2, 3), keepdim=True).expand_as(x)], 1))


@hostile("one_output_attention_map")
class OneOutputAttention(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.attention = nn.Conv2d(16, 1, 3, padding=1)
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x * torch.sigmoid(self.attention(x)))


@hostile("one_output_head")
class OneOutputHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 16))
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.head(self.body(x))).squeeze(1)


@hostile("one_output_map_added")
class OneOutputAdded(Bare):
    """A single channel is broadcast onto all others by an addition; it must not be tied to them."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.bias_map, self.conv = unit(16, 1), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x + self.bias_map(x))


@hostile("depthwise", multiplier=1)
@hostile("depthwise_multiplier_2", multiplier=2)
class Depthwise(Bare):
    def __init__(self, multiplier: int) -> None:
        super().__init__(12, 16)
        self.depthwise = unit(12, 12 * multiplier, groups=12)
        self.point = unit(12 * multiplier, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.point(self.depthwise(x))


@hostile("depthwise_on_input")
class DepthwiseOnInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 3, groups=3), unit(3, 12, groups=3), unit(12, 16, 1), unit(16, 12))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@hostile("inverted_residual")
class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8)
        self.block1 = self.block(8, 24, 8, 1)
        self.block2 = self.block(8, 32, 12, 2)
        self.block3 = self.block(12, 48, 12, 1)
        self.head = pooled(12)

    @staticmethod
    def block(inputs: int, inner: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Sequential(nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6()),
            unit(inner, inner, stride=stride, groups=inner),
            unit(inner, outputs, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block1(x)
        x = self.block2(x)
        return self.head(x + self.block3(x))


@hostile("grouped_4", groups=4)
@hostile("grouped_3_of_eight", groups=3)
class Grouped(Bare):
    """Grouped convolution of module type; its group count breaks when groups lose unequally."""

    def __init__(self, groups: int) -> None:
        super().__init__(24, 16)
        self.grouped = unit(24, 36, groups=groups)
        self.point = unit(36, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.point(self.grouped(x))


@hostile("grouped_after_concat")
class GroupedAfterConcat(nn.Module):
    """Group borders fall inside the concat's pieces: 10 + 14 channels in 3 groups of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 10), unit(3, 14, 1)
        self.grouped, self.point = unit(24, 24, groups=3), unit(24, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(self.point(self.grouped(x)))


@hostile("grouped_twice_with_different_counts")
class GroupedTwice(Bare):
    """Six groups feed four: a count that suits one need not suit the other."""

    def __init__(self) -> None:
        super().__init__(24, 12)
        self.six, self.four = unit(24, 24, groups=6), unit(24, 24, groups=4)
        self.point = unit(24, 12, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.point(self.four(self.six(x)))


@hostile("grouped_literal_functional", per_group=None)
@hostile("grouped_by_shape_functional", per_group=4)
@hostile("depthwise_by_shape_functional", per_group=1)
class FunctionalGroups(Bare):
    """The group count stands in the forward: a literal 6, or so many input channels per group."""

    def __init__(self, per_group: int | None) -> None:
        super().__init__(24, 16)
        self.per_group = per_group
        self.kernel = nn.Parameter(torch.empty(24, per_group or 4, 3, 3))
        self.bias = nn.Parameter(torch.empty(24))
        self.norm, self.point = nn.BatchNorm2d(24), unit(24, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        groups = 6 if self.per_group is None else x.shape[1] // self.per_group
        x = F.conv2d(x, self.kernel, self.bias, padding=1, groups=groups)
        return self.point(F.relu(self.norm(x)))


@hostile("uneven_split_by_shape", literal=False)
@hostile("uneven_split_literal", constant="literal split sizes", literal=True)
class UnevenSplit(nn.Module):
    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.stem = unit(3, 24)
        self.small, self.large = unit(6, 10), unit(18, 14, 1)
        self.join = unit(24, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        c = x.shape[1]
        a, b = torch.split(x, [6, 18] if self.literal else [c // 4, 3 * c // 4], dim=1)
        return self.head(self.join(torch.cat([self.large(b), self.small(a)], 1)))


@hostile("chunk_halves")
class ChunkHalves(Bare):
    def __init__(self) -> None:
        super().__init__(20, 12)
        self.left, self.right = unit(10, 14), unit(10, 14, 1)
        self.join = unit(14, 12)

    def middle(self, x: Tensor) -> Tensor:
        a, b = torch.chunk(x, 2, dim=1)
        return self.join(self.left(a) + self.right(b))


@hostile("chunk_thirds_of_20")
class ChunkThirds(Bare):
    """Chunks of 7, 7 and 6 channels."""

    def __init__(self) -> None:
        super().__init__(20, 16)
        self.convs = nn.ModuleList(unit(size, 8) for size in (7, 7, 6))
        self.join = unit(24, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        pieces = [conv(piece) for conv, piece in zip(self.convs, x.chunk(3, 1), strict=True)]
        return self.join(torch.cat(pieces, 1))


@hostile("channel_slices_literal", constant="literal channel slices", mode="literal")
@hostile("channel_slices_negative", constant="literal channel slices", mode="negative")
@hostile("channel_slices_by_shape", mode="shape")
@hostile("channel_slices_strided", mode="strided")
class ChannelSlices(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(24, 12)
        self.mode = mode
        sizes = {"literal": (16, 8), "negative": (16, 8)}.get(mode, (12, 12))
        self.first, self.second = unit(sizes[0], 14), unit(sizes[1], 10, 1)
        self.join = unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        if self.mode == "literal":
            a, b = x[:, :16], x[:, 16:]
        elif self.mode == "negative":
            a, b = x[:, :-8], x[:, -8:]
        elif self.mode == "shape":
            half = x.shape[1] // 2
            a, b = x[:, :half], x[:, half:]
        else:
            a, b = x[:, ::2], x[:, 1::2]
        return self.join(torch.cat([self.first(a), self.second(b)], 1))


@hostile("overlapping_slices")
class OverlappingSlices(Bare):
    """Both convolutions read the middle half; sizes come from the shape."""

    def __init__(self) -> None:
        super().__init__(20, 12)
        self.first, self.second = unit(15, 12), unit(15, 12, 1)

    def middle(self, x: Tensor) -> Tensor:
        quarter = x.shape[1] // 4
        return self.first(x[:, :-quarter]) + self.second(x[:, quarter:])


@hostile("first_channel_as_gate", named=False)
class FirstChannelGate(Bare):
    """Channel 0 has a meaning of its own and must stay the first."""

    def __init__(self) -> None:
        super().__init__(17, 12, act=False)
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x[:, 1:] * torch.sigmoid(x.select(1, 0)).unsqueeze(1))


@hostile("channels_by_literal_list", named=False, constant="literal list of channels")
class ListedChannels(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv = unit(6, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x[:, [0, 3, 5, 7, 11, 15]])


@hostile("flatten_channels_last")
class FlattenChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), nn.MaxPool2d(2), unit(12, 10))
        self.fc1, self.fc2 = nn.Linear(160, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).permute(0, 2, 3, 1).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


@hostile("flatten_view", mode="view")
@hostile("flatten_module", mode="module")
@hostile("flatten_view_literal", constant="literal view(-1, 512)", mode="literal")
class FlattenChannelsFirst(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.body = nn.Sequential(unit(3, 12), nn.MaxPool2d(2), unit(12, 32))
        self.flatten = nn.Flatten()
        self.fc1, self.fc2 = nn.Linear(512, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.mode == "view":
            x = x.view(x.size(0), -1)
        elif self.mode == "module":
            x = self.flatten(x)
        else:
            # With half the channels this still runs, and silently halves the batch.
            x = x.view(-1, 512)
        return self.fc2(F.relu(self.fc1(x)))


@hostile("unflatten_module", named=False, constant="literal size in nn.Unflatten", literal=True)
@hostile("unflatten_by_shape", named=False, literal=False)
class Unflatten(nn.Module):
    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.encode = nn.Sequential(unit(3, 12, stride=2), nn.Flatten(), nn.Linear(192, 16), nn.ReLU())
        self.fc = nn.Linear(16, 160)
        self.unflatten = nn.Unflatten(1, (10, 4, 4))
        self.decode = nn.Sequential(unit(10, 14), nn.Conv2d(14, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc(self.encode(x)))
        x = self.unflatten(x) if self.literal else x.view(x.shape[0], -1, 4, 4)
        return self.decode(x)


@hostile("view_with_stored_width", named=False, constant="the width is stored as a number")
class StoredWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.body = nn.Sequential(unit(3, 20), unit(20, self.width))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).view(x.shape[0], self.width, -1).mean(2))


@hostile("flatten_channels_with_height", named=False)
class FlattenWithHeight(nn.Module):
    """Channels and height become the channels of a convolution along width, as in text recognisers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 8), unit(8, 6))
        self.rows, self.fc = nn.Conv1d(48, 20, 3, padding=1), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.rows(self.body(x).flatten(1, 2))).mean(2))


@hostile("batchnorm1d_after_flatten", named=False)
class NormAfterFlatten(nn.Module):
    """Each channel owns sixteen consecutive entries of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12, stride=2), unit(12, 10), nn.Flatten())
        self.norm, self.fc1, self.fc2 = nn.BatchNorm1d(160), nn.Linear(160, 24), nn.Linear(24, 5)
        self.norm2 = nn.BatchNorm1d(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.norm2(self.fc1(self.norm(self.body(x))))))


@hostile("unet_transposed", WIDE_IMAGE, transposed=True)
@hostile("unet_upsample", WIDE_IMAGE, transposed=False)
class UNet(nn.Module):
    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = unit(3, 8), unit(8, 12), unit(12, 20)
        self.up2, self.up1 = self.up(20, 12, transposed), self.up(14, 8, transposed)
        self.merge2, self.merge1 = unit(24, 14), unit(16, 10)
        self.head = nn.Conv2d(10, 2, 1)

    @staticmethod
    def up(inputs: int, outputs: int, transposed: bool) -> nn.Module:
        if transposed:
            return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        return nn.Sequential(nn.Upsample(scale_factor=2), unit(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.bottom(F.max_pool2d(two, 2))
        x = self.merge2(torch.cat([self.up2(x), two], 1))
        x = self.merge1(torch.cat([one, self.up1(x)], 1))
        return self.head(x)


@hostile("unet_attention_gate", named=False)
class UNetAttentionGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = unit(3, 12), unit(12, 20, stride=2)
        self.query, self.key, self.gate = nn.Conv2d(20, 8, 1), nn.Conv2d(12, 8, 1), nn.Conv2d(8, 1, 1)
        self.merge, self.head = unit(32, 10), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        x = F.interpolate(self.bottom(skip), size=skip.shape[-2:], mode="bilinear", align_corners=False)
        gate = torch.sigmoid(self.gate(F.relu(self.query(x) + self.key(skip))))
        return self.head(self.merge(torch.cat([x, skip * gate], 1)))


@hostile("feature_pyramid", WIDE_IMAGE)
class FeaturePyramid(nn.Module):
    """Lateral and top-down sums, then one head shared by three levels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 12, 20)
        self.downs = nn.ModuleList(unit(a, b, stride=2) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        self.laterals = nn.ModuleList(nn.Conv2d(width, 14, 1) for width in widths)
        self.shared, self.head = unit(14, 14), nn.Conv2d(14, 6, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for down, lateral in zip(self.downs, self.laterals, strict=True):
            x = down(x)
            levels.append(lateral(x))
        outputs = [levels[2]]
        for level in (levels[1], levels[0]):
            outputs.append(level + F.interpolate(outputs[-1], scale_factor=2.0, mode="nearest"))
        return [self.head(self.shared(level)) for level in outputs]


@hostile("shufflenet_v1_unit")
class ShuffleV1(nn.Module):
    """Grouped 1x1, shuffle, depthwise, grouped 1x1; the second unit concats a pooled shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.first, self.last = self.ends(16, 16, 1)
        self.first2, self.last2 = self.ends(16, 24, 2)
        self.head = pooled(40)

    @staticmethod
    def ends(inputs: int, outputs: int, stride: int) -> tuple[nn.Sequential, nn.Sequential]:
        last = nn.Sequential(
            unit(16, 16, stride=stride, groups=16, act=False), unit(16, outputs, 1, groups=4, act=False)
        )
        return unit(inputs, 16, 1, groups=4), last

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.last(shuffle(self.first(x), 4)))
        y = self.last2(shuffle(self.first2(x), 4))
        return self.head(F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1)))


@hostile("shufflenet_v2_unit", units=1)
@hostile("shufflenet_v2_two_units", units=2)
@hostile("shufflenet_v2_units_after_stride", units=2, down=True)
class ShuffleV2(nn.Module):
    def __init__(self, units: int, down: bool = False) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.left = nn.Sequential(unit(16, 16, stride=2, groups=16), unit(16, 12, 1)) if down else None
        self.right = nn.Sequential(unit(16, 20, 1), unit(20, 12, stride=2)) if down else None
        half = 12 if down else 8
        self.branches = nn.ModuleList(
            nn.Sequential(unit(half, half, 1), unit(half, half, groups=half, act=False), unit(half, half, 1))
            for _ in range(units)
        )
        self.last = unit(2 * half, 16, 1)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.left is not None and self.right is not None:
            x = shuffle(torch.cat([self.left(x), self.right(x)], 1), 2)
        for branch in self.branches:
            a, b = x.chunk(2, dim=1)
            x = shuffle(torch.cat([a, branch(b)], 1), 2)
        return self.head(self.last(x))


@hostile("shuffle_by_index_buffer", select=True)
@hostile("shuffle_by_index_buffer_getitem", select=False)
class ShuffleByIndex(Bare):
    order: Tensor

    def __init__(self, select: bool) -> None:
        super().__init__(16, 12)
        self.select = select
        self.grouped1, self.grouped2 = unit(16, 16, 1, groups=4), unit(16, 16, 1, groups=4)
        self.register_buffer("order", torch.arange(16).view(4, 4).t().reshape(-1))
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = self.grouped1(x)
        x = x.index_select(1, self.order) if self.select else x[:, self.order]
        return self.last(self.grouped2(x))


@hostile("shuffle_module")
class ShuffleModule(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.shuffle, self.grouped = nn.ChannelShuffle(3), unit(24, 24, groups=3)
        self.last = unit(24, 12, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(self.grouped(self.shuffle(x)))


@hostile("pixel_shuffle")
class PixelShuffle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), nn.Conv2d(16, 40, 3, padding=1), nn.PixelShuffle(2), nn.ReLU())
        self.refine = unit(10, 12)
        self.head = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.refine(self.body(x)))


@hostile("pixel_unshuffle")
class PixelUnshuffle(Bare):
    def __init__(self) -> None:
        super().__init__(10, 16)
        self.conv = unit(40, 16)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(x, 2))


@hostile("space_to_depth_by_slices", named=False)
class SpaceToDepth(Bare):
    def __init__(self) -> None:
        super().__init__(10, 16)
        self.conv = unit(40, 16)

    def middle(self, x: Tensor) -> Tensor:
        corners = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return self.conv(torch.cat(corners, 1))


@hostile("squeeze_excite_conv", mode="conv")
@hostile("squeeze_excite_linear", mode="linear")
@hostile("squeeze_excite_expand_as", mode="expand")
class SqueezeExcite(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(20, 16)
        self.mode = mode
        layer: Any = partial(nn.Conv2d, kernel_size=1) if mode == "conv" else nn.Linear
        self.squeeze, self.excite = layer(20, 8), layer(8, 20)
        self.conv = unit(20, 16)

    def middle(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        gate = F.adaptive_avg_pool2d(x, 1)
        if self.mode != "conv":
            gate = gate.view(n, c)
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(gate))))
        if self.mode == "linear":
            gate = gate[:, :, None, None]
        elif self.mode == "expand":
            gate = gate.view(n, c, 1, 1).expand_as(x)
        return self.conv(x * gate)


@hostile("same_convolution_twice", branches=False)
@hostile("same_convolution_on_two_branches", branches=True)
class SharedConvolution(nn.Module):
    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.branches = branches
        self.left, self.right = unit(3, 16), unit(3, 16, 1)
        self.shared = nn.Conv2d(16, 16, 3, padding=1)
        # The same object under a second name, as happens when a part is exposed for convenience.
        self.alias = self.shared
        self.last = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        if self.branches:
            x = F.relu(self.shared(self.left(x))) * F.relu(self.alias(self.right(x)))
        else:
            x = F.relu(self.shared(F.relu(self.alias(self.left(x))))) + self.right(x)
        return self.head(self.last(x))


@hostile("same_block_twice")
class SharedBlock(nn.Module):
    """A whole block with its norm runs at two scales; its outputs are summed after resizing."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.last = unit(3, 16), nn.Sequential(unit(16, 20), unit(20, 16)), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.stem(x))
        y = self.block(F.avg_pool2d(x, 2))
        return self.head(self.last(x + F.interpolate(y, scale_factor=2.0)))


@hostile("shared_norm")
class SharedNorm(nn.Module):
    """Two producers pass through one BN and are consumed apart; its parameters couple them."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.last1, self.last2 = unit(16, 10), unit(16, 14)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.norm(self.left(x))), F.relu(self.norm(self.right(x)))
        return self.head(torch.cat([self.last1(a), self.last2(b)], 1))


@hostile("same_parameter_in_two_modules")
class SharedParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.conv1, self.conv2 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.conv2.weight = self.conv1.weight
        self.last = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(self.stem(x)))
        return self.head(self.last(F.relu(self.conv2(x))))


@hostile("transposed_weight_tying")
class TransposedTying(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 24))
        self.weight = nn.Parameter(torch.empty(10, 24))
        self.bias = nn.Parameter(torch.empty(10))
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).mean((2, 3))
        code = F.relu(F.linear(x, self.weight, self.bias))
        return self.fc(x - F.linear(code, self.weight.t()))


@hostile("reparameterised_sum_of_kernels")
class RepVGG(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.large, self.small = nn.Parameter(torch.empty(20, 16, 3, 3)), nn.Parameter(torch.empty(20, 16, 1, 1))
        self.norm, self.last = nn.BatchNorm2d(20), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        kernel = self.large + F.pad(self.small, [1, 1, 1, 1])
        return self.last(F.relu(self.norm(F.conv2d(x, kernel, padding=1))))


@hostile("scaled_kernel")
class ScaledKernel(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.v, self.scale = nn.Parameter(torch.empty(20, 16, 3, 3)), nn.Parameter(torch.empty(20))
        self.last = unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        kernel = self.scale[:, None, None, None] * self.v
        return self.last(F.relu(F.conv2d(x, kernel, padding=1)))


@hostile("low_rank_kernel", reshape_inputs=True)
@hostile("low_rank_kernel_by_einsum", reshape_inputs=False)
class LowRankKernel(Bare):
    """The rank is an axis of parameters alone: it never appears in an activation."""

    def __init__(self, reshape_inputs: bool) -> None:
        super().__init__(16, 12)
        self.u = nn.Parameter(torch.empty(20, 8))
        self.v = nn.Parameter(torch.empty((8, 144) if reshape_inputs else (8, 16, 3, 3)))
        self.last = unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        if self.v.dim() == 2:
            kernel = (self.u @ self.v).view(self.u.shape[0], -1, 3, 3)
        else:
            kernel = torch.einsum("or,rikl->oikl", self.u, self.v)
        return self.last(F.relu(F.conv2d(x, kernel, padding=1)))


@hostile("weight_norm")
class WeightNorm(nn.Module):
    """The norm of a filter runs over its inputs, so a zeroed input leaves it as a removed one does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.conv1 = parametrizations.weight_norm(nn.Conv2d(16, 20, 3, padding=1))
        self.conv2 = parametrizations.weight_norm(nn.Conv2d(20, 12, 3, padding=1))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv2(F.relu(self.conv1(self.stem(x))))))


@hostile("weight_standardisation", named=False, constant="weights are standardised over their inputs")
class WeightStandardisation(nn.Module):
    class Conv(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            w = self.weight
            mean, var = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True)
            return self._conv_forward(x, (w - mean) * torch.rsqrt(var + 1e-5) * 0.1, self.bias)

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = self.Conv(3, 16, 3, padding=1), self.Conv(16, 20, 3, padding=1)
        self.conv3 = nn.Conv2d(20, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))))


@hostile("dynamic_convolution", named=False)
class DynamicConvolution(Bare):
    """Kernels are mixed per sample, and the batch is folded into the channels for one grouped call."""

    def __init__(self) -> None:
        super().__init__(12, 12)
        self.route = nn.Linear(12, 3)
        self.experts = nn.Parameter(torch.empty(3, 16, 12, 3, 3))
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        attention = torch.softmax(self.route(x.mean((2, 3))), 1)
        kernel = torch.einsum("ne,eoikl->noikl", attention, self.experts).reshape(-1, c, 3, 3)
        x = F.conv2d(x.reshape(1, n * c, h, w), kernel, padding=1, groups=n).view(n, -1, h, w)
        return self.last(F.relu(x))


@hostile("sliced_weight")
class SlicedWeight(Bare):
    """A slimmable layer: the kernel is larger than what is used, and sliced to the input's width."""

    def __init__(self) -> None:
        super().__init__(12, 12)
        self.weight = nn.Parameter(torch.empty(16, 20, 3, 3))
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(F.relu(F.conv2d(x, self.weight[:, : x.shape[1]], padding=1)))


@hostile("parameter_list")
class KernelList(Bare):
    def __init__(self) -> None:
        super().__init__(12, 12)
        widths = (12, 20, 14, 12)
        self.kernels = nn.ParameterList(torch.empty(b, a, 1, 1) for a, b in pairwise(widths))

    def middle(self, x: Tensor) -> Tensor:
        for kernel in self.kernels:
            x = F.relu(F.conv2d(x, kernel))
        return x


@hostile("layer_scale")
class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.body = nn.Sequential(unit(16, 24), nn.Conv2d(24, 16, 3, padding=1))
        self.gamma = nn.Parameter(torch.empty(1, 16, 1, 1))
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.gamma * self.body(x))


@hostile("learned_bias")
class LearnedBias(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.bias = nn.Parameter(torch.empty(16))
        self.bias2 = nn.Parameter(torch.empty(20, 1, 1))
        self.conv, self.last = nn.Conv2d(16, 20, 3, padding=1, bias=False), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = F.relu(x + self.bias.view(1, -1, 1, 1))
        return self.last(F.relu(self.conv(x) + self.bias2))


@hostile("position_embedding")
class PositionEmbedding(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.position, self.conv = nn.Parameter(torch.empty(1, 16, 8, 8)), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x + self.position)


@hostile("two_images", tensors((3, 8, 8), (1, 8, 8)))
class TwoImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 16), unit(1, 16)
        self.join = unit(16, 12)
        self.head = pooled(12)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(self.join(self.left(left) + self.right(right)))


@hostile("siamese", tensors((3, 8, 8), (3, 8, 8)))
class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(unit(3, 12), unit(12, 20), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(20, 5)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc((self.trunk(left) - self.trunk(right)).abs())


@hostile("image_and_vector", tensors((3, 8, 8), vector=(7,)))
class ImageAndVector(nn.Module):
    """The vector, passed by name, scales and shifts the features (FiLM)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.film = nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 32))
        self.conv = unit(16, 12)
        self.head = pooled(12)

    def forward(self, image: Tensor, *, vector: Tensor) -> Tensor:
        scale, shift = self.film(vector)[:, :, None, None].chunk(2, 1)
        return self.head(self.conv(self.stem(image) * (1 + scale) + shift))


def image_and_class() -> Inputs:
    """Return images and one class number each."""
    (image,), _ = IMAGE()
    return (image, torch.tensor([3, 8])), {}


@hostile("class_embedding_added", image_and_class)
class ClassEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.embedding, self.conv = unit(3, 16), nn.Embedding(10, 16), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.head(self.conv(F.relu(self.stem(x) + self.embedding(label)[:, :, None, None])))


@hostile("outputs_tuple", kind="tuple")
@hostile("outputs_dict", kind="dict")
@hostile("outputs_nested", kind="nested")
class SeveralOutputs(nn.Module):
    """Two heads share a trunk; the forms differ in how much of it is returned raw."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.trunk = unit(3, 12), unit(12, 20)
        self.classes, self.map = pooled(20), nn.Conv2d(20, 2, 1)

    def forward(self, x: Tensor) -> Any:
        stem = self.stem(x)
        x = self.trunk(stem)
        if self.kind == "tuple":
            return self.classes(x), self.map(x)
        if self.kind == "dict":
            return {"classes": self.classes(x), "map": self.map(x)}
        return {"heads": (self.classes(x), [self.map(x)]), "stem": stem}


@hostile("group_norm_8", named=False, groups=8)
@hostile("group_norm_1", named=False, constant="one statistic over all channels", groups=1)
class GroupNorm(nn.Module):
    """Statistics join the channels of a group: it can go only as a whole."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = unit(3, 12)
        self.conv1, self.norm1 = nn.Conv2d(12, 32, 3, padding=1), nn.GroupNorm(groups, 32)
        self.conv2, self.norm2 = nn.Conv2d(32, 24, 3, padding=1), nn.GroupNorm(groups, 24)
        self.head = pooled(24)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(self.stem(x))))
        return self.head(F.relu(self.norm2(self.conv2(x))))


@hostile("instance_norm", named=False)
class InstanceNorm(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv, self.last = nn.Conv2d(16, 20, 3, padding=1), unit(20, 12)
        self.norm1, self.norm2 = nn.InstanceNorm2d(20, affine=True), nn.InstanceNorm2d(12)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.last(F.relu(self.norm1(self.conv(x))))) + 0.5)


@hostile("batchnorm_variants", named=False)
class NormVariants(Bare):
    """BN without affine, and BN without running statistics."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv1, self.norm1 = nn.Conv2d(16, 20, 3, padding=1), nn.BatchNorm2d(20, affine=False)
        self.conv2, self.norm2 = nn.Conv2d(20, 12, 1), nn.BatchNorm2d(12, track_running_stats=False)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


@hostile("convnext_block", named=False)
class ConvNeXt(nn.Module):
    """The trunk is normalised over its channels, channels last; only the fourfold inside is free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 2, stride=2)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.LayerNorm(12)
        self.fc1, self.fc2 = nn.Linear(12, 48), nn.Linear(48, 12)
        self.gamma = nn.Parameter(torch.empty(12))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.fc2(F.gelu(self.fc1(y)))
        return self.head(x + y.permute(0, 3, 1, 2))


@hostile("response_norm", named=False)
class ResponseNorm(nn.Module):
    """Each channel is divided by the mean response of all (ConvNeXt v2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand, self.reduce = unit(3, 16), unit(16, 24, 1), unit(24, 16, 1)
        self.gamma, self.beta = nn.Parameter(torch.empty(1, 24, 1, 1)), nn.Parameter(torch.empty(1, 24, 1, 1))
        self.last = unit(16, 20)
        self.head = pooled(20)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.expand(x)
        energy = y.square().sum((2, 3), keepdim=True).sqrt()
        y = y + self.gamma * (y * energy / (energy.mean(1, keepdim=True) + 1e-6)) + self.beta
        return self.head(self.last(x + self.reduce(y)))


@hostile("local_response_norm", named=False, constant="normalised over neighbouring channels")
class LocalResponseNorm(Bare):
    def __init__(self) -> None:
        super().__init__(16, 20)
        self.conv = unit(16, 20)
        self.norm = nn.LocalResponseNorm(5, alpha=1.0)

    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm(x)))


@hostile("prelu", named=False)
class PReLU(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.act1, self.act2 = nn.PReLU(16), nn.PReLU()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act2(self.conv2(self.act1(self.conv1(x) - self.stem(x)))))


@hostile("glu", named=False)
class GatedLinearUnit(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv, self.last = nn.Conv2d(16, 28, 3, padding=1), unit(14, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(F.glu(self.conv(x), 1))


@hostile("maxout", named=False, pieces_last=True)
@hostile("maxout_by_slices", pieces_last=False)
class Maxout(Bare):
    def __init__(self, pieces_last: bool) -> None:
        super().__init__(16, 12)
        self.pieces_last = pieces_last
        self.conv, self.last = nn.Conv2d(16, 24, 3, padding=1), unit(12, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, c, h, w = x.shape
        if self.pieces_last:
            return self.last(x.view(n, c // 2, 2, h, w).amax(2))
        return self.last(torch.maximum(x[:, : c // 2], x[:, c // 2 :]))


@hostile("funnel_activation", named=False)
class FunnelActivation(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.funnel, self.conv = unit(16, 16, groups=16, act=False), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(torch.max(x, self.funnel(x)))


@hostile("activations", named=False, kind="common")
@hostile("activations_rare", named=False, kind="rare")
class Activations(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        common = (nn.ReLU6(), nn.SiLU(), nn.GELU(), nn.Hardswish())
        rare = (nn.LeakyReLU(0.1), nn.ELU(), nn.Softplus(), nn.Sigmoid(), nn.Tanh(), nn.Mish(), nn.Hardsigmoid())
        layers: list[nn.Module] = []
        width = 3
        for index, act in enumerate(common if kind == "common" else rare):
            layers += [unit(width, 10 + 2 * index, 1, act=False), act]
            width = 10 + 2 * index
        self.body, self.head = nn.Sequential(*layers), pooled(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@hostile("res2net", named=False, stored=None)
@hostile("res2net_stored_width", named=False, constant="the split width is stored as a number", stored=6)
class Res2Net(nn.Module):
    def __init__(self, stored: int | None) -> None:
        super().__init__()
        self.stored = stored
        self.stem, self.expand = unit(3, 16), unit(16, 24, 1)
        self.convs = nn.ModuleList(unit(6, 6) for _ in range(3))
        self.reduce = unit(24, 16, 1, act=False)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.expand(x)
        pieces = y.chunk(4, 1) if self.stored is None else torch.split(y, self.stored, 1)
        done = [self.convs[0](pieces[0])]
        for conv, piece in zip(list(self.convs)[1:], pieces[1:3], strict=True):
            done.append(conv(done[-1] + piece))
        return self.head(F.relu(x + self.reduce(torch.cat([*done, pieces[3]], 1))))


@hostile("cross_stage_partial", named=False)
class CrossStagePartial(Bare):
    def __init__(self) -> None:
        super().__init__(24, 16)
        self.blocks = nn.ModuleList(nn.Sequential(unit(12, 8, 1), unit(8, 12)) for _ in range(2))
        self.join = unit(36, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        parts = list(x.chunk(2, 1))
        y = parts[1]
        for block in self.blocks:
            y = y + block(y)
        return self.join(torch.cat([*parts, y], 1))


@hostile("selective_kernel", named=False, one_layer=False)
@hostile("selective_kernel_by_view", named=False, one_layer=True)
class SelectiveKernel(Bare):
    """A softmax weighs two branches per channel."""

    def __init__(self, one_layer: bool) -> None:
        super().__init__(12, 20)
        self.branches = nn.ModuleList([unit(12, 16), unit(12, 16, 5)])
        self.squeeze = nn.Linear(16, 8)
        self.selects = nn.ModuleList([nn.Linear(8, 32)] if one_layer else [nn.Linear(8, 16) for _ in range(2)])
        self.last = unit(16, 20, 1)

    def middle(self, x: Tensor) -> Tensor:
        stacked = torch.stack([branch(x) for branch in self.branches], 1)
        code = F.relu(self.squeeze(stacked.sum(1).mean((2, 3))))
        logits = torch.cat([select(code) for select in self.selects], 1).view(x.shape[0], 2, -1)
        return self.last((stacked * logits.softmax(1)[..., None, None]).sum(1))


@hostile("mixed_depthwise_kernels", named=False, by_module=False)
@hostile("mixed_depthwise_kernels_by_module", named=False, by_module=True)
class MixedDepthwise(Bare):
    """Split, convolve each piece with another kernel size, concat; sizes from the shape or from the modules."""

    def __init__(self, by_module: bool) -> None:
        super().__init__(24, 16)
        self.by_module = by_module
        self.convs = nn.ModuleList(unit(8, 8, kernel, groups=8) for kernel in (1, 3, 5))
        self.last = unit(24, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        if self.by_module:
            # Right after a cut only if the cut keeps the modules' own numbers up to date.
            pieces = torch.split(x, [conv[0].in_channels for conv in self.convs], 1)  # type: ignore[index]
        else:
            pieces = torch.chunk(x, 3, 1)
        return self.last(torch.cat([c(piece) for c, piece in zip(self.convs, pieces, strict=True)], 1))


@hostile("dual_path", named=False, literal=False)
@hostile("dual_path_literal", named=False, constant="literal border between the paths", literal=True)
class DualPath(nn.Module):
    """A block's output is cut in two: one part is added, the rest is concatenated."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.stem = unit(3, 16)
        self.block1 = nn.Sequential(unit(16, 10, 1), unit(10, 22, act=False))
        self.block2 = nn.Sequential(unit(22, 12, 1), unit(12, 22, act=False))
        self.last = unit(28, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        added = self.stem(x)
        dense: list[Tensor] = []
        for block in (self.block1, self.block2):
            y = block(torch.cat([added, *dense], 1))
            border = 16 if self.literal else added.shape[1]
            added = added + y[:, :border]
            dense.append(y[:, border:])
        return self.head(self.last(F.relu(torch.cat([added, *dense], 1))))


@hostile("convolutional_block_attention", named=False, constant="mean and maximum over the channels")
class BlockAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 12)
        self.conv = unit(12, 20)
        self.squeeze, self.excite = nn.Linear(20, 8), nn.Linear(8, 20)
        self.spatial = nn.Conv2d(2, 1, 3, padding=1)
        self.last = unit(20, 12)
        self.head = pooled(12)

    def gate(self, x: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))) + self.gate(x.amax((2, 3))))[:, :, None, None]
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.head(self.last(x * torch.sigmoid(self.spatial(maps))))


@hostile("efficient_channel_attention", named=False, constant="a convolution runs along the channel axis")
class EfficientAttention(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.neighbours, self.conv = nn.Conv1d(1, 1, 3, padding=1), unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.neighbours(x.mean((2, 3)).unsqueeze(1)))
        return self.conv(x * gate.transpose(1, 2).unsqueeze(-1))


@hostile("coordinate_attention", named=False)
class CoordinateAttention(Bare):
    """Row and column means are joined along space, squeezed together, and parted again."""

    def __init__(self) -> None:
        super().__init__(20, 12)
        self.squeeze, self.rows, self.columns = unit(20, 8, 1), nn.Conv2d(8, 20, 1), nn.Conv2d(8, 20, 1)
        self.conv = unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        both = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
        rows, columns = torch.split(self.squeeze(both), [h, w], 2)
        gate = torch.sigmoid(self.rows(rows)) * torch.sigmoid(self.columns(columns.permute(0, 1, 3, 2)))
        return self.conv(x * gate)


@hostile("non_local_block", named=False, scaled=False)
@hostile("attention_scaled_by_shape", named=False, scaled=True)
class NonLocal(nn.Module):
    """Attention between positions. Scaled by the queries' width, it changes with every removed query."""

    def __init__(self, scaled: bool) -> None:
        super().__init__()
        self.scaled = scaled
        self.stem = unit(3, 16)
        self.theta, self.phi, self.g = (nn.Conv2d(16, width, 1) for width in (8, 8, 20))
        self.back = nn.Conv2d(20, 16, 1)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = self.theta(x).flatten(2), self.phi(x).flatten(2), self.g(x).flatten(2)
        scores = torch.matmul(q.transpose(1, 2), k)
        scores = scores * q.shape[1] ** -0.5 if self.scaled else scores * 0.2
        y = torch.matmul(v, scores.softmax(-1).transpose(1, 2))
        return self.head(x + self.back(y.view(*y.shape[:2], *x.shape[2:])))


@hostile("attention_over_channels", named=False)
class ChannelAttention(nn.Module):
    """Channels attend to channels: the softmax runs over their Gram matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = unit(3, 20), unit(20, 12), unit(12, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.stem(x))
        flat = x.flatten(2)
        weights = torch.softmax(flat @ flat.transpose(1, 2) / 16, -1)
        return self.head(self.last(x + (weights @ flat).view_as(x)))


@hostile("attention_heads_by_hand", named=False, kind="hand")
@hostile("attention_builtin", named=False, kind="builtin")
class HandAttention(nn.Module):
    """Heads are literal, their width is computed; the built-in form scales by that width."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem = unit(3, 16, stride=2)
        self.qkv, self.project = nn.Linear(16, 72), nn.Linear(24, 16)
        self.fc1, self.fc2 = nn.Linear(16, 32), nn.Linear(32, 16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if self.kind == "hand":
            y = ((q @ k.transpose(-2, -1)) * 0.4).softmax(-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.project(y.transpose(1, 2).reshape(n, t, -1))
        x = x + self.fc2(F.gelu(self.fc1(x)))
        return self.fc(x.mean(1))


@hostile("attention_module", named=False, constant="nn.MultiheadAttention stores its width")
class AttentionModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 12)
        self.embed, self.attention = unit(12, 24, stride=2), nn.MultiheadAttention(24, 4, batch_first=True)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(self.stem(x)).flatten(2).transpose(1, 2)
        return self.fc((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


@hostile("patch_embedding", named=False)
class PatchEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.token, self.position = nn.Parameter(torch.empty(1, 1, 16)), nn.Parameter(torch.empty(1, 5, 16))
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(48, 16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        x = x + self.fc2(F.gelu(self.fc1(self.norm(x))))
        return self.fc(x[:, 0] + x[:, 1:].mean(1))


@hostile("mixer_over_positions", named=False)
class Mixer(nn.Module):
    """Linear layers along positions leave channels alone; an affine per channel stands for the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 20, 2, stride=2)
        self.scale, self.shift = nn.Parameter(torch.empty(20)), nn.Parameter(torch.empty(20))
        self.mix, self.fc1, self.fc2 = nn.Linear(16, 16), nn.Linear(20, 32), nn.Linear(32, 20)
        self.fc = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.mix((x * self.scale + self.shift).transpose(1, 2)).transpose(1, 2)
        x = x + self.fc2(F.relu(self.fc1(x)))
        return self.fc(x.mean(1))


@hostile("linear_over_width", named=False)
class LinearOverWidth(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.columns, self.conv = nn.Linear(8, 6), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(F.relu(self.columns(x)))


@hostile("convolution_across_channels", named=False, constant="a convolution runs along the channel axis")
class ConvolutionAcrossChannels(Bare):
    """Height and channels change places, so a kernel slides over neighbouring channels."""

    def __init__(self) -> None:
        super().__init__(24, 12)
        self.across, self.conv = unit(8, 8), unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(self.across(x.transpose(1, 2)).transpose(1, 2))


@hostile("channels_last_input", tensors((8, 8, 3)), named=False)
class ChannelsLastInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20))
        self.fc1, self.fc2 = nn.Linear(20, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x.permute(0, 3, 1, 2)).movedim(1, -1)
        return self.fc2(F.relu(self.fc1(x)))


@hostile("conv1d", tensors((3, 16)), named=False)
class Conv1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv1d(3, 12, 3, padding=1), nn.BatchNorm1d(12)
        self.conv2, self.norm2 = nn.Conv1d(12, 20, 3, stride=2, padding=1, groups=2), nn.BatchNorm1d(20)
        self.pool, self.fc = nn.AdaptiveMaxPool1d(3), nn.Linear(60, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.fc(self.pool(F.relu(self.norm2(self.conv2(x)))).flatten(1))


@hostile("conv3d", tensors((2, 4, 8, 8)), named=False)
class Conv3d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv3d(2, 10, 3, padding=1, bias=False), nn.BatchNorm3d(10)
        self.conv2, self.norm2 = nn.Conv3d(10, 14, 3, stride=2, padding=1), nn.BatchNorm3d(14)
        self.fc = nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm1(self.conv1(x))), (1, 2, 2))
        return self.fc(F.relu(self.norm2(self.conv2(x))).mean((2, 3, 4)))


@hostile("transposed_convolution_grouped", groups=4)
@hostile("transposed_convolution_depthwise", named=False, groups=16)
class TransposedGrouped(nn.Module):
    """In a transposed kernel the output axis holds the outputs of one group only."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.up = nn.ConvTranspose2d(16, 32, 3, stride=2, padding=1, output_padding=1, groups=groups)
        self.norm, self.head = nn.BatchNorm2d(32), nn.Conv2d(32, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.up(self.stem(x)))))


@hostile("pad_with_ones", named=False, mode="constant")
@hostile("pad_reflect", named=False, mode="reflect")
class Pad(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(16, 12)
        self.mode = mode
        self.conv = nn.Conv2d(16, 12, 3)

    def middle(self, x: Tensor) -> Tensor:
        value = 1.0 if self.mode == "constant" else None
        return F.relu(self.conv(F.pad(x, (1, 1, 1, 1), mode=self.mode, value=value)))


@hostile("convolution_padding_modes", named=False)
class PaddingModes(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv1 = nn.Conv2d(16, 20, 3, padding=1, padding_mode="circular")
        self.conv2 = nn.Conv2d(20, 12, 3, padding="same", dilation=2)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


@hostile("poolings", WIDE_IMAGE, named=False)
class Poolings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = unit(3, 10), unit(10, 14), unit(14, 18)
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1)
        self.average, self.maximum = nn.AdaptiveAvgPool2d((2, 1)), nn.AdaptiveMaxPool2d(1)
        self.fc = nn.Linear(54, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3(self.pool2(self.conv2(self.pool1(self.conv1(x)))))
        return self.fc(torch.cat([self.average(x).flatten(1), self.maximum(x).flatten(1)], 1))


@hostile("unpool_by_indices", named=False)
class Unpool(nn.Module):
    """Positions found when pooling one tensor place the values of another: their channels are tied."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.decode = unit(3, 16), unit(16, 16), unit(16, 12)
        self.pool, self.unpool = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, where = self.pool(self.stem(x))
        return self.head(self.decode(self.unpool(self.conv(x), where)))


@hostile("interpolate", named=False)
class Interpolate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = unit(3, 16), unit(16, 20, stride=2), unit(20, 12)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(self.conv2(self.conv1(x)), scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(F.interpolate(self.conv3(y), size=(5, 5), mode="nearest"))


@hostile("dropout", named=False)
class Dropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), nn.Dropout2d(0.2), unit(16, 12), nn.Dropout(0.2))
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.dropout(self.body(x).mean((2, 3)), 0.3, self.training))


@hostile("einsum_classifier", named=False)
class EinsumClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20))
        self.weight = nn.Parameter(torch.empty(5, 20))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kc->nk", self.body(x), self.weight) / 64


@hostile("matmul_projection", named=False)
class MatmulProjection(Bare):
    """A pointwise convolution written as a batch of matrix products with the weight on the left."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.weight, self.last = nn.Parameter(torch.empty(20, 16)), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return self.last(F.relu(torch.matmul(self.weight, x.flatten(2)).view(n, -1, h, w)))


@hostile("cosine_classifier", named=False)
class CosineClassifier(nn.Module):
    """The feature's length counts channels that no classifier weight can silence."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), unit(16, 20), unit(20, 12))
        self.weight = nn.Parameter(torch.empty(5, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = F.normalize(self.body(x).mean((2, 3)), dim=1)
        return F.linear(x, F.normalize(self.weight, dim=1)) * 4


@hostile("bilinear_pooling", named=False)
class BilinearPooling(nn.Module):
    """Every pair of channels becomes a feature."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = unit(3, 16), unit(16, 8), unit(16, 10)
        self.fc = nn.Linear(80, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        pairs = torch.einsum("nchw,ndhw->ncd", self.left(x), self.right(x)) / 64
        return self.fc(pairs.flatten(1))


@hostile("stack_and_sum", named=False)
class StackAndSum(Bare):
    def __init__(self) -> None:
        super().__init__(12, 20)
        self.branches = nn.ModuleList(unit(12, 16, kernel) for kernel in (1, 3, 5))
        self.last = unit(16, 20)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(torch.stack([branch(x) for branch in self.branches]).sum(0))


@hostile("where", named=False)
class Where(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12, act=False)
        self.other, self.mask, self.last = unit(3, 16, 1), nn.Conv2d(16, 1, 1), unit(16, 12)
        self.slope = nn.Parameter(torch.empty(1, 16, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y = torch.where(y > 0, y, self.slope * y)
        return self.head(self.last(torch.where(self.mask(y) > 0, y, self.other(x))))


@hostile("in_place", named=False)
class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv1, self.conv2 = unit(3, 16), unit(16, 16, act=False), unit(16, 16, act=False)
        self.last = nn.Sequential(nn.Conv2d(16, 12, 1), nn.BatchNorm2d(12), nn.ReLU(inplace=True))
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv1(x)
        y.add_(x).relu_()
        z = self.conv2(y)
        z += y
        z *= 0.7
        return self.head(self.last(z))


@hostile("in_place_on_view", named=False)
class InPlaceOnView(nn.Module):
    """Writing to a slice changes the tensor it was taken from."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate, self.last = unit(3, 16, act=False), unit(3, 8, 1), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        y[:, : y.shape[1] // 2].add_(self.gate(x))
        return self.head(self.last(F.relu(y)))


@hostile("assign_to_slices", named=False)
class AssignToSlices(nn.Module):
    """A concat written as assignments into an empty tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.last = unit(3, 10), unit(3, 14, 1), unit(24, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        y = x.new_zeros(x.shape[0], a.shape[1] + b.shape[1], *x.shape[2:])
        y[:, : a.shape[1]] = a
        y[:, a.shape[1] :] = b
        return self.head(self.last(y))


@hostile("roll_space", named=False, mode="space")
@hostile("roll_channels", named=False, constant="channels are rolled by a literal", mode="channels")
class Roll(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(16, 12)
        self.mode = mode
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        rolled = torch.roll(x, (1, -2), (2, 3)) if self.mode == "space" else torch.roll(x, 1, 1)
        return self.conv(x + rolled)


@hostile("flip_channels", named=False, add=False)
@hostile("flip_channels_and_add", named=False, add=True)
class FlipChannels(Bare):
    """Added to its mirror image, each channel is tied to the one opposite."""

    def __init__(self, add: bool) -> None:
        super().__init__(16, 12)
        self.add = add
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x + x.flip(1) if self.add else x.flip(1))


@hostile("repeat_channels", named=False, mode="repeat")
@hostile("tile_channels", named=False, mode="tile")
@hostile("repeat_interleave_channels", named=False, mode="interleave")
class RepeatChannels(Bare):
    def __init__(self, mode: str) -> None:
        super().__init__(12, 16)
        self.mode = mode
        self.conv = unit(24, 16)

    def middle(self, x: Tensor) -> Tensor:
        if self.mode == "repeat":
            x = x.repeat(1, 2, 1, 1)
        elif self.mode == "tile":
            x = torch.tile(x, (2, 1, 1))
        else:
            x = torch.repeat_interleave(x, 2, dim=1)
        return self.conv(x)


@hostile("unbind", named=False)
class Unbind(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.conv = unit(12, 12)

    def middle(self, x: Tensor) -> Tensor:
        a, b = torch.unflatten(x, 1, (2, -1)).unbind(1)
        return self.conv(a * torch.sigmoid(b))


@hostile("unfold", named=False)
class Unfold(Bare):
    def __init__(self) -> None:
        super().__init__(12, 12)
        self.weight, self.last = nn.Parameter(torch.empty(20, 108)), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        patches = F.unfold(x, 3, padding=1)
        return self.last(F.relu((self.weight @ patches).view(n, -1, h, w)))


@hostile("normalisation_buffers", named=False)
class NormalisationBuffers(nn.Module):
    mean: Tensor
    std: Tensor
    offset: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        rng = generator("normalisation")
        self.register_buffer("mean", torch.rand(3, 1, 1, generator=rng))
        self.register_buffer("std", torch.rand(3, 1, 1, generator=rng) + 0.5)
        self.register_buffer("offset", torch.randn(1, 16, 1, 1, generator=rng))
        # Some channels are silenced already, by a buffer and not by a weight.
        self.register_buffer("mask", (torch.rand(20, generator=rng) < 0.7).float())
        self.conv1, self.conv2, self.conv3 = unit(3, 16), unit(16, 20), unit(20, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1((x - self.mean) / self.std) - self.offset
        return self.head(self.conv3(self.conv2(x) * self.mask.view(1, -1, 1, 1)))


@hostile("frozen_batchnorm", named=False)
class FrozenBatchNorm(Bare):
    class Norm(nn.Module):
        weight: Tensor
        bias: Tensor
        mean: Tensor
        variance: Tensor

        def __init__(self, width: int) -> None:
            super().__init__()
            rng = generator(f"frozen {width}")
            for name in ("weight", "variance"):
                self.register_buffer(name, torch.rand(width, generator=rng) + 0.5)
            for name in ("bias", "mean"):
                self.register_buffer(name, torch.randn(width, generator=rng) * 0.3)

        def forward(self, x: Tensor) -> Tensor:
            scale = self.weight * (self.variance + 1e-5).rsqrt()
            shift = self.bias - self.mean * scale
            return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv1, self.norm1 = nn.Conv2d(16, 20, 3, padding=1, bias=False), self.Norm(20)
        self.conv2, self.norm2 = nn.Conv2d(20, 12, 3, padding=1, bias=False), self.Norm(12)

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


@hostile("branch_on_shape", named=False)
class BranchOnShape(Bare):
    def __init__(self, flag: bool = True) -> None:
        super().__init__(16, 12)
        self.flag = flag
        self.one, self.two, self.last = unit(16, 20), unit(16, 20, 1), unit(20, 12)

    def middle(self, x: Tensor) -> Tensor:
        x = self.one(x) if x.shape[-1] > 4 else self.two(x)
        return self.last(F.max_pool2d(x, 2) if self.flag else x)


@hostile("branch_on_width", named=False, constant="the forward compares a width with a literal")
class BranchOnWidth(Bare):
    """After a cut the other branch would run."""

    def __init__(self) -> None:
        super().__init__(24, 12)
        self.last = unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(x * 2 if x.shape[1] < 24 else F.avg_pool2d(x, 2))


@hostile("scaled_by_width", named=False, constant="activations are divided by their width")
class ScaledByWidth(Bare):
    def __init__(self) -> None:
        super().__init__(16, 24)
        self.conv = unit(16, 24)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(x / x.shape[1] ** 0.5)
        return x * (4 / x.size(1))


@hostile("centred_over_channels", named=False, constant="the mean over channels is subtracted")
class CentredOverChannels(Bare):
    def __init__(self) -> None:
        super().__init__(24, 12)
        self.conv = unit(24, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.conv(x - x.mean(dim=1, keepdim=True))


@hostile("softmax_over_channels", named=False)
class SoftmaxOverChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.last = unit(3, 20), unit(20, 12, act=False), unit(12, 16)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(4 * torch.softmax(self.conv(self.stem(x)), 1))).log_softmax(1)


@hostile("sum_over_channels", named=False)
class SumOverChannels(nn.Module):
    """The last channels are summed without any weight that could be zeroed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), unit(16, 20), unit(20, 12, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).square().sum(1)


@hostile("dead_branch", named=False)
class DeadBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dead, self.last = unit(3, 16), unit(16, 20), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.dead(x).mean()
        return self.head(self.last(x))


@hostile("unused_parameter", named=False)
class UnusedParameter(Bare):
    def __init__(self) -> None:
        super().__init__(16, 12)
        self.ghost, self.unused = nn.Parameter(torch.empty(16)), nn.Conv2d(16, 16, 3)
        self.last = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        return self.last(x)


@hostile("raw_feature_map", named=False, residual=False)
@hostile("raw_feature_map_of_residual", named=False, residual=True)
class RawFeatureMap(nn.Module):
    """The network's output is a hidden map: its channels are the user's and may not change."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.stem = unit(3, 12)
        self.body = nn.Sequential(unit(12, 24), unit(24, 20), unit(20, 12, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return x + self.body(x) if self.residual else self.body(x)


@hostile("detection_head", named=False)
class DetectionHead(nn.Module):
    """Output channels are anchors times fields, unfolded by a literal view."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), unit(12, 20, stride=2))
        self.head = nn.Conv2d(20, 21, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.body(x))
        return x.view(x.shape[0], 3, 7, *x.shape[2:]).permute(0, 1, 3, 4, 2).reshape(x.shape[0], -1, 7)


@hostile("arithmetic_multiply", named=False, mode="multiply")
@hostile("arithmetic_subtract_divide", named=False, mode="divide")
@hostile("arithmetic_maximum", named=False, mode="maximum")
@hostile("arithmetic_highway", named=False, mode="highway")
class Arithmetic(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.left, self.right = unit(3, 16), unit(3, 16, 1, act=False)
        self.last = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.left(x), self.right(x)
        if self.mode == "multiply":
            y = a * b
        elif self.mode == "divide":
            y = (a - b) / (1 + b.abs())
        elif self.mode == "maximum":
            y = torch.maximum(a, b)
        else:
            gate = torch.sigmoid(b)
            y = gate * a + (1 - gate) * b
        return self.head(self.last(y))


@hostile("recurrent_over_rows", named=False)
class RecurrentOverRows(nn.Module):
    """An LSTM, an operator that no channel rule is likely to know, reads the pooled rows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 16), unit(16, 20), unit(20, 10))
        self.lstm, self.fc = nn.LSTM(10, 8, batch_first=True), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.body(x).mean(3).transpose(1, 2)
        return self.fc(self.lstm(rows)[0][:, -1])


@hostile("convolutional_recurrence", named=False)
class ConvolutionalRecurrence(nn.Module):
    """Two steps of a convolutional LSTM: four gates in one convolution, the state fed back by a concat."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gates = unit(3, 12), nn.Conv2d(22, 40, 3, padding=1)
        self.head = pooled(10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        state = x.new_zeros(x.shape[0], self.gates.out_channels // 4, *x.shape[2:])
        memory = torch.zeros_like(state)
        for _ in range(2):
            i, f, o, g = self.gates(torch.cat([x, state], 1)).chunk(4, 1)
            memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
            state = torch.sigmoid(o) * torch.tanh(memory)
        return self.head(state)


@hostile("channel_shift_in_space", named=False)
class ChannelShift(Bare):
    """A quarter of the channels moves left, a quarter right; sizes come from the shape."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.conv = unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        fold = x.shape[1] // 4
        left, right = x[:, :fold].roll(1, 3), x[:, fold : 2 * fold].roll(-1, 3)
        return self.conv(torch.cat([left, right, x[:, 2 * fold :]], 1))


@hostile("adaptive_instance_norm", tensors((3, 8, 8), (7,)), named=False)
class AdaptiveInstanceNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.style = unit(3, 16), nn.Linear(7, 32)
        self.conv = unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.style(style).view(x.shape[0], 2, -1, 1, 1).unbind(1)
        return self.head(self.conv(F.relu(F.instance_norm(self.stem(x)) * scale + shift)))


@hostile("frequency_filter", named=False)
class FrequencyFilter(Bare):
    """Features are filtered in the frequency domain, with complex numbers."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.filter, self.conv = nn.Parameter(torch.empty(16, 8, 5)), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm="ortho") * self.filter * 4
        return self.conv(torch.fft.irfft2(spectrum, s=x.shape[2:], norm="ortho"))


@hostile("grid_sampling", named=False)
class GridSampling(Bare):
    """A small branch predicts where the features are read (spatial transformer)."""

    def __init__(self) -> None:
        super().__init__(16, 12)
        self.locate, self.conv = pooled(16, 6), unit(16, 12)

    def middle(self, x: Tensor) -> Tensor:
        grid = F.affine_grid(torch.tanh(self.locate(x)).view(-1, 2, 3), list(x.shape), align_corners=False)
        return self.conv(F.grid_sample(x, grid, align_corners=False))
