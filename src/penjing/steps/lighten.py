"""Lighten: let each layer become the block of a light architecture that suits it on the target, under a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penjing.core.errors import PlanError, did_you_mean
from penjing.core.registry import register
from penjing.rewrites.lighten import FAMILIES, LIGHT
from penjing.steps.pictures import need_some
from penjing.steps.prune import prune
from penjing.steps.state import Run, State


@dataclass(frozen=True)
class Lightening(prune):
    """The cut that the step stands for."""

    families: tuple[str, ...] = LIGHT  # type: ignore[misc]


@register("step")
@dataclass(frozen=True)
class lighten:  # noqa: N801  (registered under its own name)
    """Turn layers into depthwise-separable, grouped-with-shuffle, fire or shift blocks, as far as the budget asks.

    Each layer has a menu: the ``families`` at several ranks, fitted by least squares to what it reads on ``images``
    calibration pictures, without labels, and priced on the target in what the budget bounds. What another option or the
    layer itself beats there is left out; among the rest ``allocator`` chooses, by default the exact solver, which takes
    an option to lose by how much it moves the logits. ``svd`` and ``svd_spatial`` may be families as well. Which family
    each layer took stands in the results as ``lightened``. ``rewrite`` names what may be cut in the same plan, such as
    ``channels``; other options are those of ``prune``.
    """

    families: tuple[str, ...] = LIGHT
    allocator: Any = field(default_factory=lambda: {"knapsack": {"loss": "scores"}})
    rewrite: tuple[str, ...] = ()
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    images: int = 1024
    budget: Mapping[str, Any] | str | None = None
    measure: Any = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name in ("families", "rewrite", "include", "exclude"):
            given = getattr(self, name)
            object.__setattr__(self, name, (given,) if isinstance(given, str) else tuple(given))
        if not self.families:
            raise PlanError(f"lighten: families names what layers may become; take some of {', '.join(FAMILIES)}.")
        for name in self.families:
            if name not in FAMILIES:
                raise PlanError(f"lighten: there is no family {name!r}.{did_you_mean(name, FAMILIES)}")
        if "lighten" in self.rewrite:
            raise PlanError("lighten: rewrite names what is cut beside; lighten itself need not be named.")
        need_some("lighten", self.images)
        self.as_prune()

    def as_prune(self) -> prune:
        """Return the step that lets the budget decide."""
        own = {} if self.measure is None else {"measure": self.measure}
        return Lightening(
            allocator=self.allocator, rewrite=(*self.rewrite, "lighten"), include=self.include, exclude=self.exclude,
            images=self.images, budget=self.budget, families=self.families, normalise=False, **own,
        )  # fmt: skip

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with lighter layers.

        Raises: PlanError when no layer has an option that pays; Infeasible as ``prune``.
        """
        return self.as_prune()(state, run)
