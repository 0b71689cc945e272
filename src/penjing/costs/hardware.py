"""Costs that a target tells: energy, power, memory on the chip and traffic to the memory beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

from penjing.core.errors import BudgetError
from penjing.core.protocols import Draft, Target
from penjing.core.registry import register


@dataclass(frozen=True)
class OnTarget:
    """A cost that a target's model of the hardware tells by arithmetic; ``upon`` fills the target in."""

    target: Target | None = None

    cheap = True

    @property
    def name(self) -> str:
        """What the target calls it."""
        return type(self).__name__

    def upon(self, target: Target) -> Self:
        """Return the cost on this target.

        Raises: BudgetError naming the costs that the target does tell.
        """
        if self.name not in target.tells:
            raise BudgetError(untold(self.name, target))
        return replace(self, target=target)

    def __call__(self, draft: Draft) -> float:
        """Return the cost of a draft on the target.

        Raises: BudgetError when no target is filled in.
        """
        if self.target is None:
            raise BudgetError(f"{self.name} is told by a target, and there is none; give one, such as eyeriss_v1.")
        return self.target.estimate(draft).cost(self.name)


def untold(cost: str, target: Target) -> str:
    """Return a sentence that says what a target tells, and what to do about a cost that it does not."""
    return (
        f"{cost} is nothing that the target {target.name} tells, which is {', '.join(target.tells)}; name another with "
        "--target (penjing target list shows them), or bound another cost."
    )


def back_to_back(budget: Iterable[str], target: Target) -> list[str]:
    """Say of a budget on the average power what it bounds where the target states no frame rate."""
    if "power" not in budget or "power" not in target.tells or getattr(target, "frame_rate", None) is not None:
        return []
    return [
        f"power on {target.name} is that of inferences back to back, energy over latency, which a faster network may "
        "well draw more of; for the average of a stream give --frame-rate, in Python target.at(frame_rate=30)."
    ]


@register("cost")
@dataclass(frozen=True)
class energy(OnTarget):  # noqa: N801 - the name a budget writes
    """Predict the energy of one inference on the target: arithmetic, on-chip and off-chip traffic, and leakage.

    Units: mJ.
    """

    unit = "mJ"


@register("cost")
@dataclass(frozen=True)
class power(OnTarget):  # noqa: N801 - the name a budget writes
    """Predict the average power on the target, at its frame rate, or of inferences back to back where it states none.

    Units: mW.
    """

    unit = "mW"


@register("cost")
@dataclass(frozen=True)
class peak_power(OnTarget):  # noqa: N801 - the name a budget writes
    """Predict the power of the layer that draws most on the target.

    Units: mW.
    """

    unit = "mW"


@register("cost")
@dataclass(frozen=True)
class sram(OnTarget):  # noqa: N801 - the name a budget writes
    """Predict the most on-chip memory taken at one time on the target.

    Where there is no memory beside the chip that is what all activations alive take; elsewhere, what the tiles of a
    layer take.

    Units: bytes.
    """

    unit = "bytes"


@register("cost")
@dataclass(frozen=True)
class flash(OnTarget):  # noqa: N801 - the name a budget writes
    """Predict the storage that the weights take on the target, in its precision.

    Units: bytes.
    """

    unit = "bytes"


@register("cost")
@dataclass(frozen=True)
class dram_bytes(OnTarget):  # noqa: N801 - the name a budget writes
    """Predict the traffic of one inference between the target's chip and the memory beside it.

    Units: bytes.
    """

    unit = "bytes"


@dataclass(frozen=True)
class ModelledLatency(OnTarget):
    """The latency that a model of the hardware tells; what ``latency`` becomes upon such a target.

    Units: ms.
    """

    name = "latency"
    unit = "ms"
