"""What the networks share: how one is registered, drawn and fed.

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
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

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
