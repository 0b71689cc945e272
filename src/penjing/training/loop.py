"""Train a classifier: one call for training, fine-tuning and distillation, on one device or several."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from penjing.core.errors import TrainError
from penjing.core.modes import modes_kept
from penjing.core.protocols import Progress, Shown, Taught, Term, Timed
from penjing.training.checkpoint import Checkpoint
from penjing.training.options import Options, check, make_optimizer
from penjing.training.processes import accelerator_here, open_fabric, resolve_precision, spread
from penjing.training.remembered import Remembered
from penjing.training.session import Job, Row, Session
from penjing.training.state import chance, device_of, placement_kept, tensors_of

if TYPE_CHECKING:
    from penjing.data.splits import Split

__all__ = ["History", "Options", "Row", "fit"]


@dataclass(frozen=True)
class History:
    """What a training run went through; ``kept`` is the epoch whose weights the model has now.

    ``stopped`` tells that somebody pressed Ctrl-C before the last epoch was done.
    """

    rows: tuple[Row, ...]
    kept: int
    precision: str
    device: str
    stopped: bool = False


def fit(
    model: nn.Module,
    train: Split,
    val: Split | None,
    recipe: Options,
    *,
    terms: Sequence[Term] = (),
    seed: int = 0,
    teacher: nn.Module | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    checkpoint: Checkpoint | None = None,
    answers: Path | None = None,
) -> History:
    """Train ``model`` in place; its modes, device and memory layout and the global generators end as they were.

    The task loss is the cross-entropy of the first tensor the model returns, scaled by the product of the terms'
    ``task_weight``; a batch without labels has none. ``teacher`` is lent to every term that takes one. On a CPU, two
    runs with one seed and one number of threads are equal to the bit.

    A last batch of fewer than two samples a device is left out. With several devices each process takes every n-th
    sample of each batch and the gradient is that of the whole batch; batch norm sees each process's own samples, and
    its running statistics are averaged after each epoch. ``on_epoch`` is then called after training, since that must
    happen in this process, and ``progress`` gives way to the first process's own bar; what a term learns comes back
    in the parameters that its ``attach`` returned, and nothing else of it. ``checkpoint`` says where training keeps
    itself; where that file is there already, it goes on from it, and ends as if it had never been stopped. ``answers``
    is the folder for what the teacher says beforehand of fixed ``views``, by default one that goes with the training.

    Raises: TrainError when the recipe, the data and the model do not fit; and when the loss or a weight stops being
    finite, after putting the model back to the start of that epoch; ResumeError for a checkpoint that does not fit.
    """
    check(recipe, len(train), validated=val is not None and len(val) > 0)
    accelerator = accelerator_here()
    precision = resolve_precision(recipe.precision, accelerator)
    fabric = open_fabric(accelerator, recipe.devices, precision)
    alone = recipe.devices == 1
    with placement_kept(model), modes_kept(model), contextlib.ExitStack() as attached:
        if alone:
            model.to(fabric.device)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        extras: list[nn.Parameter] = []
        if recipe.views and teacher is not None and any(map(_borrows, terms)):
            if teacher is model:
                raise TrainError("The teacher is the model being trained; give a copy or another network.")
            teacher = remembering = Remembered(teacher)
        else:
            remembering = None
        with chance(seed, "train/attach", device_of(model)):
            for term in terms:
                if teacher is not None and isinstance(term, Taught):
                    term.teach(teacher)
                if isinstance(term, Timed):
                    term.time(recipe.steps(len(train)) * recipe.epochs)
                if isinstance(term, Shown):
                    term.show(next(iter(train.batches(2)))[0].to(device_of(model)))
                attached.callback(term.detach)
                extras += term.attach(model)
        if remembering is not None:
            place = answers or Path(attached.enter_context(tempfile.TemporaryDirectory(prefix="penjing-")))
            remembering.fill(train, recipe.views, seed, place)
        make_optimizer(recipe, model, extras)  # refuses a frozen model here, before any process starts
        job = Job(model, train, val, recipe, tuple(terms), extras, seed, checkpoint=checkpoint)
        if alone:
            job.progress, job.on_epoch = progress, on_epoch
            report = Session(fabric, job).run()
        else:
            report = spread(fabric, Session, job, tensors_of(model, extras), 8192 + 512 * recipe.epochs)
            if on_epoch is not None:
                for row in report["rows"]:
                    on_epoch(dict(row))
    return History(tuple(report["rows"]), report["kept"], precision, accelerator, report["stopped"])


def _borrows(term: Term) -> bool:
    """Tell whether a term takes the teacher that is lent."""
    return isinstance(term, Taught) and getattr(term, "teacher", None) is None
