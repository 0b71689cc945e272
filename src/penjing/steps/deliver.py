"""Deliver: export the model, prove that the file computes the same, and hold it against the budget."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from penjing.core.errors import Infeasible
from penjing.core.registry import build, register
from penjing.core.types import Plan
from penjing.costs.units import resolve
from penjing.exporting.measure import measure, ratio
from penjing.exporting.onnx import export_onnx
from penjing.exporting.session import file_bytes
from penjing.exporting.verify import check_parity
from penjing.graph.draft import Draft
from penjing.graph.trace import trace
from penjing.steps.price import asked, cheap_costs, original_of, units
from penjing.steps.recover import data_of
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate


@register("step")
@dataclass(frozen=True)
class export:  # noqa: N801  (registered under its own name)
    """Write ``file`` as one self-contained ONNX file and compare it with the model on real pictures.

    ``tolerance`` is the largest relative difference of the outputs; ``images`` training pictures are compared.
    """

    file: str = "model.onnx"
    images: int = 64
    tolerance: float = 1e-4

    def __call__(self, state: State, run: Run) -> State:
        """Return the state with the file.

        Raises: ParityError when file and model disagree; TraceError when the model cannot be exported.
        """
        with run.stage("export", self.file) as said:
            notes: list[str] = []
            path = export_onnx(state.model, *state.example, run.folder / self.file, notes=notes)
            for note in notes:
                run.note("remarks", note)
            inputs: list[Any] = [state.example[0]]
            if state.data is not None:
                inputs = list(state.data.calibration(self.images, run.seed))
            found = check_parity(state.model, path, inputs, tolerance=self.tolerance)
            certificate = {"name": "torch equals ONNX", "difference": found.relative, "tolerance": self.tolerance}
            run.note("certificates", certificate | {"ok": True, "detail": f"{found.samples} pictures"})
            said.append(f"differs from the model by {found.relative:.1e} at most")
        return state.with_file(self.file, path)


@register("step")
@dataclass(frozen=True)
class check:  # noqa: N801  (registered under its own name)
    """Measure the exported file and hold it against the budget; a miss is an error."""

    file: str = "model.onnx"

    def __call__(self, state: State, run: Run) -> State:
        """Return the state unchanged.

        Raises: Infeasible listing every bound missed, with what was measured.
        """
        with run.stage("check") as said:
            graph = trace(state.model, *state.example, proof=False)
            original = original_of(state, run)
            draft = Draft(graph, Plan(), state.copy_model)
            costs = {name: float(build("cost", name)(draft)) for name in cheap_costs()}
            file = state.files[self.file]
            timings = measure({"original": original.file, "model": file}, threads=run.threads, batch=run.batch)
            faster = ratio(timings["original"], timings["model"])
            costs |= {"size": float(file_bytes(file)), "latency": original.costs["latency"] / faster.median}
            costs["nonzero"] = float(sum(int((p != 0).sum()) for p in state.model.parameters()))
            wanted = asked(run.budget)
            if "error" in wanted:
                data = data_of(state, "check")
                costs["error"] = evaluate(state.model, data.val).error
                original.costs.setdefault("error", evaluate(state.original, data.val).error)
            run.note("final", {"costs": costs, "latency": asdict(timings["model"]), "ratio": asdict(faster),
                               "original_latency": asdict(timings["original"])})  # fmt: skip
            misses = []
            for name, one in wanted.items():
                bound = resolve(one, original.costs[name])
                ok = bound.met(costs[name])
                run.note("budget", {"cost": name, "asked": bound.asked, "limit": bound.limit, "unit": units()[name],
                                    "measured": costs[name], "met": ok,
                                    "where": "validation" if name == "error" else "exported file"})  # fmt: skip
                if not ok:
                    misses.append(f"{name} {bound.asked} is {bound.limit:.6g}, measured {costs[name]:.6g}")
            said.append(f"{faster.median:.2f}x as fast" if not misses else "; ".join(misses))
        if misses:
            raise Infeasible(f"The exported file misses the budget: {'; '.join(misses)}. Raise the bound.", costs)
        return state
