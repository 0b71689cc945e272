"""Read the steps a user wrote, and refuse what cannot work before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

from penjing.core.errors import PlanError, RecipeError, did_you_mean
from penjing.core.registry import build, checked, entries
from penjing.rewrites.rounded import Rounded
from penjing.steps.check import check
from penjing.steps.exits import exits
from penjing.steps.export import export
from penjing.steps.int8 import int8
from penjing.steps.price import asked
from penjing.steps.prune import prune
from penjing.steps.quantize import quantize
from penjing.steps.recalibrate import recalibrate
from penjing.steps.stands_for import as_cut
from penjing.steps.train import train
from penjing.training.options import Options, check_values

AFTER_BITS = ("train", "recalibrate", "exits", "export", "check", "evaluate")
"""What steps may follow once weights are rounded."""

AFTER_EXITS = ("export", "check", "evaluate")
"""What steps may follow once a network has exits: they are trained on the layers that they stand behind."""

AFTER_INT8 = ("export", "check", "evaluate")
"""What steps may follow once the file is to be rounded."""

NAMED = {"criterion": "criterion", "allocator": "allocator", "measure": "cost"}
"""Options of steps that name an entry, and of which kind."""


def ordered(steps: Any) -> list[Any]:
    """Return the steps as objects, after everything that they name has been built once, to see that it can be.

    Raises: RecipeError naming the step that is none, the name or option that is unknown or wrong, or what is out of
    order; BudgetError for a step's own budget; PlanError or TrainError for an option out of its range.
    """
    if isinstance(steps, str | Mapping) or not isinstance(steps, Sequence):
        raise RecipeError(f"Steps are a list, such as [prune, train, export, check]; got {steps!r}.")
    if not steps:
        raise RecipeError("There are no steps; write for example [prune, train, export, check].")
    todo = [_built(i, step) for i, step in enumerate(spelled_out(steps), 1)]
    todo = [step.as_int8() if isinstance(step, quantize) and step.name == "int8" else step for step in todo]
    for i, (step, after) in enumerate(pairwise(todo)):
        if isinstance(step, quantize) and isinstance(after, recalibrate):
            todo[i] = replace(step, refresh=0)  # once is enough
    for step in todo:
        step = as_cut(step)
        for option, kind in NAMED.items():
            if (named := getattr(step, option, None)) is not None:
                build(kind, named)
        if isinstance(step, prune):
            for name in step.rewrites:
                build("rewrite", name)
            build("cost", step.judged_by)
        if isinstance(step, train):
            check_values(Options(**{f.name: getattr(step, f.name) for f in fields(Options)}))
        asked(getattr(step, "budget", None))
        for term in getattr(step, "terms", None) or ():
            build("term", term)
    _check_order(todo)
    _check_int8(todo)
    return todo


def spelled_out(steps: Sequence[Any]) -> list[Any]:
    """Return the steps with every method in its place spelled out as the steps that it stands for.

    Raises: RecipeError for an option of a method that is unknown or wrong.
    """
    found: list[Any] = []
    for step in steps:
        method = _method(step)
        found += [step] if method is None else spelled_out(method())
    return found


def _method(step: Any) -> Any:
    """Return the method that a step is, or None.

    Raises: RecipeError for a name that is neither a step's nor a method's, or an option that is wrong.
    """
    if isinstance(step, str) or (isinstance(step, Mapping) and len(step) == 1):
        name = step if isinstance(step, str) else next(iter(step))
        if name in entries("method"):
            return build("method", step)
        if name not in entries("step"):
            known = {**entries("step"), **entries("method")}
            raise RecipeError(f"There is no step {name!r}.{did_you_mean(str(name), known)}")
        return None
    return step if isinstance(step, tuple(entries("method").values())) else None


def _built(number: int, step: Any) -> Any:
    if isinstance(step, type):
        raise RecipeError(f"Step {number} is the class {step.__name__}; write {step.__name__}().")
    built = build("step", step)
    if not callable(built):
        raise RecipeError(f"Step {number} is {built!r}, which is no step; write its name, such as prune.")
    kind = type(built)
    if not isinstance(step, str | Mapping) and is_dataclass(built) and kind.__module__.startswith("penjing."):
        given = {field.name: getattr(built, field.name) for field in fields(built)}
        checked(f"step {kind.__name__.rstrip('_')!r}", kind, given)
    return built


def _check_order(steps: Sequence[Any]) -> None:
    """Refuse what would show only after all the work: a check of what is not exported, a cut of what is quantized."""
    written: list[str] = []
    rounded = leaves = False
    for step in steps:
        name = type(step).__name__.rstrip("_")
        if leaves and entries("step").get(name) is type(step) and name not in AFTER_EXITS:
            raise PlanError(_after_exits(name))
        leaves = leaves or isinstance(step, exits)
        if rounded and entries("step").get(name) is type(step) and name not in AFTER_BITS:
            raise PlanError(
                f"{name}: bits come last, since {name} changes layers, and what it leaves of them would have to be "
                f"rounded anew; put quantize after it. What may follow quantize: {', '.join(AFTER_BITS)}."
            )
        rounded = rounded or isinstance(step, quantize) or (isinstance(step, prune) and _rounds(step))
        if isinstance(step, export):
            written.append(step.file)
        elif isinstance(step, check):
            if not written or (step.file is not None and step.file not in written):
                raise PlanError(
                    f"check: there is no {step.file or 'file'} of the model as it is then; put the step export right "
                    "before check."
                )
        elif type(step).__name__ != "evaluate_":
            written.clear()


def _after_exits(name: str) -> str:
    """Say why a step cannot follow exits."""
    may = f"What may follow exits: {', '.join(AFTER_EXITS)}."
    if name == "int8":
        return f"int8: ONNX Runtime quantizes no file that stops early; leave exits or int8 out. {may}"
    if name == "exits":
        return f"exits: the network has exits already, and takes them once; name all layers in one step. {may}"
    return (
        f"{name}: exits come last, since {name} changes layers that they were trained behind; put exits after it. {may}"
    )


def _rounds(step: prune) -> bool:
    """Tell whether a cut rounds weights as well."""
    return any(issubclass(entries("rewrite").get(name, object), Rounded) for name in step.rewrites)


def _check_int8(steps: Sequence[Any]) -> None:
    """Refuse what would change a network whose file is rounded already, or judge a file that is not there.

    Raises: PlanError naming the step.
    """
    at = next((i for i, step in enumerate(steps) if isinstance(step, int8)), None)
    if at is None:
        return
    after = [type(step).__name__.rstrip("_") for step in steps[at + 1 :]]
    for name in after:
        if name not in AFTER_INT8:
            raise PlanError(
                f"{name}: int8 rounds the exported file, so nothing may change the network after it; put int8 behind "
                f"{name}, right before export. What may follow int8: {', '.join(AFTER_INT8)}."
            )
    if not after or after[0] != "export":
        raise PlanError("int8: it rounds the exported file; put the step export right after it.")
