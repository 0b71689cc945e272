"""Measure the exported file and hold it against the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from penjing.core.errors import Missed, PlanError
from penjing.core.registry import register
from penjing.costs.units import Asked, resolve, show
from penjing.exporting.measure import ratio
from penjing.exporting.runtimes.subject import Subject
from penjing.exporting.session import file_bytes
from penjing.steps.on_average import averaged, shown
from penjing.steps.original import Original, counted, drafted, estimated, original_of
from penjing.steps.price import asked, units
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate


@register("step")
@dataclass(frozen=True)
class check:  # noqa: N801  (registered under its own name)
    """Measure the exported file, the last one or ``file``, and hold it against the budget; a miss is an error."""

    file: str | None = None

    def __call__(self, state: State, run: Run) -> State:
        """Return the state unchanged.

        Raises: Missed listing every bound missed, with what was measured; PlanError when the model as it is now was
        not exported.
        """
        with run.stage("check") as said:
            file = self._file(state)
            original = original_of(state, run)
            draft = drafted(state.model, state.example)
            pair = {"original": original.subject, "model": Subject(file, state.model, state.example)}
            subjects = {name: shown(one, state, run) for name, one in pair.items()}
            wanted = asked(run.budget)
            timings = run.measure(f"the file of {run.at}", subjects, self._limit(wanted, original, run))
            faster = ratio(timings["original"], timings["model"])
            here = {"latency": original.timing.median_ms / faster.median}
            costs = (
                averaged(counted(draft), state.model, run)
                | {"size": float(file_bytes(file))}
                | here
                | estimated(draft, run.target)
            )
            if "error" in wanted:
                costs["error"] = evaluate(state.judged, state.labelled_for("The budget error").val).error
            misses = []
            for name, one in wanted.items():
                bound, unit = resolve(one, original.cost(name)), units()[name]
                ok = bound.met(costs[name])
                run.note("budget", {"cost": name, "asked": bound.asked, "limit": bound.limit, "unit": unit,
                                    "measured": costs[name], "met": ok,
                                    "where": _where(name, run)})  # fmt: skip
                if not ok:
                    limit, measured = show(bound.limit, unit), show(costs[name], unit)
                    over = costs[name] / bound.limit - 1
                    misses.append(f"{name} {bound.asked} is {limit}, measured {measured}, {over:.1%} more")
            run.note("final", {"costs": costs, "latency": asdict(timings["model"]), "ratio": asdict(faster)})
            said.append(f"{faster.median:.2f}x as fast" if not misses else "; ".join(misses))
        if misses:
            raise Missed(f"The exported file misses the budget: {'; '.join(misses)}. Raise the bound.", costs)
        return state

    def _limit(self, wanted: Mapping[str, Asked], original: Original, run: Run) -> float | None:
        """Return the share of the original's measured latency that the budget allows; None where it allows any."""
        if "latency" not in wanted or not run.target.runtime:
            return None
        return resolve(wanted["latency"], original.cost("latency")).limit / original.cost("latency")

    def _file(self, state: State) -> Path:
        """Return the file to measure.

        Raises: PlanError when there is none of the model as it is now.
        """
        name = self.file or next(reversed(list(state.files)), None)
        if name is None or name not in state.files:
            what = f"no {name} of" if name else "no file of"
            raise PlanError(f"check: there is {what} the model as it is now; put the step export right before check.")
        return state.files[name]


def _where(cost: str, run: Run) -> str:
    """Return what decided about a cost."""
    modelled = cost in run.target.tells and not run.target.runtime
    return "validation" if cost == "error" else f"model of {run.target.name}" if modelled else "exported file"
