"""Run convolutions only where their collaborative maps are not zero.

The map is computed first. Of what the convolution reads, the columns of im2col that lie under a zero of the map are
never gathered: one matrix product over the others, and its rows are put where they belong. This is a runtime path in
torch; exported files compute every position.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from penjing.core.errors import PlanError
from penjing.core.padding import sides
from penjing.exporting.measure import Timing, clock_for, cpu_name, interleave, summary
from penjing.exporting.modes import evaluating
from penjing.graph.collaborative import Collaborative, collaborators, exchange

CACHED = 2**18
"""Numbers gathered at once: as many as stay in the processor's cache until they are multiplied."""


class Skipping(nn.Module):
    """What a collaborative convolution computes in eval mode, skipping the positions where its map is zero throughout.

    ``macs`` counts the multiply-accumulates that were executed, ``dense`` those of the convolution alone at every
    position, and ``zeros`` and ``values`` the entries of the maps, all since ``forget``.

    Shapes: x [n, in_channels, h, w] → [n, out_channels, h', w'].
    """

    def __init__(self, layer: Collaborative) -> None:
        super().__init__()
        cheap, scale = layer.map.conv, layer.map.norm
        weight, self.bias = _folded(layer, layer.norm)
        self.columns = weight.permute(2, 3, 1, 0).reshape(-1, layer.out_channels).contiguous()
        self.cheap, self.shift = _folded(cheap, scale)
        self.taps = self.cheap[0].flatten(1) if layer.partner.kind == "shared" else None
        self.kernel, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.padding = sides(layer.padding, layer.kernel_size, layer.dilation)
        self._index: tuple[torch.Size, Tensor] = torch.Size(), torch.empty(0)
        self.forget()

    def forget(self) -> None:
        """Count anew."""
        self.macs = self.dense = self.zeros = self.values = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised convolution times the map."""
        padded = F.pad(x.contiguous(memory_format=torch.channels_last), self.padding)
        n, channels, high, wide = padded.shape
        pixels = padded.permute(0, 2, 3, 1).reshape(-1, channels)
        height, width = (
            (size - dilation * (kernel - 1) - 1) // stride + 1
            for size, dilation, kernel, stride in zip(
                (high, wide), self.dilation, self.kernel, self.stride, strict=True
            )
        )
        rows = self._map(x, pixels, (n, high, wide), (height, width))
        active = (rows[:, 0] if rows.shape[1] == 1 else rows.amax(1)).nonzero()[:, 0]
        out = x.new_zeros(len(rows), self.columns.shape[1])
        index = self._positions((n, high, wide), (height, width), x.device)
        for some in active.split(max(1, CACHED // self.columns.shape[0])):
            patches = pixels.index_select(0, index.index_select(0, some).flatten()).view(-1, self.columns.shape[0])
            made = torch.addmm(self.bias, patches, self.columns)
            out.index_copy_(0, some, made.mul_(rows.index_select(0, some)))
        self.macs += len(active) * self.columns.numel()
        self.dense += len(rows) * self.columns.numel()
        self.zeros += rows.numel() - (len(active) if rows.shape[1] == 1 else int(rows.count_nonzero()))
        self.values += rows.numel()
        return out.view(n, height, width, -1).permute(0, 3, 1, 2)

    def _map(self, x: Tensor, pixels: Tensor, size: tuple[int, int, int], out: tuple[int, int]) -> Tensor:
        """Return the map, [positions, 1 or out_channels].

        A convolution with one output is slow as such: each pixel is multiplied with every tap of the filter, and the
        products that belong to one position are added up.
        """
        if self.taps is None:
            self.macs += size[0] * math.prod(out) * self.cheap.numel()
            made = F.conv2d(x, self.cheap, self.shift, self.stride)
            return F.relu(made.permute(0, 2, 3, 1).reshape(-1, made.shape[1]))
        self.macs += pixels.shape[0] * self.taps.numel()
        (n, high, wide), (tall, broad) = size, self.kernel
        every = tall * broad
        strides = (
            high * wide * every,
            self.stride[0] * wide * every,
            self.stride[1] * every,
            self.dilation[0] * wide * every + broad,
            self.dilation[1] * every + 1,
        )
        of_position = (pixels @ self.taps).as_strided((n, *out, tall, broad), strides)
        return of_position.sum((3, 4)).add_(self.shift).relu_().view(-1, 1)

    def _positions(self, size: tuple[int, int, int], out: tuple[int, int], device: torch.device) -> Tensor:
        """Return which pixels lie under the kernel at each position, [positions, kernel]; kept for the next batch."""
        known = torch.Size((*size, *out))
        if self._index[0] != known:
            (n, high, wide), (height, width) = size, out
            down, right = torch.arange(height) * self.stride[0], torch.arange(width) * self.stride[1]
            first = (torch.arange(n)[:, None, None] * high + down[:, None]) * wide + right
            below = torch.arange(self.kernel[0]) * self.dilation[0] * wide
            under = below[:, None] + torch.arange(self.kernel[1]) * self.dilation[1]
            self._index = known, (first.view(-1, 1) + under.view(1, -1)).to(device)
        return self._index[1]


def _folded(conv: nn.Conv2d, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with the batch norm behind it."""
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), bias.detach()


def skipping(model: nn.Module) -> nn.Module:
    """Return a copy in eval mode whose collaborative convolutions skip what their maps make zero: to run on the CPU.

    Raises: PlanError for a model without any.
    """
    found = collaborators(model)
    if not found:
        raise PlanError(f"{type(model).__name__} has no collaborative layer to skip by; take the step lccl first.")
    fast = copy.deepcopy(model).eval()
    with torch.no_grad():
        for layer in collaborators(fast).values():
            exchange(fast, layer, Skipping(layer))
    return fast


def skippers(model: nn.Module) -> dict[str, Skipping]:
    """Return the modules of ``skipping`` by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Skipping)}


def race(
    models: Mapping[str, nn.Module], batches: Sequence[Tensor], *, threads: int = 1, rounds: int = 40
) -> dict[str, Timing]:
    """Time models in torch side by side, as ``measure`` does files, a run being all of ``batches``, one by one.

    Real pictures are needed: how much is skipped depends on them. Units: ms a batch.
    """
    count = len(batches)

    def runner(model: nn.Module) -> Callable[[], None]:
        def once() -> None:
            for x in batches:
                model(x)

        return once

    clock, kind = clock_for(threads, own_threads=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with contextlib.ExitStack() as modes:
            for model in models.values():
                modes.enter_context(evaluating(model))
            runs = {name: runner(model) for name, model in models.items()}
            samples = interleave(runs, rounds=rounds, warmup=2, budget_seconds=20, clock=clock)
    finally:
        torch.set_num_threads(before)
    name = f"torch {torch.__version__} fp32"
    return {
        key: summary([ms / count for ms in taken], threads, len(batches[0]), kind, name, cpu_name())
        for key, taken in samples.items()
    }
