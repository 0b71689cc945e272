"""Two networks of different make that the tests of distillation compare, and a batch."""

import torch
from torch import nn


class Plain(nn.Module):
    """Two stages, at 8 x 8 and 4 x 4, and a head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1, stride=2), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(2 * width, 3)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.head(self.drop(self.two(self.one(x)).mean((2, 3))))


class Other(nn.Module):
    """Three stages, at 8 x 8, 4 x 4 and 2 x 2, in one sequence; ``first`` is the stride of the first."""

    def __init__(self, width: int = 6, first: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, stride=first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, 3)
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return self.classifier(self.pool(self.features(x)).flatten(1))


def batch(size: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def attached(term, model, teacher, x=None):
    """Return the term, as a training attaches it, with the parameters it brings."""
    term.teach(teacher)
    if hasattr(term, "show"):
        term.show(batch(2) if x is None else x[:2])
    return term, term.attach(model)
