"""Let a network's own end teach exits on the way to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import TrainError
from penjing.core.outputs import first_tensor
from penjing.core.registry import register
from penjing.graph.exits import Exit
from penjing.graph.stages import branches, look
from penjing.terms.clock import Clock

BATCH = 128
"""The batch of the paper, for which its feature distance, a norm over all of a batch, has its weight."""


@dataclass
class _Attached:
    """What a training adds beside the network: its exits, translations of their features, and what layers returned."""

    exits: list[Exit] = field(default_factory=list)
    adapters: dict[int, nn.Linear] = field(default_factory=dict)
    deepest: str = ""
    heard: dict[str, Tensor] = field(default_factory=dict)
    hooks: list[Any] = field(default_factory=list)
    optimizer: torch.optim.Optimizer | None = None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return [p for module in (*self.exits, *self.adapters.values()) for p in module.parameters()]


@register("term")
@dataclass(frozen=True)
class self_distillation:  # noqa: N801 - the name a recipe writes
    """Put exits behind inner layers, and let the network's own end teach them.

    Exits are small classifiers (``penjing.graph.exits.Exit``) at the end of every stage but the last, or behind
    ``layers``, by name. They train along and are no part of the network: with the term they go, and what they were good
    for are the gradients that they sent into the stages before them; the step ``exits`` keeps them. For each one the
    term adds ``(1 - alpha) CE(z, y) + alpha CE(softmax(z / T), softmax(z' / T))``, where z' are the network's own
    logits, and, but for the exits in ``skip``, counted from 1, ``features * ‖A f - f'‖``: f is what the exit's linear
    layer reads, A a learned linear map, f' the last stage's map averaged over places. What teaches, z' and f', gets no
    gradient. The task loss keeps its weight. Without labels the soft part alone is left; of pictures that were blended
    (mixup) the label is the first one's. Exits are new where the network may be trained already, so that they learn at
    a rate of their own, ``lr``, which falls to zero along a cosine; by SGD with momentum, without weight decay. A
    network of one spatial size has no place for exits; then the term adds nothing and says so.

    Raises: TrainError for an option that cannot be; PlanError for a layer that no exit can stand behind.
    Paper: Zhang, Song, Gao, Chen, Bao, Ma, Be Your Own Teacher, ICCV 2019, eq. 3 to 6, in the form of the released code
    of its journal version: no T² before the soft part, the norm not squared, and a linear map before it.
    Differs: the norm is that of a batch of 128, whatever the batch is, since a loss may not grow with it.
    """

    alpha: float = 0.3
    features: float = 0.03
    temperature: float = 3.0
    layers: tuple[str, ...] = ()
    skip: tuple[int, ...] = (1,)
    lr: float = 0.05
    _shown: list[Tensor] = field(init=False, repr=False, compare=False, default_factory=list)
    _own: _Attached = field(init=False, repr=False, compare=False, default_factory=_Attached)
    _clock: Clock = field(init=False, repr=False, compare=False, default_factory=Clock)

    @property
    def exits(self) -> list[Exit]:
        """The exits of the last training, in the order of execution."""
        return self._own.exits

    def show(self, x: Tensor) -> None:
        """Take samples to learn the shapes from."""
        self._shown[:] = [x]

    def time(self, steps: int) -> None:
        """Take how long the rate falls."""
        self._clock.steps = steps

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Make new exits and listen where they stand; return their parameters, and the statistics of their norms."""
        self.refuse()
        if not self._shown:
            raise TrainError("self_distillation reads the shapes of layers from samples: call show(x) before attach.")
        self._silence()
        x, own = self._shown[0], self._own
        own.exits, own.adapters, own.deepest = [], {}, ""
        counted = self._clock.attach()
        seen = look(model, x)
        if not self.layers and len(seen.logits) == 2 and len(seen.ends) < 2:
            console.remark(
                "self_distillation: the maps of the network have one size alone, so that there is no stage to put an "
                "exit behind; the term adds nothing. Name layers to put them there."
            )
            return counted
        found, deepest = branches(seen, self.layers)
        own.deepest = deepest.name
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(torch.initial_seed())  # so that attaching twice draws the same
            own.exits += [Exit(branch).to(x.device).train() for branch in found]
            width = deepest.channels
            for i, exit in enumerate(own.exits):
                if i + 1 not in self.skip and self.features:
                    own.adapters[i] = nn.Linear(exit.branch.widths[-1], width).to(x.device)
        for name in (*(branch.at for branch in found), deepest.name):
            own.hooks.append(model.get_submodule(name).register_forward_hook(partial(self._hear, name)))
        return [*own.parameters, *_statistics(own.exits), *counted]

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the exits; without any, one of what never has a gradient."""
        own = self._own
        idle = nn.Parameter(torch.zeros((), device=self._clock.progress().device), requires_grad=False)
        own.optimizer = torch.optim.SGD(own.parameters or [idle], self.lr, momentum=0.9, nesterov=True)
        return own.optimizer

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the sum over the exits; a scalar.

        Raises: TrainError for labels that are no classes.
        """
        own, loss = self._own, x.new_zeros((), dtype=torch.float32)
        if not own.exits:
            return loss
        if y is not None and y.ndim != 1:
            raise TrainError("self_distillation: exits tell the class of a picture, and these labels are masks.")
        for group in own.optimizer.param_groups if own.optimizer is not None else ():
            group["lr"] = learning_rate(float(self._clock.progress()), self.lr)
        teacher = first_tensor(outputs).detach().float()
        soft = F.softmax(teacher / self.temperature, 1)
        deepest = _pooled(own.heard[own.deepest].detach())
        for i, exit in enumerate(own.exits):
            features = exit.features(own.heard[exit.branch.at])
            logits = exit.head(features).float()
            loss = loss + self.alpha * F.cross_entropy(logits / self.temperature, soft)
            if y is not None:
                loss = loss + (1 - self.alpha) * F.cross_entropy(logits, y)
            if i in own.adapters:
                apart = own.adapters[i](features).float() - deepest
                loss = loss + self.features * apart.norm() * math.sqrt(BATCH / len(x))
        return loss

    def after_step(self) -> None:
        """Count the step."""
        self._clock.tick()

    def detach(self) -> None:
        """Stop listening; the exits stay with the term until the next ``attach``."""
        self._silence()
        self._clock.steps = 0

    def _silence(self) -> None:
        self._own.optimizer = None
        for hook in self._own.hooks:
            hook.remove()
        self._own.hooks.clear()
        self._own.heard.clear()

    def _hear(self, name: str, _: nn.Module, args: Any, output: Tensor) -> None:
        # A copy, since what follows may write over the map, as a ReLU in place does.
        self._own.heard[name] = output.clone()

    def refuse(self) -> None:
        """Refuse options that cannot be.

        Raises: TrainError naming the first.
        """
        told: Mapping[str, tuple[float, bool, str]] = {
            "alpha": (self.alpha, 0 <= self.alpha <= 1, "a share from 0 to 1"),
            "features": (self.features, math.isfinite(self.features) and self.features >= 0, "0 or more"),
            "lr": (self.lr, 0 < self.lr < math.inf, "above 0"),
            "temperature": (self.temperature, 0 < self.temperature < math.inf, "above 0"),
        }
        for name, (value, fine, what) in told.items():
            if not fine:
                raise TrainError(f"self_distillation: {name} must be {what}; got {value}.")


def learning_rate(progress: float, peak: float) -> float:
    """Return the rate after this share of the training.

    >>> [round(learning_rate(share, 0.05), 3) for share in (0.0, 0.5, 1.0)]
    [0.05, 0.025, 0.0]
    """
    return peak * (1 + math.cos(math.pi * progress)) / 2


def _pooled(maps: Tensor) -> Tensor:
    """Return the mean over places, [n, c, ...] → [n, c] in float32."""
    return maps.float().flatten(2).mean(2)


def _statistics(exits: list[Exit]) -> list[nn.Parameter]:
    """Turn the running statistics of exits into parameters that nothing trains, since these travel; return them.

    Of what a term has, its parameters alone are kept in checkpoints and come back from other processes.
    """
    found = []
    for exit in exits:
        for norm in (module for module in exit.modules() if isinstance(module, nn.BatchNorm2d)):
            for name in ("running_mean", "running_var"):
                one = nn.Parameter(norm.get_buffer(name), requires_grad=False)
                norm._buffers[name] = one
                found.append(one)
    return found
