"""SqueezeNet 1.0 and 1.1: as published for 224 x 224 pictures, and a form for 32 x 32 pictures.

Paper: Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016, sections 3.2 and 3.3 and
table 1; 1.1 is of the authors' released code. Parameter names are torchvision's. Weights start as in the rest of the
zoo, those of the last convolution N(0, 0.01²), as released.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.zoo.initial import he_normal
from penjing.zoo.widths import scaled

FIRES = (16, 16, 32, 32, 48, 48, 64, 64)
"""The squeezed channels of the eight fire modules; each half of the expanded ones is four times as wide."""

POOLS = {"1.0": (0, 3, 7), "1.1": (0, 2, 4)}
"""Before which fire modules a max-pool halves height and width."""


class Fire(nn.Module):
    """Squeeze by a 1x1 convolution, then put a 1x1 and a 3x3 convolution side by side.

    Shapes: x [n, inputs, h, w] → [n, 8 * squeezed, h, w].
    Paper: Iandola et al., 2016, section 3.2, figure 1.
    """

    def __init__(self, inputs: int, squeezed: int, norm: bool) -> None:
        super().__init__()
        half = 4 * squeezed
        self.squeeze = nn.Conv2d(inputs, squeezed, 1, bias=not norm)
        self.expand1x1 = nn.Conv2d(squeezed, half, 1, bias=not norm)
        self.expand3x3 = nn.Conv2d(squeezed, half, 3, padding=1, bias=not norm)
        self.norm1: nn.Module = nn.BatchNorm2d(squeezed) if norm else nn.Identity()
        self.norm2: nn.Module = nn.BatchNorm2d(2 * half) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return both halves after the ReLU."""
        x = F.relu(self.norm1(self.squeeze(x)))
        return F.relu(self.norm2(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1)))


class SqueezeNet(nn.Module):
    """Classify colour pictures with a convolution, eight fire modules and a 1x1 convolution whose maps are averaged.

    ``width`` multiplies the squeezed channels, and with them all channels of the fire modules.

    Shapes: x [n, 3, h, w] (224 x 224 in the paper) → logits [n, num_classes].
    """

    def __init__(
        self, stem: list[nn.Module], pools: tuple[int, ...], num_classes: int, width: float, norm: bool
    ) -> None:
        super().__init__()
        layers = list(stem)
        inputs = next(layer.out_channels for layer in stem if isinstance(layer, nn.Conv2d))
        for i, squeezed in enumerate(scaled(channels, width) for channels in FIRES):
            if i in pools:
                # Rounding up, as the released code does, leaves a row and a column more.
                layers.append(nn.MaxPool2d(3, stride=2, ceil_mode=True))
            layers.append(Fire(inputs, squeezed, norm))
            inputs = 8 * squeezed
        self.features = nn.Sequential(*layers)
        last = nn.Conv2d(inputs, num_classes, 1)
        # Logits of pictures of the published size pass a ReLU too, as in the paper.
        self.classifier = nn.Sequential(nn.Dropout(0.5), last, *([] if norm else [nn.ReLU()]), nn.AdaptiveAvgPool2d(1))
        he_normal(self)
        nn.init.normal_(last.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.features(x)).flatten(1)
        return logits


def squeezenet1_0(num_classes: int = 1000, width: float = 1.0) -> SqueezeNet:
    """Build SqueezeNet 1.0 for 224 x 224 pictures (1,248,424 parameters, 819 million MACs).

    ``width`` multiplies the channels of every layer but the last; the paper has none but 1.

    Raises: RecipeError for a width at which a layer has no channel.
    """
    stem = nn.Conv2d(3, scaled(96, width), 7, stride=2)
    return SqueezeNet([stem, nn.ReLU()], POOLS["1.0"], num_classes, width, norm=False)


def squeezenet1_1(num_classes: int = 1000, width: float = 1.0) -> SqueezeNet:
    """Build SqueezeNet 1.1 for 224 x 224 pictures (1,235,496 parameters, 349 million MACs).

    ``width`` and raises: as ``squeezenet1_0``.
    """
    stem = nn.Conv2d(3, scaled(64, width), 3, stride=2)
    return SqueezeNet([stem, nn.ReLU()], POOLS["1.1"], num_classes, width, norm=False)


def squeezenet1_0_cifar(num_classes: int = 10, width: float = 1.0) -> SqueezeNet:
    """Build SqueezeNet 1.0 for 32 x 32 pictures (732,010 parameters, 53 million MACs).

    Differs: the first convolution is 3x3 at stride 1, padded, so that the fire modules see 16 x 16, 8 x 8 and 4 x 4;
    batch norm follows every convolution but the last, in place of its bias; and the logits pass no ReLU, behind which
    one of few classes may stay zero for good.
    ``width`` and raises: as ``squeezenet1_0``.
    """
    return SqueezeNet(_small_stem(scaled(96, width)), POOLS["1.0"], num_classes, width, norm=True)


def squeezenet1_1_cifar(num_classes: int = 10, width: float = 1.0) -> SqueezeNet:
    """Build SqueezeNet 1.1 for 32 x 32 pictures (730,570 parameters, 24 million MACs).

    Differs, ``width`` and raises: as ``squeezenet1_0_cifar``.
    """
    return SqueezeNet(_small_stem(scaled(64, width)), POOLS["1.1"], num_classes, width, norm=True)


def _small_stem(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
