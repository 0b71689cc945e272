"""Builders and networks that go wrong, each in its own way; a comment marks the line that is to blame."""

from pathlib import Path

import torch
from torch import nn


def raising() -> nn.Module:
    """Fail, as a user's builder may."""
    raise FileNotFoundError("no config net.toml")


def nothing() -> None:
    """Forget to return."""


def leaving() -> nn.Module:
    """Leave, as a script does that was meant to be run."""
    raise SystemExit("usage: net.py CONFIG")


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.stem(x).relu())
        return self.head(self.body(x).relu().mean((2, 3)))

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Choosing(_Net):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        if x.mean() > 0:  # control flow
            return x
        return -x


class Unexportable(_Net):
    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.linalg.svdvals(x).mean()  # no ONNX


class Sorting(_Net):
    """What a layer reads depends on the order of all channels: no channel may go, and none is free."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu().sort(dim=1).values  # sorted channels
        x = self.body(x).relu().sort(dim=1).values
        return self.head(x.mean((2, 3)))


class Unfinite(_Net):
    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.body.weight[0], torch.nan)


def line_of(mark: str) -> str:
    """Return file and number of the marked line, as messages name it."""
    lines = Path(__file__).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if line.endswith(f"# {mark}")]
    return f"{Path(__file__).name}:{number}"
