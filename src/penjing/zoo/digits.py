"""A small network for scikit-learn's 8 x 8 digits, whose trained weights travel with the package."""

from __future__ import annotations

from importlib.resources import as_file, files

import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.zoo.initial import he_normal
from penjing.zoo.weights import load_weights

EMBEDDED = files("penjing.zoo") / "digits_net.safetensors"
"""Weights trained on train of the digits' split 0, whose test and validation pictures they have not seen."""


class DigitsBlock(nn.Module):
    """Add two 3x3 convolutions to their input.

    Shapes: x [n, planes, h, w] → the same.
    """

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after the last ReLU."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(x + y)


class DigitsNet(nn.Module):
    """Classify 8 x 8 grey digits with three plain convolutions around two residual blocks.

    It never leaves the full 8 x 8 resolution: 51.9 M MACs from 0.81 M parameters, enough work for a
    latency budget to be measurable (about half a millisecond on one core) in a file of 3 MB.

    Shapes: x [n, 1, 8, 8] → logits [n, num_classes].
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, 128, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(128)
        self.block1 = DigitsBlock(128)
        self.block2 = DigitsBlock(128)
        self.conv3 = nn.Conv2d(128, 128, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(128)
        self.linear = nn.Linear(128, num_classes)
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(self.block2(self.block1(x)))))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


def digits_net(num_classes: int = 10, pretrained: bool = False) -> DigitsNet:
    """Build the digits network (814,538 parameters), with the embedded weights if ``pretrained``.

    Raises: RecipeError when the weights do not fit ``num_classes`` or are absent from the installation.
    """
    if pretrained and num_classes != 10:
        raise RecipeError(f"The embedded weights of digits_net have 10 classes, not {num_classes}.")
    model = DigitsNet(num_classes)
    if not pretrained:
        return model
    if not EMBEDDED.is_file():
        raise RecipeError(
            f"The embedded weights of digits_net are absent from this installation ({EMBEDDED}): "
            "install penjing again, or call digits_net() and train it."
        )
    with as_file(EMBEDDED) as path:
        load_weights(model, path)
    return model


def trained() -> nn.Module:
    """Return the network with the weights that ship with the package."""
    return digits_net(pretrained=True)
