"""Learning both weights and connections: threshold, retrain, and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.core.errors import PlanError
from penjing.core.registry import register


@register("method")
@dataclass(frozen=True)
class han:  # noqa: N801  (registered under its own name)
    """Set small weights to zero and retrain the others, in rounds, until ``sparsity`` of them are zero.

    A round zeroes the weights of every layer below q standard deviations of that layer's surviving weights, with the
    one quality parameter q that reaches the round's share, and trains ``epochs`` epochs with the zeros held. After
    round j of n a share (1 - sparsity)^(j/n) of the weights is left. A weight that is zero never comes back. At the end
    channels go, physically, that are left without weights that read or write them (``remove_dead``). All other zeros
    are stored and reported as sparse weights, with which a dense engine is not faster.

    Raises: PlanError naming an option that cannot be.
    Paper: Han, Pool, Tran, Dally, Learning both Weights and Connections for Efficient Neural Networks, NIPS 2015,
    section 3 and 3.5.
    Differs: one q for all layers, where the paper sets one a layer by a scan of sensitivity; dropout is left as it is;
    all layers retrain together. Shares are of all parameters, of which biases and batch norm stay.
    """

    sparsity: float = 0.9
    rounds: int = 5
    epochs: int = 4
    lr: float = 0.002
    terms: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not 0 < self.sparsity < 1:
            raise PlanError(f"han: sparsity is the share of weights set to zero, between 0 and 1; got {self.sparsity}.")
        for name in ("rounds", "epochs"):
            if getattr(self, name) < 1:
                raise PlanError(f"han: {name} must be 1 or more; got {getattr(self, name)}.")

    def __call__(self) -> list[Any]:
        """Return the rounds, a cut and a training each, and the removal of what they leave dead."""
        shares = [(1 - self.sparsity) ** (j / self.rounds) for j in range(1, self.rounds + 1)]
        return [*(step for left in shares for step in self._round(left)), "remove_dead"]

    def _round(self, left: float) -> list[Any]:
        cut = {
            "rewrite": "weights",
            "criterion": {"deviation": {"centred": False}},
            "allocator": {"global": {"floor": 0.0}},
            "budget": {"nonzero": f"{left:.6g}x"},
        }
        return [{"prune": cut}, {"train": {"epochs": self.epochs, "lr": self.lr, "terms": list(self.terms)}}]
