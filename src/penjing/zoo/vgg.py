"""VGG: as published for 224 x 224 pictures, and with batch norm in the form used for 32 x 32 pictures.

Paper: Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, table 1, configurations A, B, D and E.
Differs: the forms for 32 x 32 have batch norm and no bias in their convolutions, and five max-pools leave 1 x 1 x 512,
so one linear layer replaces the three of the paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.zoo.initial import he_normal
from penjing.zoo.widths import scaled

WIDTHS = (64, 128, 256, 512, 512)
"""The channels of the 3x3 convolutions of each stage; a 2x2 max-pool ends it."""

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""How many each stage has, by the number of layers with weights."""

HEAD = 4096
"""The width of the paper's two hidden linear layers."""


class Vgg(nn.Module):
    """Classify colour pictures with eight to sixteen convolutions and the given head.

    ``width`` multiplies the channels of every convolution; ``depth`` is a key of ``CONVOLUTIONS``.

    Shapes: x [n, 3, h, w] → logits [n, num_classes]; the head sees [n, 512 * width * (h // 32) * (w // 32)].
    """

    def __init__(self, classifier: nn.Module, norm: bool, width: float = 1.0, depth: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for channels, count in zip(WIDTHS, CONVOLUTIONS[depth], strict=True):
            outputs = scaled(channels, width)
            for _ in range(count):
                layers.append(nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm))
                layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if norm else [nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = classifier
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def vgg11(num_classes: int = 1000) -> Vgg:
    """Build VGG-11 for 224 x 224 pictures (132,863,336 parameters; 7.5 billion MACs in its convolutions)."""
    return _published(11, num_classes)


def vgg13(num_classes: int = 1000) -> Vgg:
    """Build VGG-13 for 224 x 224 pictures (133,047,848 parameters; 11.2 billion MACs in its convolutions)."""
    return _published(13, num_classes)


def vgg16(num_classes: int = 1000) -> Vgg:
    """Build VGG-16 for 224 x 224 pictures (138,357,544 parameters; 15.3 billion MACs in its convolutions)."""
    return _published(16, num_classes)


def vgg19(num_classes: int = 1000) -> Vgg:
    """Build VGG-19 for 224 x 224 pictures (143,667,240 parameters; 19.5 billion MACs in its convolutions)."""
    return _published(19, num_classes)


def vgg11_bn(num_classes: int = 10, width: float = 1.0) -> Vgg:
    """Build VGG-11 for 32 x 32 pictures with batch norm and one linear layer (9,228,362 parameters).

    ``width`` multiplies the channels of the convolutions.

    Raises: RecipeError for a width at which a convolution has no channel.
    """
    return _small(11, num_classes, width)


def vgg13_bn(num_classes: int = 10, width: float = 1.0) -> Vgg:
    """Build VGG-13 for 32 x 32 pictures with batch norm and one linear layer (9,413,066 parameters).

    ``width`` multiplies the channels of the convolutions.

    Raises: RecipeError for a width at which a convolution has no channel.
    """
    return _small(13, num_classes, width)


def vgg16_bn(num_classes: int = 10, width: float = 1.0) -> Vgg:
    """Build VGG-16 for 32 x 32 pictures with batch norm and one linear layer (14,724,042 parameters).

    ``width`` multiplies the channels of the convolutions; half of it leaves 3,684,842 parameters.

    Raises: RecipeError for a width at which a convolution has no channel.
    """
    return _small(16, num_classes, width)


def vgg19_bn(num_classes: int = 10, width: float = 1.0) -> Vgg:
    """Build VGG-19 for 32 x 32 pictures with batch norm and one linear layer (20,035,018 parameters).

    ``width`` multiplies the channels of the convolutions.

    Raises: RecipeError for a width at which a convolution has no channel.
    """
    return _small(19, num_classes, width)


def vgg16_bn_wide(num_classes: int = 10, width: float = 1.0, head: int = HEAD) -> Vgg:
    """Build VGG-16 for 32 x 32 pictures with batch norm and the paper's 4096-wide head (33,642,442 parameters).

    Over half of the parameters sit in the head: the usual subject of fully connected pruning. ``width`` multiplies the
    channels of the convolutions, ``head`` is the width of the two hidden linear layers; half of both (8,425,450
    parameters) leaves the head the same share of all parameters.

    Raises: RecipeError for a width at which a convolution has no channel, and a head without units.
    """
    if head < 1:
        raise RecipeError(f"head is the width of the hidden linear layers, 1 or more; got {head}.")
    return Vgg(_wide_head(scaled(WIDTHS[-1], width), num_classes, head), norm=True, width=width)


def _published(depth: int, num_classes: int) -> Vgg:
    return Vgg(_wide_head(512 * 7 * 7, num_classes), norm=False, depth=depth)


def _small(depth: int, num_classes: int, width: float) -> Vgg:
    return Vgg(nn.Linear(scaled(WIDTHS[-1], width), num_classes), norm=True, width=width, depth=depth)


def _wide_head(inputs: int, num_classes: int, width: int = HEAD) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(width, num_classes),
    )
