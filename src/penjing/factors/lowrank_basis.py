"""Filters of low rank from scratch: a mix of shapes side by side, and a layer that combines them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.random import torch_stream
from penjing.core.registry import register
from penjing.factors import chain
from penjing.factors.base import Factorization, Ranks
from penjing.factors.chain import Cost
from penjing.factors.layer import Basis, LayerSpec, Pair, read
from penjing.factors.spectra import Axis


@register("factorization")
@dataclass(frozen=True)
class lowrank_basis(Factorization):  # noqa: N801 - the name a recipe writes
    """Replace a k x k convolution by filters k x 1, 1 x k and k x k side by side, and 1 x 1 to join them.

    Nothing is taken over from the weights: the filters are drawn, for a network that is trained from scratch. The rank
    is their number; ``vertical`` and ``horizontal`` are the shares of the first two shapes, and the rest is k x k.
    ``init`` keeps the variance of gradients (backward) or of activations (forward), across shapes of different size.
    Without ``join`` the filters are the outputs themselves, and there are as many as the layer had.

    Paper: Ioannou et al., Training CNNs with Low-Rank Filters for Efficient Image Classification, ICLR 2016,
    sections 3 and 4.
    Differs: filters that are joined before any ReLU are drawn with half the variance.
    """

    exact: ClassVar[bool] = False

    vertical: float = 0.5
    horizontal: float = 0.5
    join: bool = True
    init: Literal["backward", "forward"] = "backward"
    seed: int = 0

    def refuses(self, spec: LayerSpec) -> str:
        """Return why a layer cannot be replaced so."""
        return super().refuses(spec) or (
            "is grouped, and filters of a basis read all channels" if spec.groups > 1 else ""
        )

    def _refuses(self, spec: LayerSpec) -> str:
        whole = self.vertical + self.horizontal
        if min(self.vertical, self.horizontal) < 0 or not 0 < whole <= 1:
            return f"is given shares of {self.vertical} and {self.horizontal}, which must add up to at most 1"
        if spec.kind == "linear":
            return "is a linear layer, and filters of several shapes are a convolution's"
        if min(spec.kernel) == 1:
            return "has a kernel that is flat already"
        if any(n % 2 == 0 for n in spec.kernel):
            return "has a kernel of even size, which has no middle for the flat filters to lie in"
        if not isinstance(spec.padding, str) and any(p < 0 for p in inner_padding(spec)):
            return f"is padded by {spec.padding} alone, less than half its kernel, so that flat filters would see more"
        return ""

    def _full(self, spec: LayerSpec) -> Ranks:
        return (spec.out_channels,)

    def checked(self, spec: LayerSpec, ranks: int | Sequence[int], name: str = "") -> Ranks:
        """Return the ranks as a tuple.

        Raises: PlanError for a rank out of range; without a join, for any but the number of outputs.
        """
        found = super().checked(spec, ranks, name)
        if not self.join and found != self._full(spec):
            raise PlanError(f"{name or spec} has {spec.out_channels} outputs, and without a join as many filters.")
        return found

    def counts(self, rank: int) -> dict[str, int]:
        """Return how many filters of each shape there are, those of none left out."""
        vertical = round(rank * self.vertical)
        horizontal = min(round(rank * (self.vertical + self.horizontal)), rank) - vertical
        found = {"vertical": vertical, "horizontal": horizontal, "square": rank - vertical - horizontal}
        return {name: count for name, count in found.items() if count}

    def _stages(self, spec: LayerSpec, ranks: Ranks) -> dict[str, LayerSpec]:
        """Return the shapes side by side, and the join after them all."""
        (kh, kw), (ph, pw) = spec.kernel, inner_padding(spec)
        shapes: dict[str, tuple[Pair, Pair]] = {
            "vertical": ((kh, 1), (_outer(spec)[0], pw)),
            "horizontal": ((1, kw), (ph, _outer(spec)[1])),
            "square": ((kh, kw), _outer(spec)),
        }
        made = {
            name: replace(spec, out_channels=count, kernel=shapes[name][0], padding=shapes[name][1], bias=False)
            for name, count in self.counts(ranks[0]).items()
        }
        if not self.join:
            return made
        return made | {"join": LayerSpec("conv", ranks[0], spec.out_channels)}

    def stages(self, spec: LayerSpec, ranks: Sequence[int]) -> dict[str, LayerSpec]:
        """Return the shapes side by side, by their names, and the join; without one each shape has its bias."""
        made = self._stages(spec, tuple(ranks))
        return {n: replace(s, bias=spec.bias and (n == "join" or not self.join)) for n, s in made.items()}

    def cost(self, spec: LayerSpec, ranks: Sequence[int], size: Sequence[int] | None = None) -> Cost:
        """Return what basis and join cost; the basis writes one tensor."""
        made, size = self.stages(spec, ranks), size or spec.least_size
        join = [made.pop("join")] if self.join else []
        parts = [chain.price([stage, *join], size) for stage in made.values()]
        sizes = [(sum(s.out_channels for s in made.values()), *parts[0].sizes[0][1:]), *parts[0].sizes[1:]]
        repeated = len(parts) - 1
        joined = chain.price(join, parts[0].sizes[0][1:]) if join else Cost(0, 0, ())
        return Cost(
            sum(part.params for part in parts) - repeated * joined.params,
            sum(part.macs for part in parts) - repeated * joined.macs,
            tuple(sizes),
        )

    def spectra(self, module: nn.Module, name: str = "") -> tuple[Axis, ...]:
        """Refuse: filters that are drawn hold nothing of the weights.

        Raises: PlanError.
        """
        raise PlanError(
            f"{name or read(module)} would get filters drawn anew by lowrank_basis, which hold nothing of its weights; "
            "give their number, or a ratio."
        )

    def split(self, module: nn.Module, ranks: int | Sequence[int], name: str = "") -> nn.Sequential:
        """Return the basis and its join, drawn from the stream of ``name``; a bias starts at zero.

        Raises: PlanError for a layer that is not taken, or a rank out of range.
        """
        spec = self._taken(module, name)
        (r,) = self.checked(spec, ranks, name)
        stages, random = self.stages(spec, (r,)), torch_stream(self.seed, f"lowrank_basis/{name or spec}")
        made: dict[str, nn.Module] = {}
        fan = sum(s.taps * s.out_channels for n, s in stages.items() if n != "join")
        for key, stage in stages.items():
            gain = 1.0 if self.join and key != "join" else 2.0
            forward = stage.taps * stage.in_channels
            backward = stage.out_channels if key == "join" else fan
            deviation = math.sqrt(gain / (forward if self.init == "forward" else backward))
            shape = (stage.out_channels, stage.in_channels, *stage.kernel)
            weight = deviation * torch.randn(shape, generator=random, dtype=torch.float64)
            bias = torch.zeros(stage.out_channels) if stage.bias else None
            made[key] = chain.layer(stage, weight, bias, module)
        join = {"join": made.pop("join")} if self.join else {}
        return nn.Sequential(OrderedDict({"basis": Basis(made), **join}))

    def _factors(self, kernel: Tensor, ranks: Ranks) -> Mapping[str, Tensor]:
        raise AssertionError("split draws the weights")

    def _spectra(self, kernel: Tensor) -> list[tuple[Tensor, int, int]]:
        raise AssertionError("spectra refuses")

    def _floats(self, spec: LayerSpec, ranks: Ranks) -> int:
        return 2 * spec.weights


def _outer(spec: LayerSpec) -> Pair:
    """Return the padding in numbers; kernels are odd here, so that "same" is one."""
    if isinstance(spec.padding, str):
        return spec.dilation[0] * (spec.kernel[0] - 1) // 2, spec.dilation[1] * (spec.kernel[1] - 1) // 2
    return spec.padding


def inner_padding(spec: LayerSpec) -> Pair:
    """Return the padding of filters flat along each axis: what is left when they lie in the middle."""
    outer = _outer(spec)
    return (
        outer[0] - spec.dilation[0] * (spec.kernel[0] - 1) // 2,
        outer[1] - spec.dilation[1] * (spec.kernel[1] - 1) // 2,
    )
