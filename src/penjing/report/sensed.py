"""What cuts lost and saved site by site, as checked values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Alone:
    """A site was cut to so many units with all others whole, and this was lost."""

    kept: int
    loss: float


@dataclass(frozen=True)
class Sensed:
    """A site under a cut: of its ``score`` so much is ``lost``, and ``saves`` is a share of the network's cost.

    ``expected`` is what the counts that were ``measured`` tell of the count that was chosen.
    """

    site: str
    kind: str
    size: int
    kept: int
    score: float
    lost: float
    saves: float
    measured: list[Alone] = field(default_factory=list)
    expected: float | None = None


@dataclass(frozen=True)
class Sensitivity:
    """All sites of one cut, and what the allocator ``said`` of its choice.

    Where sites were measured alone, ``minimise`` names what, in ``unit``, and ``whole`` is that of the network uncut.
    """

    step: str
    cost: str
    sites: list[Sensed]
    minimise: str = ""
    unit: str = ""
    whole: float | None = None
    said: str = ""


@dataclass(frozen=True)
class Foretold:
    """How well losses ``by`` one means foretold whole plans, and what the plan chosen by them ``reached``.

    ``rank`` is the rank correlation, ``explained`` the share of the variance; ``taken`` says that this plan was it.
    """

    by: str
    rank: float
    explained: float
    reached: float
    taken: bool
