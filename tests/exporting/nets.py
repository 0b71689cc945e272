"""Small networks with everything the exporter folds, and some it refuses."""

# A module call is typed as Any by torch.
# mypy: disable-error-code="no-any-return"

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Small(nn.Module):
    """Convolutions with batch norm, one transposed and one depthwise, a residual sum and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.up_norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.deep_norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)
        self.head_norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.up_norm(self.up(torch.relu(self.norm(self.stem(x))))))
        x = x + self.deep_norm(self.deep(x))
        return self.head_norm(self.head(x.mean((2, 3))))


class Plain(nn.Module):
    """Two convolutions with batch norm, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


Named = dict[str, Tensor | list[Tensor | None]]


class Several(nn.Module):
    """Two inputs and a number in, named results out; a weight has the name of an output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.logits = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, factor: int, other: Tensor | None = None, table: Tensor | None = None) -> Named:
        y = self.conv(x).mean((2, 3)) * factor * self.logits
        assert other is not None and table is not None
        return {"logits": y, "both": [y + other, table.sum() + y, None]}


class Decides(nn.Module):
    """Takes a decision on the values of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class Holder(nn.Module):
    """Has the deciding module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Decides()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x)


class Eigen(nn.Module):
    """Uses an operator that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ x.transpose(-1, -2))


class FixedBatch(nn.Module):
    """Works at one batch size only."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.batch, 3, -1).mean(2)


class Pair(nn.Module):
    """Works at a batch of two only, which the exporter finds out by itself and takes for granted."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1) * torch.ones(x.shape[0], 1)


def ready(model: Model, seed: int = 0) -> Model:
    """Give every weight and statistic a value that matters, so that a wrong file shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5, generator=generator)
    return model


def images(count: int, side: int = 8, seed: int = 0) -> Tensor:
    """Return pictures of noise."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))
