"""A convolution as SqueezeNet's fire module: a few channels, read by filters of one tap and of all, side by side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.factors import chain
from penjing.factors.base import Factorization, Ranks
from penjing.factors.chain import Cost
from penjing.factors.layer import Basis, LayerSpec, values
from penjing.factors.lowrank_basis import inner_padding
from penjing.factors.memory import check_fits
from penjing.factors.spectra import balanced, squares


@register("factorization")
@dataclass(frozen=True)
class fire(Factorization):  # noqa: N801 - the name a recipe writes
    """Write a convolution as 1 x 1 to as many channels as the rank, then filters of 1 x 1 and k x k side by side.

    The share ``wide`` of the outputs keeps its k x k: those with most of their squares off the middle tap. A pick
    puts the outputs in order. The squeezed channels are the best for what all filters keep. There is no ReLU between,
    which SqueezeNet has: with one it would be another function, and training alone could make up for that.

    Paper: Iandola et al., SqueezeNet, 2016, section 3.2; the way from trained weights is derived here.
    Differs: linear between squeeze and expand.
    """

    exact: ClassVar[bool] = False

    wide: float = 0.5

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 < self.wide < 1:
            raise PlanError(f"fire: wide is the share of outputs that keep k x k, between 0 and 1; got {self.wide}.")

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be written so."""
        grouped = "is grouped, and the filters of a fire module read all squeezed channels"
        return super().refuses(spec) or (grouped if spec.groups > 1 else "")

    def _refuses(self, spec: LayerSpec) -> str:
        if spec.taps == 1:
            return "has a kernel of one tap, and no filter to narrow"
        if spec.out_channels < 2:
            return "has one output, and two kinds of filters want two"
        if any(n % 2 == 0 for n in spec.kernel):
            return "has a kernel of even size, which has no middle tap"
        if not isinstance(spec.padding, str) and min(inner_padding(spec)) < 0:
            return f"is padded by {spec.padding} alone, less than half its kernel, so that 1 x 1 filters would see more"
        return ""

    def _full(self, spec: LayerSpec) -> Ranks:
        return (min(spec.in_channels, self._kept(spec)),)

    def counts(self, outputs: int) -> tuple[int, int]:
        """Return how many filters have one tap, and how many all."""
        wide = min(max(round(self.wide * outputs), 1), outputs - 1)
        return outputs - wide, wide

    def _kept(self, spec: LayerSpec) -> int:
        """Return how many rows over the input channels the filters keep."""
        point, square = self.counts(spec.out_channels)
        return point + square * spec.taps

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        point, square = self.counts(spec.out_channels)
        one = replace(spec, in_channels=ranks[0], bias=False)
        return {
            "squeeze": LayerSpec("conv", spec.in_channels, ranks[0]),
            "point": replace(one, out_channels=point, kernel=(1, 1), padding=inner_padding(spec), dilation=(1, 1)),
            "square": replace(one, out_channels=square),
            "order": LayerSpec("pick", spec.out_channels, spec.out_channels),
        }

    def stages(self, spec: LayerSpec, ranks: Sequence[int]) -> dict[str, LayerSpec]:
        """Return the squeeze, the filters side by side, which have the bias, and the order, by their names."""
        made = self._stages(spec, tuple(ranks))
        return {n: replace(s, bias=spec.bias and n in ("point", "square")) for n, s in made.items()}

    def cost(self, spec: LayerSpec, ranks: Sequence[int], size: Sequence[int] | None = None) -> Cost:
        """Return what the chain costs; the filters side by side write one tensor."""
        made, size = self.stages(spec, ranks), size or spec.least_size
        ways = [chain.price([made["squeeze"], made[name], made["order"]], size) for name in ("point", "square")]
        squeeze = chain.price([made["squeeze"]], size)
        written = (spec.out_channels, *ways[0].sizes[1][1:])
        return Cost(
            sum(way.params for way in ways) - squeeze.params,
            sum(way.macs for way in ways) - squeeze.macs,
            (squeeze.sizes[0], written, written),
        )

    def split(self, module: nn.Module, ranks: int | Sequence[int], name: str = "") -> nn.Sequential:
        """Return the layer as a squeeze, its filters, and their order.

        Raises: as ``Factorization.split``.
        """
        spec = self._taken(module, name)
        found = self.checked(spec, ranks, name)
        check_fits(self.memory(spec, found), f"{name or spec}: {self.name}")
        weights = self._factors(values(module, name), found)
        bias: Any = getattr(module, "bias", None)
        if bias is not None and not bool(bias.isfinite().all()):
            raise PlanError(f"{name or spec} has a bias that is not finite; train or load it again.")
        stages = self.stages(spec, found)
        apart = None if bias is None else torch.empty_like(bias).index_copy(0, weights["order"].to(bias.device), bias)
        parts = dict(zip(("point", "square"), (None, None) if apart is None else apart.split(self.counts(len(apart))),
                         strict=True))  # fmt: skip
        made = {n: chain.layer(stages[n], weights[n], own, module) for n, own in parts.items()}
        return nn.Sequential(
            OrderedDict(
                squeeze=chain.layer(stages["squeeze"], weights["squeeze"], None, module),
                expand=Basis(made),
                order=chain.layer(stages["order"], weights["order"], None, module),
            )
        )

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        t, s, kh, kw = kernel.shape
        matrix, wide = self._matrix(kernel)
        square = len(wide)
        left, right = balanced(matrix, ranks[0])
        rows = left[: t - square], left[t - square :]
        stands = torch.cat([_others(t, wide), wide])  # which output each filter is, in the order they stand
        return {
            "squeeze": right.reshape(ranks[0], s, 1, 1),
            "point": rows[0].reshape(t - square, ranks[0], 1, 1),
            "square": rows[1].reshape(square, kh, kw, ranks[0]).permute(0, 3, 1, 2),
            "order": stands.argsort(),
        }

    def _matrix(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the filters keep, as rows over the input channels, and which outputs are wide, ascending."""
        t, s, kh, kw = kernel.shape
        squares_ = kernel.square().sum(1)
        off = squares_.flatten(1).sum(1) - squares_[:, kh // 2, kw // 2]
        wide = off.argsort(dim=0, descending=True, stable=True)[: self.counts(t)[1]].sort().values
        middle = kernel[_others(t, wide), :, kh // 2, kw // 2]
        return torch.cat([middle, kernel[wide].permute(0, 2, 3, 1).reshape(-1, s)]), wide

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        matrix, _ = self._matrix(kernel)
        return [(squares(matrix), *matrix.shape)]

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        return 2 * spec.weights + 2 * min(spec.in_channels, self._kept(spec)) ** 2


def _others(count: int, taken: Tensor) -> Tensor:
    left = torch.ones(count, dtype=torch.bool)
    left[taken] = False
    return left.nonzero()[:, 0]
