"""The latency of the model itself: built, exported and timed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from penjing.core.protocols import Cost, Draft, Target
from penjing.core.registry import register
from penjing.costs.hardware import ModelledLatency
from penjing.exporting.inputs import with_batch
from penjing.exporting.measure import measure
from penjing.exporting.onnx import export_onnx

SECONDS = 5.0
"""Time for one measurement."""


@register("cost")
@dataclass(frozen=True)
class latency:  # noqa: N801 - the name a budget writes
    """Measure one inference on ONNX Runtime, on this machine's CPU; on a target with a model of its own, predict it.

    Measured, it is the median over some seconds, on ``threads`` threads, for ``batch`` samples at once.

    Units: ms.
    """

    threads: int = 1
    batch: int = 1

    unit = "ms"
    cheap = False

    def upon(self, target: Target) -> Cost:
        """Return the cost on this target: itself where the exported file is measured."""
        return self if target.runtime else ModelledLatency().upon(target)

    def __call__(self, draft: Draft) -> float:
        """Export the draft to a temporary file and return its median latency."""
        args, kwargs = with_batch(draft.example, self.batch)
        with tempfile.TemporaryDirectory(prefix="penjing-") as folder:
            file = export_onnx(
                draft.model(), args, kwargs, Path(folder) / "draft.onnx", dynamic_batch=False, quick=True
            )
            timings = measure({"draft": file}, threads=self.threads, batch=self.batch, budget_seconds=SECONDS)
        return timings["draft"].median_ms
