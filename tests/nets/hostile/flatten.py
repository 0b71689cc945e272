"""Channels that are flattened together with positions."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .case import hostile, unit


@hostile("flatten_channels_last")
class FlattenChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12), nn.MaxPool2d(2), unit(12, 10))
        self.fc1, self.fc2 = nn.Linear(160, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).permute(0, 2, 3, 1).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


@hostile("flatten_view", mode="view")
@hostile("flatten_module", mode="module")
@hostile("flatten_view_literal", constant="literal view(-1, 512)", mode="literal")
class FlattenChannelsFirst(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.body = nn.Sequential(unit(3, 12), nn.MaxPool2d(2), unit(12, 32))
        self.flatten = nn.Flatten()
        self.fc1, self.fc2 = nn.Linear(512, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.mode == "view":
            x = x.view(x.size(0), -1)
        elif self.mode == "module":
            x = self.flatten(x)
        else:
            # With half the channels this still runs, and silently halves the batch.
            x = x.view(-1, 512)
        return self.fc2(F.relu(self.fc1(x)))


@hostile("unflatten_module", named=False, constant="literal size in nn.Unflatten", literal=True)
@hostile("unflatten_by_shape", named=False, literal=False)
class Unflatten(nn.Module):
    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.encode = nn.Sequential(unit(3, 12, stride=2), nn.Flatten(), nn.Linear(192, 16), nn.ReLU())
        self.fc = nn.Linear(16, 160)
        self.unflatten = nn.Unflatten(1, (10, 4, 4))
        self.decode = nn.Sequential(unit(10, 14), nn.Conv2d(14, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc(self.encode(x)))
        x = self.unflatten(x) if self.literal else x.view(x.shape[0], -1, 4, 4)
        return self.decode(x)


@hostile("view_with_stored_width", named=False, constant="the width is stored as a number")
class StoredWidth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.body = nn.Sequential(unit(3, 20), unit(20, self.width))
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).view(x.shape[0], self.width, -1).mean(2))


@hostile("flatten_channels_with_height", named=False)
class FlattenWithHeight(nn.Module):
    """Channels and height become the channels of a convolution along width, as in text recognisers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 8), unit(8, 6))
        self.rows, self.fc = nn.Conv1d(48, 20, 3, padding=1), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.rows(self.body(x).flatten(1, 2))).mean(2))


@hostile("batchnorm1d_after_flatten", named=False)
class NormAfterFlatten(nn.Module):
    """Each channel owns sixteen consecutive entries of the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(unit(3, 12, stride=2), unit(12, 10), nn.Flatten())
        self.norm, self.fc1, self.fc2 = nn.BatchNorm1d(160), nn.Linear(160, 24), nn.Linear(24, 5)
        self.norm2 = nn.BatchNorm1d(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.norm2(self.fc1(self.norm(self.body(x))))))
