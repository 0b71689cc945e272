"""Several resolutions that meet: U-Nets and pyramids."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import WIDE_IMAGE, hostile, unit


@hostile("unet_transposed", WIDE_IMAGE, transposed=True)
@hostile("unet_upsample", WIDE_IMAGE, transposed=False)
class UNet(nn.Module):
    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = unit(3, 8), unit(8, 12), unit(12, 20)
        self.up2, self.up1 = self.up(20, 12, transposed), self.up(14, 8, transposed)
        self.merge2, self.merge1 = unit(24, 14), unit(16, 10)
        self.head = nn.Conv2d(10, 2, 1)

    @staticmethod
    def up(inputs: int, outputs: int, transposed: bool) -> nn.Module:
        if transposed:
            return nn.ConvTranspose2d(inputs, outputs, 2, stride=2)
        return nn.Sequential(nn.Upsample(scale_factor=2), unit(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(F.max_pool2d(one, 2))
        x = self.bottom(F.max_pool2d(two, 2))
        x = self.merge2(torch.cat([self.up2(x), two], 1))
        x = self.merge1(torch.cat([one, self.up1(x)], 1))
        return self.head(x)


@hostile("unet_attention_gate", named=False)
class UNetAttentionGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = unit(3, 12), unit(12, 20, stride=2)
        self.query, self.key, self.gate = nn.Conv2d(20, 8, 1), nn.Conv2d(12, 8, 1), nn.Conv2d(8, 1, 1)
        self.merge, self.head = unit(32, 10), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        x = F.interpolate(self.bottom(skip), size=skip.shape[-2:], mode="bilinear", align_corners=False)
        gate = torch.sigmoid(self.gate(F.relu(self.query(x) + self.key(skip))))
        return self.head(self.merge(torch.cat([x, skip * gate], 1)))


@hostile("feature_pyramid", WIDE_IMAGE)
class FeaturePyramid(nn.Module):
    """Lateral and top-down sums, then one head shared by three levels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 12, 20)
        self.downs = nn.ModuleList(unit(a, b, stride=2) for a, b in zip((3, *widths[:-1]), widths, strict=True))
        self.laterals = nn.ModuleList(nn.Conv2d(width, 14, 1) for width in widths)
        self.shared, self.head = unit(14, 14), nn.Conv2d(14, 6, 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for down, lateral in zip(self.downs, self.laterals, strict=True):
            x = down(x)
            levels.append(lateral(x))
        outputs = [levels[2]]
        for level in (levels[1], levels[0]):
            outputs.append(level + F.interpolate(outputs[-1], scale_factor=2.0, mode="nearest"))
        return [self.head(self.shared(level)) for level in outputs]
