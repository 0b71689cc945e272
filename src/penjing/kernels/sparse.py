"""Convolutions most of whose weights are zero: those that are not are added up, one by one, over whole outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from penjing.core.errors import PenjingError, PlanError
from penjing.kernels import build
from penjing.kernels.packed import Geometry, PackedConv2d, Pair, Sides, numbers

DECLARATIONS = """int sparse_conv2d(uintptr_t shape, uintptr_t x, uintptr_t bias, uintptr_t values, uintptr_t offsets,
                                  uintptr_t starts, uintptr_t y, int path, int threads);"""

LINE = 16
"""Floats of a register of 512 bits."""

NEAR = 40 * 1024
"""Bytes of planes that stay in the nearest cache while the weights that read them pass by."""

STRIP = 14
"""Registers of an output that are summed up at once, for which all channels pass by."""

WASTE = 1.2
"""By how much rows may be widened to whole registers, so that no load crosses a line of the cache."""

DENSE = 0.07
"""Above this share of weights, loads are what holds it up, and copies of planes that are shifted pay."""


@dataclass(frozen=True, eq=False)
class Layout(Geometry):
    """A layer on pictures of one size: its weights in the order in which they are added up, and where they read."""

    values: Tensor
    offsets: Tensor
    starts: Tensor


class SparseConv2d(PackedConv2d):
    """A convolution that holds the weights that are not zero, and spends nothing on the others.

    ``padding`` is torch's, or four numbers: left, right, top, bottom, with zeros there. ``threads`` None is torch's
    number, or fewer for a small layer; ``path`` holds the code to less than the processor has (``build.PATHS``). Sums
    are rounded in another order than torch's.

    Runs in C on the CPU, in PyTorch on other devices and where there are no kernels (``reference``).

    Shapes: weight float32 [out, in / groups, kh, kw]; bias [out]; x float32 [n, in, h, w] → y [n, out, h', w'].

    Raises: PlanError for what does not fit together.
    """

    what = "sparse weights"
    held: ClassVar = {"values": torch.float32, "places": torch.int32, "bias": torch.float32}
    grain = 2**22
    known = 16

    values: Tensor
    places: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Pair = 1,
        padding: Sides = 0,
        dilation: Pair = 1,
        groups: int = 1,
        threads: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(weight.shape, stride, padding, dilation, groups, threads, path)
        if weight.dtype != torch.float32 or not bool(torch.isfinite(weight).all()):
            raise PlanError(f"A sparse weight is of finite float32 numbers; got {weight.dtype}, or NaN or infinity.")
        weight = weight.detach().cpu()
        there = weight.flatten().nonzero()[:, 0]
        self.register_buffer("values", weight.flatten()[there].contiguous())
        self.register_buffer("places", there.to(torch.int32))
        outs = self.out_channels
        self.register_buffer("bias", numbers("bias", torch.zeros(outs) if bias is None else bias, outs))

    @property
    def density(self) -> float:
        """The share of weights that are not zero."""
        return len(self.values) / (self.out_channels * self.in_channels // self.groups * self.taps)

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take up in memory: values, places, and what is kept for each size of picture."""
        laid_out = (one for one in self._seen.values() if isinstance(one, Layout))
        kept = sum(one.values.nbytes + one.offsets.nbytes + one.starts.nbytes for one in laid_out)
        return self.values.nbytes + self.places.nbytes + kept

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes.

        Raises: PlanError for an input of another kind or too small; PenjingError where there is no memory.
        """
        self.sizes(x.shape)
        self.check_float32(x)
        library = build.load("sparse", DECLARATIONS)
        slope = x.requires_grad and torch.is_grad_enabled()  # which the C does not know
        if library is None or slope or not x.is_cpu or not self.values.is_cpu:
            return self.reference(x)
        geometry = self.measured(x.shape)
        x, y = x.contiguous(), x.new_empty(geometry.out)
        failed = library.lib.sparse_conv2d(
            geometry.numbers.data_ptr(), x.data_ptr(), self.bias.data_ptr(), geometry.values.data_ptr(),
            geometry.offsets.data_ptr(), geometry.starts.data_ptr(), y.data_ptr(), library.path(self.path),
            self.threads or min(geometry.threads, torch.get_num_threads()),
        )  # fmt: skip
        if failed:
            raise PenjingError(f"There is no memory to lay an input {list(x.shape)} out in: use a smaller batch.")
        return y

    def take_in(self, times: Tensor, plus: Tensor) -> None:
        """Multiply outputs by ``times`` and add ``plus``, [out], from now on: a batch norm behind the layer."""
        filters = self.places.long() // (self.in_channels // self.groups * self.taps)
        self.values = (self.values.double() * times[filters]).float()
        self.bias = (self.bias.double() * times + plus).float()
        self._seen = {}

    def reference(self, x: Tensor) -> Tensor:
        """Return the same, up to rounding, by PyTorch's own convolution."""
        self.sizes(x.shape)
        return F.conv2d(F.pad(x, self.padding), self.dense(), self.bias, self.stride, 0, self.dilation, self.groups)

    def dense(self) -> Tensor:
        """Return the weight with its zeros, [out, in / groups, kh, kw]."""
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        flat = self.values.new_zeros(torch.Size(shape).numel())
        flat[self._places().long()] = self.values
        return flat.view(shape)

    def _places(self) -> Tensor:
        """Return the places after looking whether they are in the weight: a state may have come from anywhere."""
        weights = self.out_channels * (self.in_channels // self.groups) * self.taps
        places = self.places
        if len(places) and not 0 <= int(places.min()) <= int(places.max()) < weights:
            raise PlanError(f"A place of a sparse convolution is outside of its {weights} weights.")
        return places

    def measured(self, shape: torch.Size) -> Layout:
        """Return the layout of the layer on inputs of a shape.

        Raises: PlanError for an input that it cannot read.
        """
        layout = super().measured(shape)
        assert isinstance(layout, Layout)
        return layout

    def laid_out(self, shape: torch.Size, padded: tuple[int, int], out: tuple[int, int]) -> Layout:
        """Return the layout of the layer on inputs of a shape, once their sizes are known to fit.

        Raises: PlanError for pictures too large, or for places outside of the weight.
        """
        images, channels, height, width = shape
        left, _, top, _ = self.padding
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        out_h, out_w = out
        rows, pitch = -(-padded[0] // sh), -(-padded[1] // sw)
        whole = -(-pitch // LINE) * LINE
        # Of a stride, columns of the kernel lie in phases of their own, and shifts are seldom what they differ by.
        shifted = self.density > DENSE and whole <= WASTE * pitch and sw == 1 and kw > 1
        copies, pitch = (kw, whole) if shifted else (1, pitch)
        length = -(-out_h * pitch // LINE) * LINE
        reach = (dh * (kh - 1)) // sh * pitch + (dw * (kw - 1)) // sw
        plane = -(-max(rows * pitch, reach + length) // LINE) * LINE
        strips = -(-length // (STRIP * LINE))
        ph, pw = 1 + max(dh * k % sh for k in range(kh)), 1 + max(dw * k % sw for k in range(kw))
        per_channel = ph * pw * copies * plane
        if channels * per_channel >= 2**31:
            raise PlanError(
                f"An input {list(shape)} takes more numbers than an offset tells apart: use smaller pictures."
            )

        places: NDArray[Any] = self._places().numpy().astype(np.int64)
        column, row = places % kw, places // kw % kh
        ins = channels // self.groups
        inner, filters = places // (kw * kh) % ins, places // (kw * kh * ins)
        channel = inner + filters // (self.out_channels // self.groups) * ins
        down, across = row * dh, column * dw
        phase = down % sh * pw + across % sw
        at = (channel * ph * pw + phase) * copies
        offsets = (at + column) * plane if shifted else at * plane + across // sw
        offsets = offsets + down // sh * pitch
        read = min(plane, reach + -(-length // (strips * LINE)) * LINE) * ph * pw * copies
        each = max(1, NEAR // (4 * read))
        blocks = -(-channels // each)
        block = channel // each
        order = np.lexsort((offsets, filters, block))
        counts = np.bincount(block * self.out_channels + filters, minlength=blocks * self.out_channels)
        starts = np.concatenate([[0], np.cumsum(counts)])
        told = [
            images, channels, height, width, self.out_channels, sh, sw, top, left, ph, pw, rows, pitch, plane, copies,
            dw, out_h, out_w, length, blocks, strips,
        ]  # fmt: skip
        products = images * len(places) * length
        return Layout(
            torch.tensor(told, dtype=torch.int64),
            (images, self.out_channels, out_h, out_w),
            1 + products // self.grain,
            self.values[torch.from_numpy(order)].contiguous(),
            torch.from_numpy(offsets[order].astype(np.int32)),
            torch.from_numpy(starts.astype(np.int64)),
        )

    def settle(self) -> None:
        """See to it that the C can read what the layer holds now; forget what was made of what it held before."""
        super().settle()
        self._seen = {}
