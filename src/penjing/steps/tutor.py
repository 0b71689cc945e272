"""A teacher that is not the original: held against the network and its pictures before any work, and introduced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from penjing.core import console
from penjing.core.errors import PenjingError, PlanError
from penjing.core.outputs import answers, first_tensor
from penjing.data.data import Data
from penjing.graph.program import plain
from penjing.steps.state import Run, State
from penjing.training.evaluate import evaluate, near_chance
from penjing.training.follow import distance
from penjing.training.probe import probe


def tutor_of(given: Any, model: nn.Module, original: nn.Module, data: Data | None, steps: Sequence[Any]) -> nn.Module:
    """Return a private copy of the network that is to teach, in evaluation mode.

    ``model`` is what the user gave and ``original`` its plain copy.

    Raises: PlanError for what cannot teach this network on these pictures.
    """
    if not isinstance(given, nn.Module):
        raise PlanError(f"The teacher is of type {type(given).__name__}; give a torch.nn.Module.")
    if given is model:
        raise PlanError("The teacher is the model itself; leave it out, since by default the original teaches.")
    if data is None:
        raise PlanError("A teacher needs pictures to teach on, and this run has none; pass data.")
    if not any(getattr(step, "epochs", 0) for step in steps):
        raise PlanError("No step trains, so that a teacher has nobody to teach; add the step train, or leave it out.")
    name = type(given).__name__
    try:
        tutor = plain(given).cpu()
        probe(tutor, data)
    except PenjingError as error:
        raise PlanError(f"The teacher, {name}, cannot teach on these pictures: {error}") from None
    x = next(iter(data.train.batches(2)))[0]
    with torch.no_grad():
        theirs, own = tutor(x), original(x)
    if data.labelled:
        counts = [first_tensor(outputs).shape[1] for outputs in (theirs, own)]
        if counts[0] != counts[1]:
            raise PlanError(
                f"The teacher, {name}, tells {counts[0]} classes apart and the model {counts[1]}; give one that was "
                "trained on the classes of the data, built with as many, as in resnet56(num_classes=100)."
            )
    shapes = [[list(one.shape[1:]) for one in answers(outputs)] for outputs in (theirs, own)]
    if not data.labelled and shapes[0] != shapes[1]:
        raise PlanError(
            f"The teacher, {name}, returns {shapes[0]} for one picture and the model {shapes[1]}; without classes the "
            "two must return the same."
        )
    return tutor


def introduce(state: State, run: Run) -> None:
    """Tell who teaches, and how good it is on validation pictures; nothing where the original does."""
    tutor, data = state.tutor, state.data
    if tutor is None or data is None:
        return
    name = type(tutor).__name__
    count = sum(p.numel() for p in tutor.parameters())
    facts: dict[str, Any] = {"name": name, "params": count}
    with run.stage("teacher", name) as said:
        if data.labelled:
            found = evaluate(tutor, data.val)
            facts["validation"] = found.accuracy
            told = f"{found.accuracy:.2f} % right on validation pictures"
            if near_chance(found, data.num_classes):
                told += "; that is hardly better than guessing (are its weights loaded?)"
        else:
            facts["distance"] = distance(tutor, state.original, data.val)
            told = f"its outputs differ by {facts['distance']:.1f} % from the original's on validation pictures"
        said.append(told)
    run.note("teacher", facts)
    remark = f"The teacher was another network than the original, {name} with {count:,} parameters: {told}."
    run.note("remarks", remark)
    if "guessing" in told:
        console.remark(f"Beware: {remark}")
