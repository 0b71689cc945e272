"""Layers whose weights and inputs are signs: 64 products at once, by XOR and popcount."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from penjing.core.errors import PenjingError, PlanError
from penjing.kernels import build
from penjing.kernels.packed import PackedConv2d, Pair, Sides, numbers

DECLARATIONS = """int xnor_conv2d(uintptr_t shape, uintptr_t x, uintptr_t threshold, uintptr_t flip, uintptr_t weights,
                                uintptr_t scale, uintptr_t bias, uintptr_t y, int path, int threads);"""
"""Pointers as numbers, which ``data_ptr`` returns; the shape is a tensor too, in the order of the C struct."""

WORD, BLOCK = 64, 8
MOST = 2**24
"""A sum of fewer signs than that is exact in float32, in PyTorch and here."""


class XnorConv2d(PackedConv2d):
    """A convolution of signs by signs: y = scale * conv(sign(x - threshold), signs) + bias, with -1 around pictures.

    The sign of 0 is +1; that of NaN is -1. In channels named in ``below`` signs are turned: +1 below the threshold. So
    a batch norm in front becomes thresholds (``below`` where its weight is negative). ``padding`` is torch's, or four
    numbers: left, right, top, bottom. ``threads`` None is torch's number, or fewer for a small layer; ``path`` holds
    the code to less than the processor has (``build.PATHS``). Bits depend on neither.

    Runs in C on the CPU, in PyTorch on other devices and where there are no kernels: ``reference``, equal to the bit.

    Shapes: signs [out, in / groups, kh, kw], bool (True is +1) or numbers above and below 0; scale [out] or []; bias
    [out]; threshold float32 and below bool [in]; x float32 [n, in, h, w] → y float32 [n, out, h', w'].

    Raises: PlanError for what does not fit together.

    Paper: Rastegari, Ordonez, Redmon, Farhadi, XNOR-Net, ECCV 2016, eq. 11, with the scale of inputs left out.
    """

    what = "signs"
    held: ClassVar = {
        "words": torch.int64, "scale": torch.float32, "bias": torch.float32, "threshold": torch.float32,
        "flip": torch.int64,
    }  # fmt: skip
    grain = 2**27

    words: Tensor
    scale: Tensor
    bias: Tensor
    threshold: Tensor
    flip: Tensor

    def __init__(
        self,
        signs: Tensor,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        stride: Pair = 1,
        padding: Sides = 0,
        dilation: Pair = 1,
        groups: int = 1,
        threshold: Tensor | None = None,
        below: Tensor | None = None,
        threads: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(signs.shape, stride, padding, dilation, groups, threads, path)
        if signs[0].numel() >= MOST:
            raise PlanError(f"A filter of {signs[0].numel()} signs is too large: fewer than {MOST} can be added up.")
        ins = self.in_channels
        flips = torch.zeros(ins, dtype=torch.bool) if below is None else below
        self.register_buffer("words", _packed(signs if signs.dtype == torch.bool else signs > 0, groups))
        self.hold_scale_and_bias(scale, bias)
        threshold = torch.zeros(ins) if threshold is None else threshold
        self.register_buffer("threshold", numbers("threshold", threshold, ins))
        if flips.dtype != torch.bool or flips.shape != (ins,):
            raise PlanError(f"below is bool [{ins}]; got {flips.dtype} {list(flips.shape)}.")
        self.register_buffer("flip", _bits(flips.reshape(groups, -1)))
        self._unpacked: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes.

        Raises: PlanError for an input of another kind or too small; PenjingError where there is no memory.
        """
        geometry = self.measured(x.shape)
        library = build.load("xnor", DECLARATIONS)
        held: Any = self._buffers  # five look-ups through nn.Module would take as long as packing
        if library is None or not x.is_cpu or not held["words"].is_cpu:
            return self.reference(x)
        self.check_float32(x)
        x, y = x.contiguous(), x.new_empty(geometry.out)
        words, scale, bias, threshold, flip = (held[name].data_ptr() for name in self.held)
        failed = library.lib.xnor_conv2d(
            geometry.numbers.data_ptr(), x.data_ptr(), threshold, flip, words, scale, bias, y.data_ptr(),
            library.path(self.path), self.threads or min(geometry.threads, torch.get_num_threads()),
        )  # fmt: skip
        if failed:
            raise PenjingError(f"There is no memory to pack an input {list(x.shape)} in: use a smaller batch.")
        return y

    def reference(self, x: Tensor) -> Tensor:
        """Return the same, to the bit, in PyTorch's own operators: whole numbers, in float32."""
        self.measured(x.shape)
        self.check_float32(x)
        above = (x >= self.threshold.view(-1, 1, 1)) ^ self._turned().view(-1, 1, 1)
        signs = F.pad(torch.where(above, 1.0, -1.0).to(x.dtype), self.padding, value=-1.0)
        with torch.autocast(x.device.type, enabled=False):
            sums = F.conv2d(signs, self._signs(x.device), None, self.stride, 0, self.dilation, self.groups).round()
        return sums * self.scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)

    def _turned(self) -> Tensor:
        bits = _unpacked_bits(self.flip.cpu(), self.in_channels // self.groups)
        return bits.reshape(-1).to(self.flip.device)

    def _signs(self, device: torch.device) -> Tensor:
        """Return the signs as floats, [out, in / groups, kh, kw]."""
        if self._unpacked is None or self._unpacked.device != device:
            outs, ins, taps = self.out_channels // self.groups, self.in_channels // self.groups, self.kernel_size
            words = self.words.cpu().transpose(2, 3).reshape(self.groups, -1, *taps, -(-ins // WORD))[:, :outs]
            bits = _unpacked_bits(words, ins).flatten(0, 1).movedim(-1, 1)
            # Anew: of a weight of one channel with strides [9, 1, 3, 1], torch 2.13 computes another convolution.
            signs = torch.where(bits, 1.0, -1.0).to(device, torch.float32)
            self._unpacked = signs.clone(memory_format=torch.contiguous_format)
        return self._unpacked

    def settle(self) -> None:
        """Forget what was made of what the layer held before."""
        self._unpacked = None
        super().settle()


class XnorLinear(XnorConv2d):
    """A linear layer of signs by signs: y = scale * sign(x - threshold) @ signs.T + bias.

    Shapes: signs [out, in]; x float32 [..., in] → y float32 [..., out]; all else as in ``XnorConv2d``.

    Raises: PlanError for what does not fit together.
    """

    def __init__(
        self,
        signs: Tensor,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        threshold: Tensor | None = None,
        below: Tensor | None = None,
        threads: int | None = None,
        path: str | None = None,
    ) -> None:
        if signs.ndim != 2:
            raise PlanError(f"Signs {list(signs.shape)} are none of a linear layer, [out, in].")
        super().__init__(
            signs[:, :, None, None], scale, bias, threshold=threshold, below=below, threads=threads, path=path
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes.

        Raises: PlanError for an input of another kind; PenjingError where there is no memory.
        """
        return self._as_pixels(x, super().forward)

    def reference(self, x: Tensor) -> Tensor:
        """Return the same, to the bit, in PyTorch's own operators."""
        return self._as_pixels(x, super().reference)

    def _as_pixels(self, x: Tensor, run: Any) -> Tensor:
        """Run on rows as on the pixels of one picture, so that several share a weight once it is read."""
        if not x.ndim or x.shape[-1] != self.in_channels:
            raise PlanError(f"A linear layer of signs reads [..., {self.in_channels}]; got {list(x.shape)}.")
        if not x.numel():
            return x.new_empty(*x.shape[:-1], self.out_channels)
        rows = x.reshape(-1, self.in_channels).t()
        y: Tensor = run(rows.reshape(1, self.in_channels, 1, -1))
        return y.reshape(self.out_channels, -1).t().reshape(*x.shape[:-1], self.out_channels)


def _packed(signs: Tensor, groups: int) -> Tensor:
    """Return signs, bool [out, in / groups, kh, kw], as int64 [groups, out / groups / 8, kh * kw * words, 8]."""
    words = _bits(signs.movedim(1, -1)).reshape(groups, len(signs) // groups, -1)
    words = F.pad(words, (0, 0, 0, -words.shape[1] % BLOCK))
    return words.reshape(groups, -1, BLOCK, words.shape[-1]).transpose(2, 3).contiguous()


def _bits(on: Tensor) -> Tensor:
    """Return bool [..., n] as words of 64 bits, lowest first, with zeros behind the last: int64 [..., words]."""
    padded = F.pad(on.detach().cpu(), (0, -on.shape[-1] % WORD)).contiguous().numpy()
    words: NDArray[Any] = np.packbits(padded, axis=-1, bitorder="little").view("<u8").astype(np.uint64)
    return torch.from_numpy(words.view(np.int64))


def _unpacked_bits(words: Tensor, count: int) -> Tensor:
    """Return bool [..., count] of what ``_bits`` made."""
    data = words.contiguous().numpy().astype("<i8").view(np.uint8)
    return torch.from_numpy(np.unpackbits(data, axis=-1, count=count, bitorder="little").astype(bool))
