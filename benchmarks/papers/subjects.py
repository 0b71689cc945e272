"""The networks that are cut, each with the pictures that it classifies and the rate that it is trained with."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from papers.scale import Scale
from penjing import zoo
from penjing.core.errors import PlanError
from penjing.data import Data, digits, load
from penjing.zoo.initial import he_normal

CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
CIFAR100 = {"mean": (0.5071, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2762)}


@dataclass(frozen=True)
class Subject:
    """A network: how it is built, what it sees, the peak rate from new weights, and whether it has residual blocks.

    ``flag`` is the command's option that names the folder of its pictures; the digits need none.
    """

    name: str
    build: Callable[[], nn.Module]
    flag: str
    lr: float
    blocks: bool

    def data(self, where: argparse.Namespace, seed: int, scale: Scale) -> Data:
        """Return the pictures of a scale, with validation cut off from train for every choice.

        Raises: PlanError when the command was not told where they lie.
        """
        if not self.flag:
            return digits()
        folder = getattr(where, self.flag)
        if folder is None:
            raise PlanError(f"{self.name} needs its pictures: give --{self.flag} FOLDER.")
        data = load(folder, seed=seed, val=scale.val, **(CIFAR100 if self.flag == "cifar100" else CIFAR10))
        return data if scale.pictures is None else replace(data, train=data.calibration_split(scale.pictures, seed))


class SmallNet(nn.Module):
    """Classify 8 x 8 grey digits: a convolution, a residual block, and a head with a hidden layer; for tests.

    Shapes: x [n, 1, 8, 8] → logits [n, 10].
    """

    def __init__(self, planes: int = 32, hidden: int = 256) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, planes, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(planes))
        self.block = SmallBlock(planes)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Linear(4 * planes, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        he_normal(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.pool(self.block(torch.relu(self.stem(x))))
        logits: Tensor = self.head(x.flatten(1))
        return logits


class SmallBlock(nn.Module):
    """Add two convolutions to their input."""

    def __init__(self, planes: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(planes, 2 * planes, 3, padding=1, bias=False), nn.BatchNorm2d(2 * planes)
        self.conv2, self.norm2 = nn.Conv2d(2 * planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum after its ReLU."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject("vgg16", zoo.vgg16_bn_wide, "data", 0.05, blocks=False),
        # Half of both, so that the head keeps its share of the parameters, which published shares are about.
        Subject("vgg16_half", partial(zoo.vgg16_bn_wide, width=0.5, head=2048), "data", 0.05, blocks=False),
        Subject("resnet56", zoo.resnet56, "data", 0.1, blocks=True),
        Subject("resnet20", zoo.resnet20, "data", 0.1, blocks=True),
        Subject("resnet56_cifar100", partial(zoo.resnet56, num_classes=100), "cifar100", 0.1, blocks=True),
        Subject("resnet20_cifar100", partial(zoo.resnet20, num_classes=100), "cifar100", 0.1, blocks=True),
        Subject("small", SmallNet, "", 0.05, blocks=True),
    )
}
