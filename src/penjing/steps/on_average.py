"""What a network with exits costs, which depends on the picture: latency and MACs are averages over pictures."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from penjing.exporting.early import typical
from penjing.exporting.runtimes.subject import Subject
from penjing.graph.exits import Exiting
from penjing.steps.state import Run, State


def leaves_early(model: nn.Module | None) -> bool:
    """Tell whether what a network computes depends on the picture."""
    return isinstance(model, Exiting) and model.early


def pictures(state: State, run: Run) -> tuple[Tensor, ...]:
    """Return the validation pictures on which all files of a run are measured, where one of them leaves early."""
    model = state.model
    found = run.noted("exits")
    if not leaves_early(model) or state.data is None or not found:
        return ()
    assert isinstance(model, Exiting)
    key = f"pictures of {id(model)}"
    if key not in run.made:
        run.made[key] = tuple(typical(model, state.data.val, found[-1]["measured_on"]))
    taken: tuple[Tensor, ...] = run.made[key]
    return taken


def shown(subject: Subject, state: State, run: Run) -> Subject:
    """Return a subject as it is to be measured beside the network of a state."""
    return Subject(subject.source, subject.model, subject.example, pictures(state, run))


def averaged(costs: Mapping[str, float], model: nn.Module | None, run: Run) -> dict[str, float]:
    """Return costs with the MACs that a picture takes on average, as the step exits found them."""
    found = run.noted("exits")
    return {**costs, "macs": float(found[-1]["macs"])} if leaves_early(model) and found else dict(costs)
