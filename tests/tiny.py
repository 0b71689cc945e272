"""A network and a data set so small that the whole line runs in seconds."""

import copy
import functools
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from penjing.data import load
from penjing.training.loop import Options, fit


class TinyNet(nn.Module):
    """Two convolutions, a residual block, a linear layer."""

    def __init__(self, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn0(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def tiny() -> nn.Module:
    """Build it with fixed weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TinyNet()


def skilled() -> nn.Module:
    """Build it with weights that tell the stripes of ``pictures`` apart, most of the time."""
    return copy.deepcopy(_trained())


@functools.cache
def _trained() -> nn.Module:
    model = tiny()
    with tempfile.TemporaryDirectory() as folder:
        data = load(pictures(Path(folder)), seed=0)
        fit(model, data.train, data.val, Options(epochs=6, lr=0.05, batch=16), seed=0)
    return model.eval()


def failing() -> nn.Module:
    """Fail, as a user's builder may."""
    raise ValueError("no such config")


def pictures(folder, per_class: int = 40, classes: int = 3, seed: int = 0):
    """Write train.npz and test.npz, sorted by class: bright stripes whose direction is the class."""
    rng = np.random.default_rng(seed)
    for name, count in (("train", per_class), ("test", per_class // 2)):
        x = rng.integers(0, 90, (classes * count, 8, 8, 3), dtype=np.uint8)
        y = np.repeat(np.arange(classes), count)
        for i, c in enumerate(y):
            if c == 0:
                x[i, 2:4] += 120
            elif c == 1:
                x[i, :, 2:4] += 120
            else:
                x[i, np.arange(8), np.arange(8)] += 120
        np.savez(folder / f"{name}.npz", x=x, y=y)
    return folder
