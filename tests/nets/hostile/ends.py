"""Several inputs, several outputs."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import IMAGE, Inputs, hostile, pooled, tensors, unit


@hostile("two_images", tensors((3, 8, 8), (1, 8, 8)))
class TwoImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = unit(3, 16), unit(1, 16)
        self.join = unit(16, 12)
        self.head = pooled(12)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(self.join(self.left(left) + self.right(right)))


@hostile("siamese", tensors((3, 8, 8), (3, 8, 8)))
class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(unit(3, 12), unit(12, 20), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(20, 5)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc((self.trunk(left) - self.trunk(right)).abs())


@hostile("image_and_vector", tensors((3, 8, 8), vector=(7,)))
class ImageAndVector(nn.Module):
    """The vector, passed by name, scales and shifts the features (FiLM)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 16)
        self.film = nn.Sequential(nn.Linear(7, 12), nn.ReLU(), nn.Linear(12, 32))
        self.conv = unit(16, 12)
        self.head = pooled(12)

    def forward(self, image: Tensor, *, vector: Tensor) -> Tensor:
        scale, shift = self.film(vector)[:, :, None, None].chunk(2, 1)
        return self.head(self.conv(self.stem(image) * (1 + scale) + shift))


def image_and_class() -> Inputs:
    """Return images and one class number each."""
    (image,), _ = IMAGE()
    return (image, torch.tensor([3, 8])), {}


@hostile("class_embedding_added", image_and_class)
class ClassEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.embedding, self.conv = unit(3, 16), nn.Embedding(10, 16), unit(16, 12)
        self.head = pooled(12)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.head(self.conv(F.relu(self.stem(x) + self.embedding(label)[:, :, None, None])))


@hostile("outputs_tuple", kind="tuple")
@hostile("outputs_dict", kind="dict")
@hostile("outputs_nested", kind="nested")
class SeveralOutputs(nn.Module):
    """Two heads share a trunk; the forms differ in how much of it is returned raw."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.trunk = unit(3, 12), unit(12, 20)
        self.classes, self.map = pooled(20), nn.Conv2d(20, 2, 1)

    def forward(self, x: Tensor) -> Any:
        stem = self.stem(x)
        x = self.trunk(stem)
        if self.kind == "tuple":
            return self.classes(x), self.map(x)
        if self.kind == "dict":
            return {"classes": self.classes(x), "map": self.map(x)}
        return {"heads": (self.classes(x), [self.map(x)]), "stem": stem}
