"""AutoML for model compression: an agent chooses the widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.core.errors import PlanError
from penjing.core.registry import register


@register("method")
@dataclass(frozen=True)
class amc:  # noqa: N801  (registered under its own name)
    """Let an agent search the widths that lose least within the run's budget, refit the network, and train it.

    Channels of least L1 norm go. Each of ``trials`` plans is judged by the validation error of the network cut by it,
    refitted in least squares to what the original computes on ``images`` pictures, its batch norm recalibrated. The
    best is refitted and trained for ``epochs``. ``reward`` is ``budget``, or ``guaranteed``, which pays for cutting
    further as well; ``floor`` is the share of its channels that every site keeps as long as the budget allows.

    Raises: PlanError naming an option that cannot be.
    Paper: He, Lin, Liu, Wang, Li, Han, AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018.
    Differs: channels that must go together are one site and one decision; every layer is refitted, not those of 1x1
    kernels alone; training is taught by the original, by default; of the agent what ``ddpg`` says.
    """

    trials: int = 400
    reward: str = "budget"
    floor: float = 0.2
    images: int = 512
    epochs: int = 10
    lr: float = 0.005
    terms: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name in ("trials", "epochs", "images"):
            if getattr(self, name) < 1:
                raise PlanError(f"amc: {name} must be 1 or more; got {getattr(self, name)}.")

    def __call__(self) -> list[Any]:
        """Return the search, the refit and the training."""
        search = {"trials": self.trials, "reward": self.reward, "floor": self.floor}
        judged = {"error": {"images": 2048, "recalibrate": 2, "reconstruct": self.images}}
        cut = {"rewrite": "channels", "criterion": "l1", "allocator": {"ddpg": search}, "measure": judged}
        training = {"epochs": self.epochs, "lr": self.lr, "terms": self.terms}
        return [{"prune": cut}, "reconstruct", "recalibrate", {"train": training}]
