"""Train a classifier: one loop for fine-tuning and distillation, on one device or several."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import TrainError
from penjing.core.random import derive
from penjing.core.types import Progress, Taught, Term
from penjing.train.evaluate import Metrics, class_count, class_scores, evaluate, first_tensor
from penjing.train.processes import accelerator_here, open_fabric, resolve_precision, spread
from penjing.train.recalibrate import batch_norms
from penjing.train.schedule import learning_rate
from penjing.train.state import Snapshot, modes_kept, placement_kept, tensors_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from penjing.data import Split

LOOK = 16
"""Every how many steps the loss is read: reading waits for the device, so it is not done at each step."""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    ``lr`` is the peak of a linear warm-up (``warmup``: its fraction of all steps) and a cosine to zero. ``batch`` is
    the size over all devices together. ``weight_decay`` spares biases and normalisation unless ``decay_norm``.
    ``precision`` is one of auto, 32-true, bf16-mixed, 16-mixed; auto takes bf16-mixed where the hardware computes in
    bf16. ``clip`` bounds the norm of the gradient. ``keep`` says whether the last weights stay or those of the
    epoch with the best validation accuracy. On a CPU a device is a process.
    """

    epochs: int = 40
    lr: float = 0.02
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_norm: bool = False
    batch: int = 128
    warmup: float = 0.05
    label_smoothing: float = 0.0
    clip: float | None = None
    keep: Literal["last", "best"] = "last"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    channels_last: bool = True
    devices: int = 1


Row: TypeAlias = dict[str, float | int | None]
"""One epoch: ``epoch`` from 1, ``lr`` of its last step, mean training ``loss`` with all terms, ``val_accuracy`` in %,
``val_loss`` in nats, ``seconds`` with validation."""


@dataclass(frozen=True)
class History:
    """What a training run went through; ``kept`` is the epoch whose weights the model has now."""

    rows: tuple[Row, ...]
    kept: int
    precision: str
    device: str


def fit(
    model: nn.Module,
    train: Split,
    val: Split | None,
    recipe: Recipe,
    *,
    terms: Sequence[Term] = (),
    seed: int = 0,
    teacher: nn.Module | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[Row], None] | None = None,
) -> History:
    """Train ``model`` in place and leave its modes, device, memory layout and the global generators as they were.

    The task loss is the cross-entropy of the first tensor the model returns, scaled by the product of the terms'
    ``task_weight``; batches without labels have none. ``teacher`` is lent to every term that takes one. On a CPU, two
    runs with one seed and one number of threads are equal to the bit.

    A last batch of one sample (with several devices: of fewer than two samples each) is left out. With several
    devices each process takes every n-th sample of each batch, the gradient is the whole batch's, batch norm sees
    each process's own samples and its running statistics are averaged after each epoch. The seconds-long calls to
    ``on_epoch`` then come after training, all at once, since they must happen in this process.

    Raises: TrainError when the recipe, the data and the model do not fit; and when the loss or a weight stops being
    finite, after putting the model back to the start of that epoch.
    """
    _check(recipe, train, val)
    accelerator = accelerator_here()
    precision = resolve_precision(recipe.precision, accelerator)
    fabric = open_fabric(accelerator, recipe.devices, precision)
    with placement_kept(model), modes_kept(model), contextlib.ExitStack() as attached:
        if recipe.devices == 1:
            model.to(fabric.device)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        extras: list[nn.Parameter] = []
        for term in terms:
            if teacher is not None and isinstance(term, Taught):
                term.teach(teacher)
            attached.callback(term.detach)
            extras += term.attach(model)
        job = _Job(model, train, val, recipe, tuple(terms), extras, seed)
        if recipe.devices == 1:
            job.progress, job.on_epoch = progress, on_epoch
            report = _Training(fabric, job).run()
        else:
            room = 8192 + 512 * recipe.epochs
            report = spread(fabric, _Training, job, tensors_of(model, extras), room)
            for row in report["rows"] if on_epoch is not None else ():
                on_epoch(row)  # type: ignore[misc]
    return History(tuple(report["rows"]), report["kept"], precision, accelerator)


def _check(recipe: Recipe, train: Split, val: Split | None) -> None:
    if recipe.epochs < 1 or recipe.batch < 2 or recipe.devices < 1:
        raise TrainError(
            f"epochs, batch and devices must be at least 1, 2 and 1; got {recipe.epochs}, {recipe.batch} and "
            f"{recipe.devices}."
        )
    if not (math.isfinite(recipe.lr) and recipe.lr > 0):
        raise TrainError(f"lr must be above 0; got {recipe.lr}.")
    if recipe.optimizer not in ("sgd", "adamw"):
        raise TrainError(f"There is no optimizer {recipe.optimizer!r}; choose sgd or adamw.")
    if recipe.keep not in ("last", "best"):
        raise TrainError(f"keep is 'last' or 'best', not {recipe.keep!r}.")
    if recipe.keep == "best" and (val is None or len(val) == 0):
        raise TrainError("keep is 'best', but there is no validation split to choose the best epoch on.")
    if _steps(recipe, len(train)) == 0:
        raise TrainError(
            f"There is nothing to train on: {len(train)} samples in batches of {recipe.batch} for {recipe.devices} "
            f"device(s); each device needs two samples of a batch."
        )


def _steps(recipe: Recipe, samples: int) -> int:
    """Return the optimiser steps of one epoch."""
    whole, rest = divmod(samples, recipe.batch)
    least = 2 * recipe.devices
    return (whole if recipe.batch >= least else 0) + (rest >= least)


@dataclass
class _Job:
    """What every process needs to know."""

    model: nn.Module
    train: Split
    val: Split | None
    recipe: Recipe
    terms: tuple[Term, ...]
    extras: list[nn.Parameter]
    seed: int
    progress: Progress | None = None
    on_epoch: Callable[[Row], None] | None = None


class _Diverged(Exception):
    """The loss of a step, or something after the last one, is not finite."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(what)
        self.step = step


@dataclass
class _Meter:
    """What has happened in this epoch and has not been looked at."""

    losses: list[Tensor] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    total: float = 0.0
    seen: int = 0


class _Training:
    """One process's part of a training run."""

    def __init__(self, fabric: Fabric, job: _Job) -> None:
        self.fabric, self.job, self.recipe, self.model = fabric, job, job.recipe, job.model
        self.rank, self.world, self.device = fabric.global_rank, fabric.world_size, fabric.device
        self.model.to(self.device)
        for extra in job.extras:
            extra.data = extra.data.to(self.device)
        self.tensors = tensors_of(self.model, job.extras)
        self.trained = [
            tensor for tensor in self.tensors if isinstance(tensor, nn.Parameter) and tensor.requires_grad
        ]
        if not self.trained:
            raise TrainError("There is nothing to train: no parameter of the model has requires_grad set.")
        self.optimizer = _optimizer(self.model, job.extras, self.recipe)
        self.stepper: Any = fabric.setup_optimizers(self.optimizer)
        self.classes = class_count(job.train)
        self.per_epoch = _steps(self.recipe, len(job.train))
        self.total = self.per_epoch * self.recipe.epochs
        self.good = Snapshot(self.tensors)

    def run(self) -> dict[str, Any]:
        """Train all epochs and return the rows and the epoch kept."""
        rows: list[Row] = []
        best: tuple[float, float] = (-math.inf, -math.inf)
        kept, best_weights = self.recipe.epochs, None
        with self._chance(), self._progress() as advance:
            for epoch in range(self.recipe.epochs):
                start = time.perf_counter()
                try:
                    loss = self._epoch(epoch, advance)
                    metrics = self._validate(epoch)
                except _Diverged as diverged:
                    self.good.restore()
                    raise TrainError(self._advice(epoch, diverged)) from None
                self.good.take()
                if self.recipe.keep == "best" and metrics and (metrics.correct, -metrics.loss) > best:
                    best, kept = (metrics.correct, -metrics.loss), epoch + 1
                    best_weights = best_weights or Snapshot(self.tensors)
                    best_weights.take()
                rows.append(
                    {
                        "epoch": epoch + 1,
                        "lr": self._lr((epoch + 1) * self.per_epoch - 1),
                        "loss": loss,
                        "val_accuracy": metrics.accuracy if metrics else None,
                        "val_loss": metrics.loss if metrics else None,
                        "seconds": time.perf_counter() - start,
                    }
                )
                if self.job.on_epoch is not None:
                    self.job.on_epoch(rows[-1])
        if best_weights is not None:
            best_weights.restore()
        return {"rows": rows, "kept": kept}

    def _epoch(self, epoch: int, advance: Callable[[int, str], None]) -> float:
        """Train one epoch and return its mean loss."""
        self.model.train()
        meter = _Meter()
        batches = self.job.train.batches(self.recipe.batch, seed=self.job.seed, epoch=epoch, augment=True)
        for x, y in batches:
            if len(x) < 2 * self.world:
                continue
            self._step(epoch * self.per_epoch + len(meter.losses) + meter.seen, x, y, meter)
            if len(meter.losses) == LOOK:
                self._look(epoch, meter, advance)
        self._look(epoch, meter, advance)
        return meter.total

    def _step(self, step: int, x: Tensor, y: Tensor | None, meter: _Meter) -> None:
        ...
