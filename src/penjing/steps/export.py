"""Export the network, and prove that the file computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.core.errors import PlanError
from penjing.core.registry import register
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import allowed, check_likeness, check_parity
from penjing.graph.quantized import quantized
from penjing.steps.int8 import write_int8
from penjing.steps.state import Run, State

ROUNDED = 0.1
"""How far the outputs of a file may be, as a share, whose layers round what they read: a sum whose last bit differs may
tip a value over to the next level, and then what hangs on it.
"""

ADVICE = "Where values lie that near the edge of a level, train on, or round what layers read to more bits."


@register("step")
@dataclass(frozen=True)
class export:  # noqa: N801  (registered under its own name)
    """Write ``file`` as one self-contained ONNX file and compare it with the model on real pictures.

    ``tolerance`` is the largest relative difference of the outputs, in half precision 20 units in the last place where
    that is more; ``images`` training pictures are compared, and the first of them alone, since a file may be bound to a
    batch. After ``int8`` the file is quantized then.
    """

    file: str = "model.onnx"
    images: int = 64
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises: PlanError naming the option.
        """
        if not self.file.endswith(".onnx") or Path(self.file).name != self.file or self.file.startswith("."):
            raise PlanError(f"export: file is a plain name that ends in .onnx, in the run's folder; got {self.file!r}.")
        if isinstance(self.images, bool) or self.images < 1:
            raise PlanError(f"export: images must be 1 or more; got {self.images!r}.")
        if not 0 < self.tolerance < 1:
            raise PlanError(f"export: tolerance is a relative difference between 0 and 1; got {self.tolerance!r}.")

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the file.

        Raises: ParityError when file and model disagree; TraceError when the model cannot be exported.
        """
        with run.stage("export", self.file) as said:
            notes: list[str] = []
            place = (run.folder if state.int8 is None else run.scratch) / self.file
            path = export_onnx(state.model, *state.example, place, notes=notes)
            for note in notes:
                run.note("remarks", note)
            inputs: list[Any] = [state.example[0]]
            if state.data is not None:
                inputs = list(state.data.calibration(self.images, run.seed))
            said.append(self._compared(state, path, inputs, run))
            if state.int8 is not None:
                path = write_int8(path, run.folder / self.file, state, run, said)
        return state.with_file(self.file, path)

    def _compared(self, state: State, path: Path, inputs: Sequence[Any], run: Run) -> str:
        """Hold the file against the model, write down the certificate, and return what it says.

        Raises: ParityError when they disagree.
        """
        if any(layer.reads is not None for layer in quantized(state.model).values()):
            found = check_likeness(state.model, path, inputs, ROUNDED, ADVICE)
            facts = {"name": "torch resembles ONNX", "difference": found.noise, "tolerance": ROUNDED}
            told = f"differs from the model by {found.noise:.1e} (root mean square), where values tip over in rounding"
        else:
            tolerance = allowed(state.model, self.tolerance)
            found = check_parity(state.model, path, inputs, tolerance=tolerance)
            facts = {"name": "torch equals ONNX", "difference": found.relative, "tolerance": tolerance}
            told = f"differs from the model by {found.relative:.1e} at most"
        compared = f"{self.file}, {found.samples - 1} pictures in batches and 1 alone"
        run.note("certificates", facts | {"ok": True, "detail": compared})
        return told
