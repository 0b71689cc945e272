"""Convolutions most of whose weights are zero: those that are not are added up, one by one, over whole outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from penjing.core.errors import PenjingError, PlanError
from penjing.kernels import build
from penjing.kernels.packed import Pair, pair, sides

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

GRAIN = 2**22
"""Products that a thread must be spared to be worth its making, where the caller leaves the number of threads open."""

KNOWN = 16
"""Shapes of inputs whose geometry is kept."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A layer on pictures of one size: what the C reads, and the threads that pay."""

    numbers: Tensor
    values: Tensor
    offsets: Tensor
    starts: Tensor
    out: tuple[int, int, int, int]
    threads: int


class SparseConv2d(nn.Module):
    """A convolution that holds the weights that are not zero, and spends nothing on the others.

    ``padding`` is torch's, or four numbers: left, right, top, bottom, with zeros there. ``threads`` None is torch's
    number, or fewer for a small layer; ``path`` holds the code to less than the processor has (``build.PATHS``). Sums
    are rounded in another order than torch's.

    Runs in C on the CPU, in PyTorch on other devices and where there are no kernels (``reference``).

    Shapes: weight float32 [out, in / groups, kh, kw]; bias [out]; x float32 [n, in, h, w] → y [n, out, h', w'].

    Raises: PlanError for what does not fit together.
    """

    values: Tensor
    places: Tensor
    bias: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Pair = 1,
        padding: Pair | tuple[int, int, int, int] | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        threads: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__()
        if weight.ndim != 4 or not weight.numel() or groups < 1 or len(weight) % groups:
            raise PlanError(f"A weight {list(weight.shape)} is none of a convolution in {groups} groups.")
        if weight.dtype != torch.float32 or not bool(torch.isfinite(weight).all()):
            raise PlanError(f"A sparse weight is of finite float32 numbers; got {weight.dtype}, or NaN or infinity.")
        self.out_channels, self.kernel_size = len(weight), (weight.shape[2], weight.shape[3])
        self.in_channels, self.groups, self.threads, self.path = weight.shape[1] * groups, groups, threads, path
        self.stride, self.dilation = pair("stride", stride), pair("dilation", dilation)
        self.padding = sides(padding, self.kernel_size, self.dilation)
        weight = weight.detach().cpu()
        there = weight.flatten().nonzero()[:, 0]
        self.register_buffer("values", weight.flatten()[there].contiguous())
        self.register_buffer("places", there.to(torch.int32))
        bias = torch.zeros(self.out_channels) if bias is None else bias.detach().to("cpu", torch.float32).clone()
        if bias.shape != (self.out_channels,):
            raise PlanError(f"A bias is [{self.out_channels}]; got {list(bias.shape)}.")
        self.register_buffer("bias", bias)
        self._seen: dict[torch.Size, Geometry] = {}
        self.register_load_state_dict_post_hook(_settle)  # type: ignore[no-untyped-call]

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
        kept = sum(g.values.nbytes + g.offsets.nbytes + g.starts.nbytes for g in self._seen.values())
        return self.values.nbytes + self.places.nbytes + kept

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes.

        Raises: PlanError for an input of another kind or too small; PenjingError where there is no memory.
        """
        if x.dtype != torch.float32 or x.ndim != 4 or x.shape[1] != self.in_channels:
            wanted = f"float32 [n, {self.in_channels}, h, w]"
            raise PlanError(f"A sparse convolution reads {wanted}; got {x.dtype} {list(x.shape)}.")
        library = build.load("sparse", DECLARATIONS)
        slope = x.requires_grad and torch.is_grad_enabled()  # which the C does not know
        if library is None or slope or not x.is_cpu or not self.values.is_cpu:
            return self.reference(x)
        geometry = self._seen.get(x.shape) or self._measured(x.shape)
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
        return F.conv2d(F.pad(x, self.padding), self.dense(), self.bias, self.stride, 0, self.dilation, self.groups)

    def dense(self) -> Tensor:
        """Return the weight with its zeros, [out, in / groups, kh, kw]."""
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        flat = self.values.new_zeros(torch.Size(shape).numel())
        flat[self.places.long()] = self.values
        return flat.view(shape)

    def _measured(self, shape: torch.Size) -> Geometry:
        images, channels, height, width = shape
        left, right, top, bottom = self.padding
        (kh, kw), (sh, sw), (dh, dw) = self.kernel_size, self.stride, self.dilation
        padded = height + top + bottom, width + left + right
        out_h, out_w = (padded[0] - dh * (kh - 1) - 1) // sh + 1, (padded[1] - dw * (kw - 1) - 1) // sw + 1
        if not images or out_h < 1 or out_w < 1:
            raise PlanError(f"An input {list(shape)} is too small for a kernel {self.kernel_size} with its padding.")
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

        places: NDArray[Any] = self.places.numpy().astype(np.int64)
        weights = self.out_channels * (channels // self.groups) * self.taps
        if len(places) != len(self.values) or (len(places) and not 0 <= places.min() <= places.max() < weights):
            raise PlanError(f"A place of a sparse convolution is outside of its {weights} weights.")
        column, row = places % kw, places // kw % kh
        inner, out = places // (kw * kh) % (channels // self.groups), places // (kw * kh * (channels // self.groups))
        channel = inner + out // (self.out_channels // self.groups) * (channels // self.groups)
        down, across = row * dh, column * dw
        phase = down % sh * pw + across % sw
        at = (channel * ph * pw + phase) * copies
        offsets = (at + column) * plane if shifted else at * plane + across // sw
        offsets = offsets + down // sh * pitch
        read = min(plane, reach + -(-length // (strips * LINE)) * LINE) * ph * pw * copies
        each = max(1, NEAR // (4 * read))
        blocks = -(-channels // each)
        block = channel // each
        order = np.lexsort((offsets, out, block))
        counts = np.bincount(block * self.out_channels + out, minlength=blocks * self.out_channels)
        starts = np.concatenate([[0], np.cumsum(counts)])
        numbers = [
            images, channels, height, width, self.out_channels, sh, sw, top, left, ph, pw, rows, pitch, plane, copies,
            dw, out_h, out_w, length, blocks, strips,
        ]  # fmt: skip
        products = images * len(places) * length
        found = Geometry(
            torch.tensor(numbers, dtype=torch.int64),
            self.values[torch.from_numpy(order)].contiguous(),
            torch.from_numpy(offsets[order].astype(np.int32)),
            torch.from_numpy(starts.astype(np.int64)),
            (images, self.out_channels, out_h, out_w),
            1 + products // GRAIN,
        )
        if len(self._seen) >= KNOWN:
            self._seen = {}
        self._seen[shape] = found
        return found

    def _apply(self, fn: Any, recurse: bool = True) -> SparseConv2d:
        """Stay in float32 where a network is made half or double: the C reads nothing else."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        _settle(self)
        return self


def _settle(layer: SparseConv2d, *_: Any) -> None:
    """Forget what was made of what the layer held before; see to it that the C can read what it holds now."""
    layer._seen = {}
    for name, kind in (("values", torch.float32), ("places", torch.int32), ("bias", torch.float32)):
        held = getattr(layer, name)
        if held.is_floating_point() != kind.is_floating_point:
            raise PlanError(f"{name} of a sparse convolution is {kind}; got {held.dtype}.")
        layer._buffers[name] = held.to(kind).contiguous()
