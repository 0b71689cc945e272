"""Layers whose weights are one of up to 16 numbers: codes of 1, 2 or 4 bits, looked up as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.core.errors import PenjingError, PlanError
from penjing.kernels import build
from penjing.kernels.packed import Geometry, PackedConv2d, Pair, Sides, numbers

DECLARATIONS = """
    int codebook_conv2d(uintptr_t shape, int64_t bits, int64_t gathered, uintptr_t x, uintptr_t codes, uintptr_t table,
                        uintptr_t scale, uintptr_t bias, uintptr_t y, int path, int threads);
    int codebook_linear(uintptr_t shape, int64_t bits, uintptr_t x, uintptr_t codes, uintptr_t table, uintptr_t scale,
                        uintptr_t bias, uintptr_t y, int path, int threads);"""
"""Pointers as numbers, which ``data_ptr`` returns; the shape is a tensor too, in the order of the C struct."""

LANES, ROWS, LEVELS = 16, 4, 16
WIDTHS = (1, 2, 4, 8)
"""Bits of a code, so that a byte holds a whole number of them."""

BYTE = 8


class CodebookConv2d(PackedConv2d):
    """A convolution by a few numbers: y = scale * conv(x, table[codes]) + bias.

    Codes take 1, 2 or 4 bits, as many as the table needs; those of a table of more than 16 numbers are held in bytes,
    and run in PyTorch. ``padding`` is torch's, or four numbers: left, right, top, bottom; zeros stand there.
    ``threads`` None is torch's number, or fewer for a small layer; ``path`` holds the code to less than the processor
    has (``build.PATHS``).

    Runs in C on the CPU, with sums in float32 whose order the path decides, not the number of threads. Runs in PyTorch,
    as ``reference``, on other devices, where gradients are asked for, where a number of the table is not finite, where
    a group has fewer than 4 filters, which is faster so, and where there are no kernels.

    Shapes: codes uint8 [out, in / groups, kh, kw]; table float32 [levels], at most 256; scale [out] or []; bias [out];
    x float32 [n, in, h, w] → y float32 [n, out, h', w'].

    Raises: PlanError for what does not fit together.

    Paper: Han, Mao, Dally, Deep Compression, 2016, section 3: weights by a code for one of a few shared numbers.
    """

    what = "codes"
    held: ClassVar = {"codes": torch.uint8, "table": torch.float32, "scale": torch.float32, "bias": torch.float32}
    grain = 2**22

    codes: Tensor
    table: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(
        self,
        codes: Tensor,
        table: Tensor,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        stride: Pair = 1,
        padding: Sides = 0,
        dilation: Pair = 1,
        groups: int = 1,
        threads: int | None = None,
        path: str | None = None,
    ) -> None:
        super().__init__(codes.shape, stride, padding, dilation, groups, threads, path)
        levels = table.numel()
        if table.ndim != 1 or not 1 <= levels <= 2 ** WIDTHS[-1]:
            raise PlanError(f"A table has 1 to {2 ** WIDTHS[-1]} numbers; got {list(table.shape)}.")
        if codes.dtype != torch.uint8 or int(codes.max()) >= levels:
            raise PlanError(
                f"Codes are uint8, below {levels}, the size of the table; got {codes.dtype} up to {int(codes.max())}."
            )
        self.levels = levels
        self.bits = next(bits for bits in WIDTHS if levels <= 2**bits)
        ins, taps = codes.shape[1], codes.shape[2] * codes.shape[3]
        self.gathered = 8 * taps * _vectors(ins) > 9 * _vectors(taps * ins)  # filling up would cost more than copying
        table = F.pad(numbers("table", table, levels), (0, 2**self.bits - levels))
        self.register_buffer("codes", self._packed(codes.detach().cpu()))
        self.register_buffer("table", table.repeat(max(LEVELS // len(table), 1)))
        self.hold_scale_and_bias(scale, bias)
        self.settle()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes.

        Raises: PlanError for an input of another kind or too small; PenjingError where there is no memory.
        """
        geometry = self.measured(x.shape)
        library = self._library(x)
        if library is None:
            return self.reference(x)
        x, y = x.contiguous(), x.new_empty(geometry.out)
        return self._done(library.lib.codebook_conv2d(
            geometry.numbers.data_ptr(), self.bits, self.gathered, *self._pointers(x, y),
            *self._manner(library, geometry),
        ), x, y)  # fmt: skip

    def reference(self, x: Tensor) -> Tensor:
        """Return the same, but for the order of sums, in PyTorch's own operators."""
        self.measured(x.shape)
        self.check_float32(x)
        with torch.autocast(x.device.type, enabled=False):
            padded = F.pad(x, self.padding)
            return F.conv2d(padded, self.values(), self.bias, self.stride, 0, self.dilation, self.groups)

    def values(self) -> Tensor:
        """Return the weight that the codes stand for, float32 [out, in / groups, kh, kw]."""
        kernel, ins = self.kernel_size, self.in_channels // self.groups
        found = self.table[self._unpacked().int()]
        if self.gathered:
            found = found.flatten(1)[:, : ins * kernel[0] * kernel[1]].unflatten(1, (*kernel, ins))
        else:
            found = found.reshape(len(found), *kernel, -1)[..., :ins]
        return found.movedim(-1, 1).contiguous() * self.scale.view(-1, 1, 1, 1)

    def settle(self) -> None:
        """See to it that the C can read what the layer holds now."""
        super().settle()
        apart = self.groups > 1 and self.out_channels // self.groups < ROWS
        self._compiled = self.bits < BYTE and not apart and bool(self.table.isfinite().all())

    def _library(self, x: Tensor) -> build.Library | None:
        """Return what runs on an input; None for PyTorch."""
        if not (self._compiled and x.is_cpu and self.codes.is_cpu) or (x.requires_grad and torch.is_grad_enabled()):
            return None
        library = build.load("codebook", DECLARATIONS)
        if library is not None:
            self.check_float32(x)
        return library

    def _pointers(self, x: Tensor, y: Tensor) -> Iterator[int]:
        return (tensor.data_ptr() for tensor in (x, *(self._buffers[name] for name in self.held), y))  # type: ignore[union-attr]

    def _manner(self, library: build.Library, geometry: Geometry) -> tuple[int, int]:
        return library.path(self.path), self.threads or min(geometry.threads, torch.get_num_threads())

    def _done(self, failed: int, x: Tensor, y: Tensor) -> Tensor:
        if failed:
            raise PenjingError(f"There is no memory to lay out an input {list(x.shape)} in: use a smaller batch.")
        return y

    @property
    def _depth(self) -> int:
        """Vectors of a filter."""
        ins, taps = self.in_channels // self.groups, self.kernel_size[0] * self.kernel_size[1]
        return _vectors(taps * ins) if self.gathered else taps * _vectors(ins)

    def _packed(self, codes: Tensor) -> Tensor:
        """Return codes in the order of the C, uint8 [bytes]."""
        ordered = codes.movedim(1, -1)
        if self.gathered:
            ordered = ordered.flatten(1)
        filled = F.pad(ordered, (0, -ordered.shape[-1] % LANES)).reshape(self.out_channels, self._depth, LANES)
        each = BYTE // self.bits
        parts = []
        for blocks in _blocks(filled, self.groups):
            places, shifts = _places(blocks.shape[-3], self._depth, self.bits)
            into = torch.zeros(*blocks.shape[:2], int(places.max()) + 1, dtype=torch.uint8)
            for turn in range(min(each, self._depth)):  # of those that share a byte, one a turn
                into[..., places[:, turn::each]] |= blocks[..., turn::each, :] << int(shifts[turn])
            parts.append(into.flatten(1))
        return torch.cat(parts, 1).flatten()

    def _unpacked(self) -> Tensor:
        """Return the codes that ``_packed`` was given, and what they were filled up with, [out, depth, LANES]."""
        outs, parts, data, start = self.out_channels // self.groups, [], self.codes.view(self.groups, -1), 0
        for count, rows in ((outs // ROWS, ROWS), (1, outs % ROWS)):
            if count and rows:
                places, shifts = (given.to(data.device) for given in _places(rows, self._depth, self.bits))
                size = int(places.max()) + 1
                blocks = data[:, start : start + count * size].reshape(self.groups, count, size)
                found = blocks[..., places] >> shifts[:, None] & (2**self.bits - 1)
                parts.append(found.flatten(1, 2))
                start += count * size
        return torch.cat(parts, 1).flatten(0, 1)


class CodebookLinear(CodebookConv2d):
    """A linear layer by a few numbers: y = scale * x @ table[codes].T + bias.

    Shapes: codes uint8 [out, in]; x float32 [..., in] → y float32 [..., out]; all else as in ``CodebookConv2d``.

    Raises: PlanError for what does not fit together.
    """

    def __init__(
        self,
        codes: Tensor,
        table: Tensor,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        threads: int | None = None,
        path: str | None = None,
    ) -> None:
        if codes.ndim != 2:
            raise PlanError(f"Codes {list(codes.shape)} are none of a linear layer, [out, in].")
        super().__init__(codes[:, :, None, None], table, scale, bias, threads=threads, path=path)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer computes.

        Raises: PlanError for an input of another kind; PenjingError where there is no memory.
        """
        self._check(x)
        library = self._library(x)
        if library is None or not x.numel():
            return self.reference(x)
        geometry = self.measured(torch.Size((x.numel() // self.in_channels, self.in_channels, 1, 1)))
        x, y = x.contiguous(), x.new_empty(*x.shape[:-1], self.out_channels)
        return self._done(library.lib.codebook_linear(
            geometry.numbers.data_ptr(), self.bits, *self._pointers(x, y), *self._manner(library, geometry)
        ), x, y)  # fmt: skip

    def reference(self, x: Tensor) -> Tensor:
        """Return the same, but for the order of sums, in PyTorch's own operators."""
        self._check(x)
        self.check_float32(x)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, self.values(), self.bias)

    def values(self) -> Tensor:
        """Return the weight that the codes stand for, float32 [out, in]."""
        return super().values().flatten(1)

    def _check(self, x: Tensor) -> None:
        if not x.ndim or x.shape[-1] != self.in_channels:
            raise PlanError(f"A linear layer of codes reads [..., {self.in_channels}]; got {list(x.shape)}.")


def _vectors(count: int) -> int:
    return -(-count // LANES)


def _blocks(filters: Tensor, groups: int) -> Iterator[Tensor]:
    """Yield the whole blocks of filters [out, depth, LANES], and then the last ones, [groups, blocks, rows, ...]."""
    split = filters.unflatten(0, (groups, -1))
    whole = split.shape[1] // ROWS * ROWS
    if whole:
        yield split[:, :whole].unflatten(1, (-1, ROWS))
    if whole < split.shape[1]:
        yield split[:, whole:].unsqueeze(1)


def _places(rows: int, depth: int, bits: int) -> tuple[Tensor, Tensor]:
    """Return in which byte of a block of ``rows`` filters a code is, [rows, depth, LANES], and where there, [depth]."""
    per, each = 32 // bits, BYTE // bits
    row, lane = torch.arange(rows)[:, None, None], torch.arange(LANES)
    vector = torch.arange(depth)[:, None]
    chunk, at, whole = vector // per, vector % per, depth // per
    in_chunk = (chunk * rows + row) * LANES * 4 + lane * 4 + at // each
    in_part = whole * rows * LANES * 4 + (at // each * rows + row) * LANES + lane
    return torch.where(chunk < whole, in_chunk, in_part), (at % each * bits).squeeze(1).to(torch.uint8)
