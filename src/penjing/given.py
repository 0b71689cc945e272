"""What a run is given, checked before any work: the network, its data, what it is made for, and the steps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from penjing import targets
from penjing.core import console
from penjing.core.errors import PlanError
from penjing.core.protocols import Target
from penjing.core.registry import build
from penjing.costs.hardware import back_to_back
from penjing.data.data import Data
from penjing.data.load import as_data
from penjing.exporting.measure import check_target
from penjing.exporting.running import refuse_packed
from penjing.exporting.runtimes.subject import check_precision
from penjing.graph.exits import Exiting
from penjing.graph.quantized import refuse_quantized
from penjing.graph.trace import plain
from penjing.references import refuse_impossible
from penjing.steps.order import AFTER_BITS, ordered
from penjing.steps.price import asked
from penjing.steps.state import State
from penjing.steps.tutor import tutor_of
from penjing.training.probe import probe


def target_of(given: Any, threads: int | None, batch: int | None) -> tuple[Target, int, int]:
    """Return what the network is made for, and on how many threads and in what batches latency is measured.

    Raises: PlanError for what is no target, or cannot be on this machine; MissingExtra for a runtime that is not there.
    """
    found: Any = given
    if given is None or isinstance(given, str | Path):
        found = targets.default() if given is None else targets.find(given)
    if not hasattr(found, "estimate"):
        raise PlanError(f"{given!r} is no target; give a name that penjing target list shows, or a YAML file.")
    threads = getattr(found, "threads", 1) if threads is None else threads
    batch = found.batch if batch is None else batch
    check_target(threads, batch)
    if found.runtime:
        check_precision(found.runtime, found.precision, build("runtime", found.runtime).precisions())
        return found.at(threads=threads, batch=batch), threads, batch
    return found.at(batch=batch), threads, batch


def begin(
    model: Any,
    data: Any,
    steps: Sequence[Any],
    budget: Any,
    target: Target,
    example: Any,
    seed: int,
    references: Sequence[str] = (),
    teacher: Any = None,
) -> tuple[list[Any], dict[str, str], State]:
    """Check all that can be checked before any work; return the steps, the budget, and the state they start from.

    Raises: PenjingError for everything a user can mend.
    """
    if not isinstance(model, nn.Module):
        raise PlanError(f"The model is {_kind(model)}; give a torch.nn.Module, such as penjing.zoo.resnet56().")
    refuse_packed(model)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise PlanError(f"The seed is a whole number from 0 on; got {seed!r}.")
    if isinstance(references, str):
        raise PlanError(f"References are several names, such as ({references!r},); got {references!r} alone.")
    if isinstance(model, Exiting):
        raise PlanError(
            "The network has exits already, which stand behind its layers as they are; give what they stand in, "
            "model.network, and take the step exits last."
        )
    wanted = {name: one.text for name, one in asked(budget, target).items()}
    for warning in back_to_back(wanted, target):
        console.remark(warning)
    todo = ordered(steps)
    names = (type(step).__name__.rstrip("_") for step in todo)
    if changing := next((name for name in names if name not in AFTER_BITS), ""):
        refuse_quantized(changing, model)
    data = None if data is None else as_data(data, seed=seed)
    original = plain(model).cpu()
    refuse_impossible(references, original, data, todo)
    inputs = inputs_of(example, data)
    if data is not None:
        probe(original, data)
    if data is None or example is not None:
        probe(original, inputs)
    tutor = None if teacher is None else tutor_of(teacher, model, original, data, todo)
    return todo, wanted, State(copy.deepcopy(original), original, data, (inputs, {}), tutor=tutor)


def inputs_of(example: Any, data: Data | None) -> tuple[Any, ...]:
    """Return the example input as positional arguments.

    Raises: PlanError when there is none.
    """
    if example is None and data is None:
        raise PlanError("There is neither data nor an example input; pass one of them.")
    if example is None:
        assert data is not None
        return (data.example(2),)
    return tuple(example) if isinstance(example, list | tuple) else (example,)


def _kind(thing: Any) -> str:
    return f"a class, {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"
