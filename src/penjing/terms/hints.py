"""Learn from what a teacher computes on the way."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core import console
from penjing.core.errors import TrainError, did_you_mean
from penjing.core.registry import register
from penjing.terms.teacher import Teacher


class Ears:
    """Keeps what modules of a network returned in its last run, in the order they ended, and the run's input."""

    def __init__(self, network: nn.Module) -> None:
        self.modules = {name: module for name, module in network.named_modules() if name}
        self.heard: dict[str, Tensor] = {}
        self.input: Tensor | None = None
        self._hooks: list[Any] = []
        self._root = network.register_forward_pre_hook(self._begin)

    def listen(self, names: Iterable[str]) -> None:
        """Listen at these modules from now on, and at no others."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = [self.modules[name].register_forward_hook(partial(self._hear, name)) for name in names]

    def close(self) -> None:
        """Stop listening and forget."""
        self.listen(())
        self._root.remove()
        self.heard, self.input = {}, None

    def _begin(self, _: nn.Module, args: tuple[Any, ...]) -> None:
        self.heard, self.input = {}, next((a for a in args if isinstance(a, Tensor)), None)

    def _hear(self, name: str, _: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            self.heard.pop(name, None)
            self.heard[name] = output


@register("term")
@dataclass(frozen=True)
class hints:  # noqa: N801 - the name a recipe writes
    """Pull what layers compute towards what the teacher computes there.

    Adds ``weight * Σ ‖s - t‖² / (‖s‖² + ‖t‖²)`` over layers, ``s`` and ``t`` being what the layer of that name returns
    for the batch in the model and in the teacher; the divisor has no gradient. ``layers`` names them; by default it
    is, at every spatial size above one, the last one whose result has the teacher's shape: in a residual network whose
    stream was left whole, the end of every stage. Where none has, the term adds nothing and says so. Name it after a
    term that runs the same teacher, which then is not run again. A larger weight pulls harder and asks for a smaller
    learning rate: 200 was best for a deep residual network, and too much for a small one of inverted residuals.

    Raises: TrainError without a teacher, for a layer that either network lacks, or one that returns another shape.
    Paper: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3.
    Differs: no regressor, since a cut network computes what its original does, channel by channel; several layers at
    once, each relative to the size of what is computed, so that no layer can run away; beside the task from the start.
    """

    weight: float = 20.0
    layers: tuple[str, ...] = ()
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(init=False, repr=False, compare=False, default_factory=lambda: Teacher("hints"))
    _ears: list[Ears] = field(init=False, repr=False, compare=False, default_factory=list)
    _chosen: list[tuple[str, ...]] = field(init=False, repr=False, compare=False, default_factory=list)

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Listen at both networks; there are no parameters to train."""
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise TrainError(f"hints needs a weight of 0 or more; got {self.weight}.")
        teacher = self._teacher.hire(self.teacher, model)
        self._hang_up()
        self._ears.extend([Ears(model), Ears(teacher)])
        for whose, ears in zip(("model", "teacher"), self._ears, strict=True):
            for name in self.layers:
                if name not in ears.modules:
                    raise TrainError(f"hints: the {whose} has no layer {name!r}.{did_you_mean(name, ears.modules)}")
            ears.listen(self.layers or ears.modules)
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted sum of relative squared distances; a scalar."""
        own, theirs = self._ears
        if theirs.input is not x:
            self._teacher(x)
        if not self._chosen:
            self._chosen.append(self._named(own, theirs) if self.layers else last_alike(own.heard, theirs.heard))
            own.listen(self._chosen[0])
            theirs.listen(self._chosen[0])
            if not self._chosen[0]:
                console.remark("hints: no layer returns the shape it returns in the teacher; the term adds nothing")
        loss = x.new_zeros((), dtype=torch.float32)
        for name in self._chosen[0]:
            s, t = own.heard[name].float(), theirs.heard[name].float()
            loss = loss + (s - t).square().sum() / (s.detach().square().sum() + t.square().sum()).clamp(min=1e-12)
        return self.weight * loss

    def _named(self, own: Ears, theirs: Ears) -> tuple[str, ...]:
        """Return the layers asked for.

        Raises: TrainError for one that does not return the same shape in both networks.
        """
        for name in self.layers:
            shapes = [list(ears.heard[name].shape) if name in ears.heard else "no tensor" for ears in (theirs, own)]
            if shapes[0] != shapes[1] or "no tensor" in shapes:
                raise TrainError(
                    f"hints: {name} returns {shapes[0]} in the teacher and {shapes[1]} in the model; "
                    "name layers whose channels were not cut."
                )
        return self.layers

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Stop listening, give the teacher its modes and its device back, and forget a lent one."""
        self._hang_up()
        self._teacher.release()

    def _hang_up(self) -> None:
        for ears in self._ears:
            ears.close()
        self._ears.clear()
        self._chosen.clear()


def last_alike(own: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[str, ...]:
    """Return, of each spatial size above one, the last layer that returns the same ``[n, c, ...]`` in both networks."""
    last: dict[tuple[int, ...], str] = {}
    for name, tensor in own.items():
        if tensor.shape[2:].numel() > 1 and name in theirs and tensor.shape == theirs[name].shape:
            last[tuple(tensor.shape[2:])] = name
    return tuple(last.values())
