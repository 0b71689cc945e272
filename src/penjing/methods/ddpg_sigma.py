"""Sparsity searched for convolutions, a threshold for linear layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.core.errors import PlanError
from penjing.core.registry import register


@register("method")
@dataclass(frozen=True)
class ddpg_sigma:  # noqa: N801  (registered under its own name)
    """Set weights to zero: of convolutions as an agent finds best, of linear layers all within ``k`` deviations.

    Of all weights of convolutions the share 1 - ``sparsity`` stays; how many of each layer, an agent searches in
    ``trials`` plans, each judged by the validation error with batch norm recalibrated. Of each linear layer only the
    weights stay that lie further than ``k`` standard deviations from their mean, which of normal weights are 0.27 % at
    k = 3: right for layers that are far too wide, the ruin of small ones, which the run names. ``k`` of None leaves
    them as they are. Then the rest is trained for ``epochs``, with the zeros held. The sparsity is the method's own
    budget; the run needs none. The result is stored and reported as sparse weights: no shape changes.

    Raises: PlanError naming an option that cannot be.
    Paper: reconstruction of combined pruning, DDPG for convolutions and the 3-sigma rule for linear layers; the agent
    after He et al., AMC, ECCV 2018.
    Differs: training is taught by the original, by default; of the agent what ``ddpg`` says.
    """

    sparsity: float = 0.8
    k: float | None = 3.0
    trials: int = 400
    floor: float = 0.05
    epochs: int = 10
    lr: float = 0.005
    terms: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 < self.sparsity < 1:
            raise PlanError(
                f"ddpg_sigma: sparsity is the share of the convolutions' weights set to zero, between 0 and 1; got "
                f"{self.sparsity}."
            )
        if self.k is not None and self.k < 0:
            raise PlanError(f"ddpg_sigma: k is a number of standard deviations, 0 or more; got {self.k}.")
        for name in ("trials", "epochs"):
            if getattr(self, name) < 1:
                raise PlanError(f"ddpg_sigma: {name} must be 1 or more; got {getattr(self, name)}.")

    def __call__(self) -> list[Any]:
        """Return the search, the threshold and the training."""
        search = {
            "rewrite": "weights",
            "criterion": "l1",
            "allocator": {"ddpg": {"trials": self.trials, "floor": self.floor}},
            "include": ["conv:*"],
            "budget": {"conv_weights": f"{1 - self.sparsity:.6g}x"},
        }
        rule = {
            "rewrite": "weights",
            "criterion": "deviation",
            "allocator": {"threshold": {"k": self.k}},
            "include": ["linear:*"],
            "budget": {},
        }
        training = {"epochs": self.epochs, "lr": self.lr, "terms": self.terms}
        cuts = [{"prune": search}, *([] if self.k is None else [{"prune": rule}])]
        return [*cuts, "recalibrate", {"train": training}]
