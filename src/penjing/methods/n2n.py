"""Network to network: policies search a student, which is taught by the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.core.errors import PlanError
from penjing.core.registry import register


@register("method")
@dataclass(frozen=True)
class n2n:  # noqa: N801  (registered under its own name)
    """Let policies take out blocks and narrow what is left, each student taught for a while, and train the best.

    Each of ``updates`` in each of two stages asks for ``rollouts`` students. They are trained for ``taught`` epochs, at
    a rate of ``taught_lr``, on ``images`` training pictures (None takes all), and then measured on validation. The
    reward is accuracy times what is saved of the tightest bounded cost, so that the result may lie far below the
    budget; ``accuracy`` is the share of the original's accuracy that must stay. The best student is trained for
    ``epochs``. A search of this kind is long: by default a thousand trainings of five epochs; give it ``--workers``.

    Raises: PlanError naming an option that cannot be.
    Paper: Ashok, Rhinehart, Beainy, Kitani, N2N Learning: Network to Network Compression via Policy Gradient
    Reinforcement Learning, ICLR 2018.
    Differs: students are taught by outputs and labels, the paper's by outputs alone; they keep the channels of the
    best scores, the paper's the first ones; of the policies what the allocator ``n2n`` says.
    """

    updates: int = 100
    rollouts: int = 5
    accuracy: float = 0.0
    taught: int = 5
    taught_lr: float = 0.01
    images: int | None = None
    epochs: int = 50
    lr: float = 0.01
    terms: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name in ("updates", "rollouts", "taught", "epochs"):
            if getattr(self, name) < 1:
                raise PlanError(f"n2n: {name} must be 1 or more; got {getattr(self, name)}.")

    def __call__(self) -> list[Any]:
        """Return the search and the training."""
        search = {"updates": self.updates, "rollouts": self.rollouts, "accuracy": self.accuracy}
        judged = {"epochs": self.taught, "lr": self.taught_lr, "train_images": self.images, "terms": ["outputs"]}
        cut = {
            "rewrite": ["channels", "layers"],
            "criterion": "jacobian",
            "allocator": {"n2n": search},
            "measure": {"tuned_error": judged},
        }
        training = {"epochs": self.epochs, "lr": self.lr, "terms": self.terms}
        return [{"prune": cut}, "recalibrate", {"train": training}]
