"""Where the time went, as checked values: layers before and after, what runs between them, and why some are slow."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.steps.sides import Finding


@dataclass(frozen=True)
class Half:
    """A layer on one side; a time is None where it is not known."""

    in_channels: int
    out_channels: int
    macs: float
    measured_ms: float | None
    predicted_ms: float | None
    density: float = 1.0
    energy_mj: float | None = None
    bound: str = ""
    utilisation: float | None = None
    bits: int = 32
    input_bits: int = 32

    @property
    def ms(self) -> float:
        """What it takes: measured, or else what the model of the hardware says."""
        return self.measured_ms if self.measured_ms is not None else self.predicted_ms or 0.0

    @property
    def work(self) -> float:
        """Multiply-accumulates that are not by zero."""
        return self.macs * self.density


@dataclass(frozen=True)
class Layer:
    """A layer before and after; None on the side where it is not there. ``lost_ms`` is how far time lags the work."""

    name: str
    kind: str
    before: Half | None
    after: Half | None
    lost_ms: float

    @property
    def before_ms(self) -> float:
        """What it took."""
        return self.before.ms if self.before else 0.0

    @property
    def after_ms(self) -> float:
        """What it takes."""
        return self.after.ms if self.after else 0.0

    @property
    def work_gain(self) -> float | None:
        """How many times less there is to compute."""
        return _over(self.before.work, self.after.work) if self.before and self.after else None

    @property
    def measured_gain(self) -> float | None:
        """How many times faster it is in the network."""
        return _over(self.before.measured_ms, self.after.measured_ms) if self.before and self.after else None

    @property
    def predicted_gain(self) -> float | None:
        """How many times faster it was predicted to be."""
        return _over(self.before.predicted_ms, self.after.predicted_ms) if self.before and self.after else None


def _over(before: float | None, after: float | None) -> float | None:
    return before / after if before and after else None


@dataclass(frozen=True)
class Other:
    """All operators of one name that are no layers; ``kind`` is ``"layout"``, ``"quantize"`` or nothing."""

    operator: str
    before_ms: float
    after_ms: float
    kind: str


@dataclass(frozen=True)
class Spending:
    """Where the time went in the original and in the result, on the target named ``on``.

    ``how`` is ``"measured"``, ``"modelled"``, or ``"whole"`` where nothing is known of single layers; ``uncut`` names
    the layers that compute as much as before.
    """

    on: str
    how: str
    before_ms: float
    after_ms: float
    before_macs: float
    after_macs: float
    layers: list[Layer]
    others: list[Other]
    findings: list[Finding]
    uncut: list[str]
    noise: float
    note: str = ""

    @property
    def source(self) -> str:
        """Where the times are from, in words."""
        return f"by the model of {self.on}" if self.how == "modelled" else f"measured on {self.on}"
