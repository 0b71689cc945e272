"""Network in Network for 32 x 32 pictures: 1x1 convolutions behind each larger one, and no linear layer.

Paper: Lin, Chen and Yan, Network In Network, ICLR 2014, sections 3 and 4. Layers are those of the authors' released
configuration for CIFAR-10, and so are their names and starting weights, N(0, 0.05²).
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo.widths import scaled


class NetworkInNetwork(nn.Module):
    """Classify colour pictures with three convolutions, each followed by two of 1x1, whose last maps are averaged.

    ``width`` multiplies the channels of every layer but the last; weights start at N(0, 0.05² / width), so that sums of
    fewer are as large.

    Shapes: x [n, 3, h, w] (32 x 32 in the paper) → logits [n, num_classes].
    """

    def __init__(self, num_classes: int, width: float) -> None:
        super().__init__()
        wide, less, least = (scaled(channels, width) for channels in (192, 160, 96))
        self.conv1 = nn.Conv2d(3, wide, 5, padding=2)
        self.cccp1 = nn.Conv2d(wide, less, 1)
        self.cccp2 = nn.Conv2d(less, least, 1)
        self.conv2 = nn.Conv2d(least, wide, 5, padding=2)
        self.cccp3 = nn.Conv2d(wide, wide, 1)
        self.cccp4 = nn.Conv2d(wide, wide, 1)
        self.conv3 = nn.Conv2d(wide, wide, 3, padding=1)
        self.cccp5 = nn.Conv2d(wide, wide, 1)
        self.cccp6 = nn.Conv2d(wide, num_classes, 1)
        self.drop = nn.Dropout(0.5)
        for module in self.children():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.05 / math.sqrt(width))
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.relu(self.cccp2(F.relu(self.cccp1(F.relu(self.conv1(x))))))
        x = self.drop(F.max_pool2d(x, 3, 2, 1))
        x = F.relu(self.cccp4(F.relu(self.cccp3(F.relu(self.conv2(x))))))
        x = self.drop(F.avg_pool2d(x, 3, 2, 1))
        x = F.relu(self.cccp6(F.relu(self.cccp5(F.relu(self.conv3(x))))))
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def nin_cifar(num_classes: int = 10, width: float = 1.0) -> NetworkInNetwork:
    """Build Network in Network for 32 x 32 pictures (966,986 parameters, 222 million MACs).

    ``width`` multiplies the channels of every layer but the last; the paper has none but 1.

    Raises: RecipeError for a width at which a convolution has no channel.
    """
    return NetworkInNetwork(num_classes, width)
