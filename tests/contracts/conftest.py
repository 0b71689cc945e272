"""One small network for every contract: what is added to the registry is tried on it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.graph.graph import Graph
from penjing.graph.trace import plain, trace


class Block(nn.Module):
    """A residual block that may be left out whole."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.relu(x + self.norm(self.conv(x)))
        return y


class Net(nn.Module):
    """Batch norm everywhere, a residual stream, a depthwise convolution, a flatten before the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.expand, self.norm1 = nn.Conv2d(8, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depthwise, self.norm2 = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False), nn.BatchNorm2d(12)
        self.project, self.norm3 = nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.block = Block(8)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = F.relu(self.norm2(self.depthwise(F.relu(self.norm1(self.expand(x))))))
        x = self.block(F.relu(x + self.norm3(self.project(y))))
        logits: Tensor = self.head(F.avg_pool2d(x, 4).flatten(1))
        return logits


@pytest.fixture(scope="package")
def traced() -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    model = Net()
    for _ in range(3):
        model(torch.randn(32, 3, 8, 8))
    model = plain(model)
    return model, trace(model, (torch.randn(2, 3, 8, 8),))
