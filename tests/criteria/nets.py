"""Small networks whose sites and readers are known by construction, and single-image measurements of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.registry import build
from penjing.core.sites import Site
from penjing.graph.evidence import Evidence
from penjing.graph.trace import plain, trace
from penjing.rewrites.channels import channels
from penjing.rewrites.weights import weights

Batches = list[tuple[Tensor, Tensor | None]]


class Mixed(nn.Module):
    """A residual stream with three readers, a depthwise convolution, and a flatten before the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.expand, self.norm1 = nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6)
        self.depthwise, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6)
        self.project, self.norm3 = nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 5, 3, padding=1), nn.Conv2d(5, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Linear(64, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = F.relu(self.norm2(self.depthwise(F.relu(self.norm1(self.expand(x))))))
        x = F.relu(x + self.norm3(self.project(y)))
        x = F.relu(x + self.outer(F.relu(self.inner(x))))
        x = F.avg_pool2d(F.relu(self.last(x)), 2).flatten(1)
        logits: Tensor = self.head(x)
        return logits


READERS = {
    "stem": ["expand", "inner", "last"],
    "expand": ["depthwise", "project"],
    "inner": ["outer"],
    "last": ["head"],
}
"""Which layers read each site of ``Mixed``, told by its author and not by the graph."""

LEAVES = READERS | {"expand": ["project"]}
"""The readers that carry a gate: a depthwise convolution hands its units on."""


class Chain(nn.Module):
    """Two convolutions and a head, with or without batch norm; every channel of the first fires."""

    def __init__(self, norm: bool, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=not norm)
        self.norm1: nn.Module = nn.BatchNorm2d(width) if norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        logits: Tensor = self.head(F.relu(self.conv2(x)).mean((2, 3)))
        return logits


def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and running statistic a telling value, in place."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.rand(module.weight.shape, generator=rng) + 0.5)
                module.bias.copy_(torch.rand(module.bias.shape, generator=rng) - 0.2)
                module.running_mean.copy_(torch.randn(module.bias.shape, generator=rng) * 0.2)
                module.running_var.copy_(torch.rand(module.bias.shape, generator=rng) + 0.5)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=rng) * (2 / fan) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(torch.rand(module.bias.shape, generator=rng) * 0.4 - 0.1)
    return model.eval()


def images(n: int, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(100 + seed))


def batches(x: Tensor, y: Tensor | None, *sizes: int) -> Batches:
    assert sum(sizes) == len(x)
    labels = [None] * len(sizes) if y is None else y.split(sizes)
    return list(zip(x.split(sizes), labels, strict=True))


def evidence(model: nn.Module, data: Batches = (), example: Tensor | None = None, seed: int = 0) -> Evidence:  # type: ignore[assignment]
    model = plain(model)
    return Evidence(model, trace(model, (images(2) if example is None else example,)), data, seed)


def again(given: Evidence, data: Batches | None = None) -> Evidence:
    """Return fresh evidence of the same model and graph, on the same data or other."""
    return Evidence(given.model, given.graph, given.batches if data is None else data, given.seed)


def site(given: Evidence, name: str) -> Site:
    found = channels().find(given.graph) + weights().find(given.graph)
    return next(s for s in found if s.name == name)


def score(spec: object, given: Evidence, name: str) -> Tensor:
    result: Tensor = build("criterion", spec)(site(given, name), given)
    return result


def probed(activations: Tensor, relu: bool = True) -> Evidence:
    """Return evidence in which a layer reads just these activations [n, c, h, w] of site ``0``."""
    width = activations.shape[1]
    first = nn.Conv2d(width, width, 1, bias=False)
    first.weight.data = torch.eye(width)[:, :, None, None]
    middle = nn.ReLU() if relu else nn.Identity()
    model = nn.Sequential(first, middle, nn.Conv2d(width, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return evidence(model, [(activations, None)], activations[:2])


@contextmanager
def watching(model: nn.Module, names: list[str], see: Callable[[str, Tensor], Tensor | None]) -> Iterator[None]:
    """Call ``see(name, input)`` before each module; what it returns, if anything, is read instead."""
    hooks = []
    for name in names:

        def before(_: nn.Module, args: tuple[Tensor], name: str = name) -> tuple[Tensor] | None:
            seen = see(name, args[0])
            return None if seen is None else (seen,)

        hooks.append(model.get_submodule(name).register_forward_pre_hook(before))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def inputs_of(model: nn.Module, names: list[str], x: Tensor) -> dict[str, list[Tensor]]:
    """Return what each module reads, image by image, each [units, entries...] for ``Mixed``."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    with torch.no_grad(), watching(model, names, lambda name, value: seen[name].append(value.clone())):
        for image in x:
            model(image[None])
    return {n: [v[0] if v.dim() == 4 else v[0].view(4, 16) for v in values] for n, values in seen.items()}
