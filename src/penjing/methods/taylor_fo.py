"""Importance estimation: cut a little by the first-order Taylor score, train, and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.core.errors import PlanError
from penjing.core.registry import register


@register("method")
@dataclass(frozen=True)
class taylor_fo:  # noqa: N801  (registered under its own name)
    """Remove the channels of least first-order Taylor score in rounds, with training between them, then train.

    Round j of ``rounds`` ends j/``rounds`` of the way from the original to the run's budget, whatever cost that
    bounds; scores are taken anew in each on ``images`` pictures, and each but the last is followed by ``between``
    epochs. After the last the network trains for ``epochs``. ``allocator`` says how many of each site go: ``global``
    ranks all channels together, as the paper does; ``greedy`` divides scores by what a channel costs.

    Raises: PlanError naming an option that cannot be.
    Paper: Molchanov, Mallya, Tyree, Frosio, Kautz, Importance Estimation for Neural Network Pruning, CVPR 2019.
    Differs: rounds take equal parts of the budget, where the paper removes 100 channels after every 30 minibatches;
    training between them is by whole epochs, and taught by the original, by default; of the score what ``taylor`` says.
    """

    rounds: int = 10
    between: int = 1
    epochs: int = 10
    lr: float = 0.005
    images: int = 512
    allocator: Any = "global"
    terms: tuple[Any, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        for name in ("rounds", "between", "epochs", "images"):
            if getattr(self, name) < 1:
                raise PlanError(f"taylor_fo: {name} must be 1 or more; got {getattr(self, name)}.")

    def __call__(self) -> list[Any]:
        """Return the rounds, a cut and a training each."""
        steps: list[Any] = []
        for left in range(self.rounds, 0, -1):
            cut = {"criterion": "taylor", "allocator": self.allocator, "images": self.images, "towards": 1 / left}
            epochs = self.between if left > 1 else self.epochs
            steps += [{"prune": cut}, {"train": {"epochs": epochs, "lr": self.lr, "terms": self.terms}}]
        return steps
