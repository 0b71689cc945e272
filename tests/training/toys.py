"""Tiny data and nets for the training tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

CENTRES = np.random.default_rng(123).normal(size=(4, 3, 1, 1)).astype(np.float32)
"""One colour a class."""


@dataclass(frozen=True)
class ToySplit:
    """Four well separated classes of 3 x 6 x 6 pictures; augmentation adds noise that depends on seed and epoch."""

    x: np.ndarray
    labels: np.ndarray
    labelled: bool = True
    poison: tuple[int, int] | None = None  # (epoch, batch) that becomes NaN

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int, *, seed: int | None = None, epoch: int = 0, augment: bool = False) -> Iterator:
        rng = np.random.default_rng([epoch, seed or 0])
        order = np.arange(len(self)) if seed is None else rng.permutation(len(self))
        for number, start in enumerate(range(0, len(self), size)):
            index = order[start : start + size]
            x = self.x[index]
            if augment:
                x = x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
            if (epoch, number) == self.poison:
                x = x * np.float32("nan")
            yield torch.from_numpy(x), torch.from_numpy(self.labels[index]) if self.labelled else None


def toy(n: int = 50, *, seed: int = 0, noise: float = 1.0, labelled: bool = True) -> ToySplit:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    x = CENTRES[labels] + noise * rng.normal(size=(n, 3, 6, 6)).astype(np.float32)
    return ToySplit(x, labels, labelled)


def poisoned(split: ToySplit, epoch: int, batch: int) -> ToySplit:
    return replace(split, poison=(epoch, batch))


class Plain(nn.Module):
    """Two convolutions and a linear layer, without batch norm."""

    def __init__(self, classes: int = 4, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        self.linear = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.linear(self.drop(x.mean((2, 3))))


class Normed(nn.Module):
    """A convolution, batch norm, dropout and a linear layer."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.2)
        self.linear = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(torch.relu(self.bn(self.conv(x))).mean((2, 3))))


def built(kind: type[nn.Module], seed: int = 0, **options: object) -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return kind(**options)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
