"""Give layers filters of low rank that are drawn anew, for a network that is trained from scratch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.core.sites import Site
from penjing.factors.layer import LayerSpec
from penjing.factors.lowrank_basis import lowrank_basis as basis
from penjing.rewrites.factored import Factored


@register("rewrite")
@dataclass(frozen=True)
class lowrank_basis(Factored):  # noqa: N801  (registered under its own name)
    """Put filters k x 1, 1 x k and k x k side by side, joined by 1 x 1; drawn, not taken from the weights.

    The rank is the number of filters, ``vertical`` and ``horizontal`` the shares of the first two shapes. ``init``
    keeps the variance of gradients (backward) or of activations (forward). ``seed`` is the run's where ``ranks`` are
    given without it.

    Paper: Ioannou et al., Training CNNs with Low-Rank Filters for Efficient Image Classification, ICLR 2016.
    """

    drawn: ClassVar[bool] = True

    vertical: float = 0.5
    horizontal: float = 0.5
    init: Literal["backward", "forward"] = "backward"
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse shares that cannot be.

        Raises: PlanError.
        """
        if not (self.vertical >= 0 and self.horizontal >= 0 and 0 < self.vertical + self.horizontal <= 1):
            raise PlanError(
                f"lowrank_basis: vertical and horizontal are shares of the filters that add up to at most 1; "
                f"got {self.vertical} and {self.horizontal}."
            )

    @property
    def by(self) -> basis:  # type: ignore[override]
        """How a layer is written."""
        return basis(self.vertical, self.horizontal, init=self.init, seed=self.seed or 0)

    def scores(self, model: nn.Module, site: Site) -> Tensor:
        """Return the same for all: of filters that are not drawn yet none is worth more."""
        return torch.full((site.size,), 1 / site.size, dtype=torch.float64)

    def beside(self, stages: Mapping[str, LayerSpec]) -> dict[str, str]:
        """Return what stages that read the same, side by side, are called in the network, by their names."""
        return {name: f"basis.{name}" for name in stages if name != "join"}
