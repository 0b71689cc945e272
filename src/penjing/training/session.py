"""One process's part of a training run."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import Diverged, TrainError
from penjing.core.interrupts import held
from penjing.core.outputs import first_tensor
from penjing.core.protocols import Progress, SelfDriven, Term
from penjing.graph.quantized import inside, quantized
from penjing.training.blend import Blend
from penjing.training.checkpoint import Checkpoint, optimizer_state, put_back, restore_optimizer
from penjing.training.evaluate import Metrics, class_count, class_scores, evaluate
from penjing.training.options import Options, make_optimizer, parameters_of
from penjing.training.recalibrate import batch_norms
from penjing.training.schedule import learning_rate
from penjing.training.state import Snapshot, chance, tensors_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from penjing.data.splits import Split

LOOK = 16
"""Every how many steps the loss is read: reading waits for the device, so it is not done at each step."""

Row: TypeAlias = dict[str, float | int | None]
"""One epoch: ``epoch`` from 1, ``lr`` of its last step, mean training ``loss`` with all terms, ``val_accuracy`` in %,
``val_loss`` in nats, ``seconds`` with validation."""

Advance: TypeAlias = Callable[[int, str], None]


VOID = -100
"""The label of a place in a mask that has no class."""


@dataclass
class Job:
    """What every process needs to know."""

    model: nn.Module
    train: Split
    val: Split | None
    recipe: Options
    terms: tuple[Term, ...]
    extras: list[nn.Parameter]
    seed: int
    progress: Progress | None = None
    on_epoch: Callable[[Row], None] | None = None
    checkpoint: Checkpoint | None = None


@dataclass
class Where:
    """How far a training is: ``step`` steps into ``epoch``, whose losses so far sum to ``total`` over ``seen`` samples.

    ``best`` are the correct answers and the negative loss of the best epoch, ``kept`` its number.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    seen: int = 0
    rows: list[Row] = field(default_factory=list)
    best: tuple[float, float] = (-1.0, 0.0)
    kept: int = 0


class _Diverged(Exception):
    """Something is not finite; ``step`` is counted from the start of training, ``untrained`` before any update."""

    def __init__(self, step: int, what: str, untrained: bool = False) -> None:
        super().__init__(what)
        self.step, self.untrained = step, untrained


class Session:
    """The loop itself. With several processes each takes its stride of every batch, and all keep equal weights.

    Fabric opens the processes, casts and scales; the model is not wrapped in DistributedDataParallel, which would
    know neither the parameters that terms bring along nor a last batch that gives the processes unequal shares, and
    refuses parameters without a gradient.
    """

    def __init__(self, fabric: Fabric, job: Job) -> None:
        self.fabric, self.job, self.recipe, self.model = fabric, job, job.recipe, job.model
        self.rank, self.world, self.device = fabric.global_rank, fabric.world_size, fabric.device
        self.model.to(self.device)
        for extra in job.extras:
            extra.data = extra.data.to(self.device)
        self.tensors = tensors_of(self.model, job.extras)
        for tensor in self.tensors:
            # A spawned process gets the caller's own memory and would write into it along with all the others.
            if self.world > 1 and tensor.device.type == "cpu" and tensor.is_shared():
                tensor.data = tensor.data.clone()
        own = [term.optimizer() for term in job.terms if isinstance(term, SelfDriven)]
        self.optimizer = make_optimizer(self.recipe, self.model, job.extras, driven=parameters_of(*own))
        self.optimizers = [self.optimizer, *own]
        self.trained: list[Tensor] = parameters_of(*self.optimizers)
        self.steppers: list[Any] = [fabric.setup_optimizers(optimizer) for optimizer in self.optimizers]
        self.classes = class_count(job.train)
        self.steps = self.recipe.steps(len(job.train))
        self.good = Snapshot(self.tensors)
        self.best: Snapshot | None = None
        self.at = Where(kept=self.recipe.epochs)
        self.saved = 0

    def run(self) -> dict[str, Any]:
        """Train all epochs that are left; return the ``rows``, the epoch ``kept``, and whether it was ``stopped``.

        Ctrl-C after the first epoch, in the only process, ends training with the last epoch that is whole.

        Raises: TrainError, with the weights as they were at the start of the epoch; ResumeError for a checkpoint that
        does not fit.
        """
        with chance(self.job.seed, f"train/{self.rank}", self.device):
            self._go_on()
            with self._progress() as advance:
                if done := self.at.epoch * self.steps + self.at.step:
                    advance(done, f"epoch {self.at.epoch + 1}/{self.recipe.epochs}, going on")
                while self.at.epoch < self.recipe.epochs:
                    try:
                        self._epoch(advance)
                    except _Diverged as diverged:
                        self.good.restore()
                        kind = TrainError if diverged.untrained else Diverged
                        raise kind(self._advice(diverged)) from None
                    except TrainError:
                        self.good.restore()
                        raise
                    except KeyboardInterrupt:
                        if not self.at.rows or self.world > 1:
                            raise
                        self.good.restore()
                        break
        stopped = len(self.at.rows) < self.recipe.epochs
        if self.best is not None:
            self.best.restore()
        elif stopped:
            self.at.kept = len(self.at.rows)
        return {"rows": self.at.rows, "kept": self.at.kept, "stopped": stopped}

    def _epoch(self, advance: Advance) -> None:
        """Train what is left of an epoch, and validate."""
        start = time.perf_counter()
        at, epoch = self.at, self.at.epoch
        self.model.train()
        unread: list[Tensor] = []
        again = {"view": epoch % self.recipe.views} if self.recipe.views else {}
        batches = self.job.train.batches(self.recipe.batch, seed=self.job.seed, epoch=epoch, augment=True, **again)
        for x, y in islice((pair for pair in batches if len(pair[0]) >= self.recipe.least), at.step, None):
            unread.append(self._step(epoch * self.steps + at.step, x, y))
            at.step, at.seen = at.step + 1, at.seen + len(x)
            if len(unread) == LOOK or at.step == self.steps:
                at.total += self._read(unread, epoch * self.steps + at.step)
                advance(len(unread), f"epoch {epoch + 1}/{self.recipe.epochs}, loss {at.total / at.seen:.4f}")
                unread.clear()
                self._keep(at.step)
        if at.step != self.steps:
            raise TrainError(
                f"Epoch {epoch + 1} had {at.step} batches, not {self.steps}: the training split "
                f"has {len(self.job.train)} samples and must give them in batches of {self.recipe.batch}."
            )
        metrics = self._validate((epoch + 1) * self.steps - 1)
        with held():  # or Ctrl-C would leave weights of two epochs
            self.good.take()
            if self.recipe.keep == "best" and metrics and (metrics.correct, -metrics.loss) > at.best:
                at.best, at.kept = (metrics.correct, -metrics.loss), epoch + 1
                self.best = self.best or Snapshot(self.tensors)
                self.best.take()
            row: Row = {
                "epoch": epoch + 1,
                "lr": self._lr((epoch + 1) * self.steps - 1),
                "loss": at.total / at.seen,
                "val_accuracy": metrics.accuracy if metrics else None,
                "val_loss": metrics.loss if metrics else None,
                "seconds": time.perf_counter() - start,
            }
            self.at = Where(epoch + 1, rows=[*at.rows, row], best=at.best, kept=at.kept)
        self._keep(0)
        if self.job.on_epoch is not None:
            self.job.on_epoch(dict(row))

    # ------------------------------------------------------------------------------------------------ interruptions

    def _named_optimizers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        """Return what each optimiser's state is called in a checkpoint: the model's first, then the terms' own."""
        return [(f"optimizer{i or ''}/", optimizer) for i, optimizer in enumerate(self.optimizers)]

    def _keep(self, step: int) -> None:
        """Save a checkpoint where one is due: at the end of an epoch (step 0), and on the way through it."""
        checkpoint = self.job.checkpoint
        if checkpoint is None or (step and (self.world > 1 or step + LOOK - self.saved <= checkpoint.every)):
            return
        self.saved = step
        chances = torch.get_rng_state()
        everyones = torch.zeros((self.world, len(chances)), dtype=torch.int32, device=self.device)
        everyones[self.rank] = chances.to(everyones)
        everyones = self._summed(everyones).to("cpu", torch.uint8)
        if self.rank:
            return
        groups = {"own": self.tensors, "chance": list(everyones)}
        for prefix, optimizer in self._named_optimizers():
            groups |= {f"{prefix}{kind}": values for kind, values in optimizer_state(optimizer).items()}
        groups |= {"good": self.good.copies} if step else {}
        groups |= {"best": self.best.copies} if self.best else {}
        if self.device.type == "cuda":
            groups["device chance"] = [torch.cuda.get_rng_state(self.device)]
        scaler = getattr(self.fabric._precision, "scaler", None)
        checkpoint.save(groups, {"where": asdict(self.at), "scaler": scaler.state_dict() if scaler else None})

    def _go_on(self) -> None:
        """Take up a checkpoint where there is one."""
        checkpoint = self.job.checkpoint
        found = checkpoint.load() if checkpoint is not None else None
        if checkpoint is None or found is None:
            return
        groups, facts = found
        path = checkpoint.path
        put_back(self.tensors, groups["own"], path)
        self.good.take()
        if "good" in groups:
            put_back(self.good.copies, groups["good"], path)
        if "best" in groups:
            self.best = Snapshot(self.tensors)
            put_back(self.best.copies, groups["best"], path)
        for prefix, optimizer in self._named_optimizers():
            mine = {kind.removeprefix(prefix): values for kind, values in groups.items() if kind.startswith(prefix)}
            restore_optimizer(optimizer, mine)
        torch.set_rng_state(groups["chance"][self.rank])
        if "device chance" in groups and self.world == 1:
            torch.cuda.set_rng_state(groups["device chance"][0], self.device)
        if facts["scaler"]:
            self.fabric._precision.scaler.load_state_dict(facts["scaler"])
        self.saved = int(facts["where"]["step"])
        self.at = Where(**facts["where"] | {"best": tuple(facts["where"]["best"])})

    def _step(self, step: int, x: Tensor, y: Tensor | None) -> Tensor:
        """Take one optimiser step; return the loss summed over this process's samples."""
        blend = Blend.drawn(self.recipe.mixup, len(x), self.job.seed, step) if self.recipe.mixup else None
        own = slice(self.rank, None, self.world)
        layout = torch.channels_last if self.recipe.channels_last and x.ndim == 4 else torch.contiguous_format
        inputs = x if blend is None else blend.of(x)
        inputs = inputs[own].to(self.device, non_blocking=True).contiguous(memory_format=layout)
        labels = None if y is None else y[own].to(self.device, non_blocking=True)
        others = None if y is None or blend is None else (y[blend.partner][own].to(self.device), blend.share)
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr(step)
        with self.fabric.autocast():
            outputs = self.model(inputs)
            loss = self._loss(step, inputs, outputs, labels, others)
        # The mean over the processes of losses weighted so is the mean over the whole batch, whatever the shares.
        self.fabric.backward(loss * (len(inputs) * self.world / len(x)))
        if self.world > 1:
            self._average_gradients()
        if self.recipe.clip is not None:
            self.fabric.clip_gradients(
                self.model, self.steppers[0], max_norm=self.recipe.clip, error_if_nonfinite=False
            )
        self._take_steps()
        for term in self.job.terms:
            term.after_step()
        return loss.detach() * len(inputs)

    def _take_steps(self) -> None:
        """Let every optimiser step; where losses are scaled, all by one scale, which changes after the last of them."""
        scaler = getattr(self.fabric._precision, "scaler", None)
        if scaler is None:
            for stepper in self.steppers:
                stepper.step()
        else:
            for optimizer in self.optimizers:
                if any(p.grad is not None for group in optimizer.param_groups for p in group["params"]):
                    scaler.step(optimizer)
            scaler.update()
        for stepper in self.steppers:
            stepper.zero_grad()

    def _loss(
        self, step: int, x: Tensor, outputs: Any, y: Tensor | None, others: tuple[Tensor, float] | None = None
    ) -> Tensor:
        """Return the whole loss; ``others`` are the labels of what was blended in, and the share of ``y``."""
        loss = x.new_zeros(())
        if y is not None:
            scores = self._scores(outputs, y, checked=step == 0)
            y = _without_void(y, scores.shape[1])
            share = math.prod(getattr(term, "task_weight", 1.0) for term in self.job.terms)
            task = partial(_task, scores.float(), self.recipe.label_smoothing)
            if others is None:
                loss = share * task(y)
            else:
                blended, mine = _without_void(others[0], scores.shape[1]), others[1]
                loss = share * (mine * task(y) + (1 - mine) * task(blended))
        for term in self.job.terms:
            loss = loss + term(x, outputs, y)
        if not loss.requires_grad:
            raise TrainError(
                "There is nothing to learn from: the batch has no labels, and no term gives the model a gradient."
            )
        return loss

    def _scores(self, outputs: Any, y: Tensor, checked: bool) -> Tensor:
        """Return the logits, ``[n, classes]`` or, for masks, ``[n, classes, h, w]``; checked where asked.

        Raises: TrainError for logits that do not fit the labels.
        """
        if y.ndim == 1:
            return class_scores(outputs, len(y), self.classes) if checked else first_tensor(outputs)
        scores = first_tensor(outputs)
        if checked and (scores.ndim != 4 or scores[:, 0].shape != y.shape):
            raise TrainError(
                f"The model's output has the shape {list(scores.shape)}, and its masks are {list(y.shape)}; they need "
                f"[{len(y)}, classes, {', '.join(map(str, y.shape[1:]))}]. Give such masks, or the pictures alone."
            )
        return scores

    def _lr(self, step: int) -> float:
        return learning_rate(step, self.steps * self.recipe.epochs, self.recipe.lr, self.recipe.warmup)

    def _average_gradients(self) -> None:
        """Replace every gradient by its mean over the processes; one that none of them has stays None."""
        has = torch.tensor([float(p.grad is not None) for p in self.trained], device=self.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trained]
        flat = self.fabric.all_reduce(torch.cat([has, *(part.reshape(-1) for part in parts)]), reduce_op="mean")
        assert isinstance(flat, Tensor)
        sizes = [len(has), *(part.numel() for part in parts)]
        has, *means = torch.split(flat, sizes)
        for parameter, part, mean, share in zip(self.trained, parts, means, has.tolist(), strict=True):
            parameter.grad = part.copy_(mean.view(part.shape)) if share else None

    def _read(self, losses: list[Tensor], end: int) -> float:
        """Return the sum of the losses of the steps before ``end`` over all processes.

        Raises: _Diverged at the first that is not finite, in every process alike.
        """
        values = self._summed(torch.stack(losses).double()).tolist()
        for step, value in enumerate(values, end - len(values)):
            if not math.isfinite(value):
                raise _Diverged(step, f"the loss became {value}", untrained=step == 0)
        return math.fsum(values)

    def _summed(self, tensor: Tensor) -> Tensor:
        if self.world == 1:
            return tensor
        result = self.fabric.all_reduce(tensor, reduce_op="sum")
        assert isinstance(result, Tensor)
        return result

    @torch.no_grad()
    def _validate(self, step: int) -> Metrics | None:
        """Check that the epoch left finite weights, and measure them in the first process.

        Raises: _Diverged, in every process alike.
        """
        if self.world > 1:
            for statistic in self._statistics():
                self.fabric.all_reduce(statistic, reduce_op="mean")
        broken = not bool(torch.stack([torch.isfinite(tensor).all() for tensor in self.trained]).all())
        metrics = None
        if self.rank == 0 and self.job.val is not None and len(self.job.val) and not broken:
            metrics = evaluate(self.model, self.job.val, batch=max(self.recipe.batch, 256))
            broken = not math.isfinite(metrics.loss)
        if float(self._summed(torch.tensor(float(broken), device=self.device))):
            raise _Diverged(step, "weights or the validation loss stopped being finite")
        return metrics

    def _statistics(self) -> Iterator[Tensor]:
        """Yield what each process has gathered of its own samples: batch norms' statistics, and quantizers' ranges."""
        for norm in batch_norms(self.model):
            assert norm.running_mean is not None and norm.running_var is not None
            yield from (norm.running_mean, norm.running_var)
        for layer in quantized(self.model).values():
            for module in inside(layer):
                yield from (buffer for buffer in module.buffers(recurse=False) if buffer.is_floating_point())

    def _advice(self, diverged: _Diverged) -> str:
        lr = self._lr(diverged.step)
        cause = (
            "It was the first batch: look for NaN or infinity in the data and the weights"
            if diverged.untrained
            else f"Try lr={self.recipe.lr / 10:g}, a longer warmup than {self.recipe.warmup:g}, or clip=1.0"
        )
        return (
            f"Training diverged in epoch {self.at.epoch + 1} at step {diverged.step + 1} of "
            f"{self.steps * self.recipe.epochs}, learning rate {lr:.3g}: {diverged}. The model is back at the start "
            f"of this epoch. {cause}."
        )

    @contextlib.contextmanager
    def _progress(self) -> Iterator[Advance]:
        total, done = self.steps * self.recipe.epochs, 0
        report = self.job.progress

        def tell(more: int, text: str) -> None:
            nonlocal done
            done += more
            if report is not None:
                report(done, total, text)

        if self.rank or report is not None:
            yield tell
        else:
            with console.bar("training", total) as bar:
                yield bar


def _without_void(y: Tensor, classes: int) -> Tensor:
    """Return labels; void and other marks in a mask, which are no classes, as what the loss passes over."""
    return y if y.ndim == 1 else y.masked_fill((y < 0) | (y >= classes), VOID)


def _task(scores: Tensor, smoothing: float, y: Tensor) -> Tensor:
    """Return the mean cross-entropy over samples, or over the places of masks that have a class; 0 where none has."""
    if y.ndim == 1:
        return F.cross_entropy(scores, y, label_smoothing=smoothing)
    total = F.cross_entropy(scores, y, ignore_index=VOID, label_smoothing=smoothing, reduction="sum")
    return total / (y != VOID).sum().clamp_min(1)
