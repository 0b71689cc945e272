"""The singular value decomposition of a layer's weights, unfolded in one of three ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from penjing.core.registry import register
from penjing.factors.base import Factorization, Ranks
from penjing.factors.layer import LayerSpec
from penjing.factors.spectra import balanced, squares


@register("factorization")
@dataclass(frozen=True)
class svd(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a layer as two, the best of their rank in squared error of the weights.

    ``output`` (scheme A) reduces the output channels: k x k to r channels, then 1 x 1. ``input`` (scheme B) reduces the
    input channels: 1 x 1 to r channels, then k x k. ``spatial`` separates the axes: k x 1, then 1 x k. A linear layer
    and a 1 x 1 convolution have one unfolding only, whatever the form. The error is the root of the sum of the squared
    singular values left out.

    Paper: Denton et al., NIPS 2014 (output); Jaderberg et al., BMVC 2014, and Tai et al., ICLR 2016 (spatial).
    """

    form: Literal["output", "input", "spatial"] = "output"

    def _form(self, spec: LayerSpec) -> str:
        return "output" if spec.taps == 1 else self.form

    def _shape(self, spec: LayerSpec) -> tuple[int, int]:
        """Return the rows and columns of the unfolding."""
        t, s, (kh, kw) = spec.out_channels, spec.in_channels, spec.kernel
        return {"output": (t, s * kh * kw), "input": (s, t * kh * kw), "spatial": (s * kh, t * kw)}[self._form(spec)]

    def _full(self, spec: LayerSpec) -> Ranks:
        return (min(self._shape(spec)),)

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        (r,) = ranks
        form = self._form(spec)
        if form == "output":
            point = LayerSpec(spec.kind, r, spec.out_channels)
            return {"first": replace(spec, out_channels=r), "last": point}
        if form == "input":
            return {"first": LayerSpec(spec.kind, spec.in_channels, r), "last": replace(spec, in_channels=r)}
        return {
            "first": replace(along(spec, 0), out_channels=r),
            "last": replace(along(spec, 1), in_channels=r),
        }

    def _matrix(self, kernel: Tensor) -> Tensor:
        form = "output" if kernel[0, 0].numel() == 1 else self.form
        if form == "output":
            return kernel.flatten(1)
        if form == "input":
            return kernel.transpose(0, 1).flatten(1)
        t, s, kh, kw = kernel.shape
        return kernel.permute(1, 2, 0, 3).reshape(s * kh, t * kw)

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        (r,) = ranks
        t, s, kh, kw = kernel.shape
        left, right = balanced(self._matrix(kernel), r)
        form = "output" if kh * kw == 1 else self.form
        if form == "output":
            return {"first": right.reshape(r, s, kh, kw), "last": left[:, :, None, None]}
        if form == "input":
            return {"first": left.T[:, :, None, None], "last": right.reshape(r, t, kh, kw).transpose(0, 1)}
        return {
            "first": left.T.reshape(r, s, kh, 1),
            "last": right.reshape(r, t, kw).transpose(0, 1)[:, :, None, :],
        }

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        matrix = self._matrix(kernel)
        return [(squares(matrix), *matrix.shape)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        rows, columns = self._shape(spec)
        return 2 * rows * columns + 3 * min(rows, columns) ** 2


def along(spec: LayerSpec, axis: int) -> LayerSpec:
    """Return the layer with its kernel, stride, padding and dilation on one axis alone, neutral on the other."""

    def only(pair: tuple[int, int], neutral: int) -> tuple[int, int]:
        return (pair[0], neutral) if axis == 0 else (neutral, pair[1])

    padding = spec.padding if isinstance(spec.padding, str) else only(spec.padding, 0)
    kernel, stride, dilation = (only(pair, 1) for pair in (spec.kernel, spec.stride, spec.dilation))
    return replace(spec, kernel=kernel, stride=stride, padding=padding, dilation=dilation)
