"""Blocks of well-known families."""

# A forward here is what users write, `return self.head(x)`, and torch types a module call as Any.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import Bare, hostile, pooled, unit


@hostile("res2net", named=False, stored=None)
@hostile("res2net_stored_width", named=False, constant="the split width is stored as a number", stored=6)
class Res2Net(nn.Module):
    def __init__(self, stored: int | None) -> None:
        super().__init__()
        self.stored = stored
        self.stem, self.expand = unit(3, 16), unit(16, 24, 1)
        self.convs = nn.ModuleList(unit(6, 6) for _ in range(3))
        self.reduce = unit(24, 16, 1, act=False)
        self.head = pooled(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.expand(x)
        pieces = y.chunk(4, 1) if self.stored is None else torch.split(y, self.stored, 1)
        done = [self.convs[0](pieces[0])]
        for conv, piece in zip(list(self.convs)[1:], pieces[1:3], strict=True):
            done.append(conv(done[-1] + piece))
        return self.head(F.relu(x + self.reduce(torch.cat([*done, pieces[3]], 1))))


@hostile("cross_stage_partial", named=False)
class CrossStagePartial(Bare):
    def __init__(self) -> None:
        super().__init__(24, 16)
        self.blocks = nn.ModuleList(nn.Sequential(unit(12, 8, 1), unit(8, 12)) for _ in range(2))
        self.join = unit(36, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        parts = list(x.chunk(2, 1))
        y = parts[1]
        for block in self.blocks:
            y = y + block(y)
        return self.join(torch.cat([*parts, y], 1))


@hostile("selective_kernel", named=False, one_layer=False)
@hostile("selective_kernel_by_view", named=False, one_layer=True)
class SelectiveKernel(Bare):
    """A softmax weighs two branches per channel."""

    def __init__(self, one_layer: bool) -> None:
        super().__init__(12, 20)
        self.branches = nn.ModuleList([unit(12, 16), unit(12, 16, 5)])
        self.squeeze = nn.Linear(16, 8)
        self.selects = nn.ModuleList([nn.Linear(8, 32)] if one_layer else [nn.Linear(8, 16) for _ in range(2)])
        self.last = unit(16, 20, 1)

    def middle(self, x: Tensor) -> Tensor:
        stacked = torch.stack([branch(x) for branch in self.branches], 1)
        code = F.relu(self.squeeze(stacked.sum(1).mean((2, 3))))
        logits = torch.cat([select(code) for select in self.selects], 1).view(x.shape[0], 2, -1)
        return self.last((stacked * logits.softmax(1)[..., None, None]).sum(1))


@hostile("mixed_depthwise_kernels", named=False, by_module=False)
@hostile("mixed_depthwise_kernels_by_module", named=False, by_module=True)
class MixedDepthwise(Bare):
    """Split, convolve each piece with another kernel size, concat; sizes from the shape or from the modules."""

    def __init__(self, by_module: bool) -> None:
        super().__init__(24, 16)
        self.by_module = by_module
        self.convs = nn.ModuleList(unit(8, 8, kernel, groups=8) for kernel in (1, 3, 5))
        self.last = unit(24, 16, 1)

    def middle(self, x: Tensor) -> Tensor:
        if self.by_module:
            # Right after a cut only if the cut keeps the modules' own numbers up to date.
            pieces = torch.split(x, [conv[0].in_channels for conv in self.convs], 1)  # type: ignore[index]
        else:
            pieces = torch.chunk(x, 3, 1)
        return self.last(torch.cat([c(piece) for c, piece in zip(self.convs, pieces, strict=True)], 1))


@hostile("dual_path", named=False, literal=False)
@hostile("dual_path_literal", named=False, constant="literal border between the paths", literal=True)
class DualPath(nn.Module):
    """A block's output is cut in two: one part is added, the rest is concatenated."""

    def __init__(self, literal: bool) -> None:
        super().__init__()
        self.literal = literal
        self.stem = unit(3, 16)
        self.block1 = nn.Sequential(unit(16, 10, 1), unit(10, 22, act=False))
        self.block2 = nn.Sequential(unit(22, 12, 1), unit(12, 22, act=False))
        self.last = unit(28, 12, 1)
        self.head = pooled(12)

    def forward(self, x: Tensor) -> Tensor:
        added = self.stem(x)
        dense: list[Tensor] = []
        for block in (self.block1, self.block2):
            y = block(torch.cat([added, *dense], 1))
            border = 16 if self.literal else added.shape[1]
            added = added + y[:, :border]
            dense.append(y[:, border:])
        return self.head(self.last(F.relu(torch.cat([added, *dense], 1))))
