"""Learn what a teacher computes on the way, through a translation that is learned as well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from penjing.core.errors import TrainError
from penjing.core.modes import modes_kept
from penjing.core.registry import register
from penjing.terms.pairs import Between, gap, middle, need_maps, one_size
from penjing.terms.teacher import Teacher


@register("term")
@dataclass(frozen=True)
class fitnets:  # noqa: N801 - the name a recipe writes
    """Pull what layers compute, mapped by a learned 1x1 convolution, towards what the teacher's compute.

    Adds ``weight * Σ ‖r(s) - t‖² / (‖r(s)‖² + ‖t‖²)`` over pairs of layers; the divisor has no gradient. Each pair has
    its own regressor ``r``, from the model's channels to the teacher's. It trains along, with the loop's optimiser and
    without weight decay, is no part of the model, and is forgotten when the term is detached; where the numbers of
    channels agree it begins as the identity, since a network made from its teacher agrees with it channel by channel.
    ``layers`` names the pairs, ``model=teacher`` where the names differ; by default it is the middle one of the
    ends of stages that both networks have (``penjing.terms.pairs.middle``). Labels are not used.

    Raises: TrainError without a teacher, for a layer that either network lacks, or one that returns no map.
    Paper: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015, eq. 3.
    Differs: beside the task from the start, in one stage; relative to the size of what is computed, which differs
    widely between networks, where others take 100 times the mean square; a 1x1 regressor, the larger map being averaged
    over the places of the smaller where the sizes differ.
    """

    weight: float = 2.0
    layers: str | tuple[str, ...] | Mapping[str, str] = ()
    teacher: Any = field(default=None, repr=False, compare=False)
    _teacher: Teacher = field(init=False, repr=False, compare=False, default_factory=lambda: Teacher("fitnets"))
    _between: Between = field(init=False, repr=False, compare=False, default_factory=lambda: Between("fitnets", middle))
    _shown: list[Tensor] = field(init=False, repr=False, compare=False, default_factory=list)
    _regressors: list[nn.Module] = field(init=False, repr=False, compare=False, default_factory=list)

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``, unless the options name one."""
        self._teacher.lend(teacher)

    def show(self, x: Tensor) -> None:
        """Take samples to learn the shapes from."""
        self._shown[:] = [x]

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Run both networks on the samples shown; return the parameters of the regressors."""
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise TrainError(f"fitnets needs a weight of 0 or more; got {self.weight}.")
        if not self._shown:
            raise TrainError("fitnets reads the shapes of layers from samples: call show(x) before attach(model).")
        self._between.listen(model, self._teacher.hire(self.teacher, model), self.layers)
        x = self._shown.pop()
        with torch.no_grad(), modes_kept(model):
            model.eval()(x)
            heard = self._between.hear(x, self._teacher)
        need_maps("fitnets", heard)
        self._regressors[:] = [_regressor(own, theirs) for _, own, theirs in heard]
        return [parameter for regressor in self._regressors for parameter in regressor.parameters()]

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return the weighted sum of relative squared distances; a scalar."""
        loss = x.new_zeros((), dtype=torch.float32)
        for regressor, (_, own, theirs) in zip(self._regressors, self._between.hear(x, self._teacher), strict=True):
            s, t = one_size(own, theirs)
            loss = loss + gap(regressor(s), t)
        return self.weight * loss

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Stop listening, forget the regressors and a lent teacher, and give this its modes and its device back."""
        self._between.close()
        self._regressors.clear()
        self._shown.clear()
        self._teacher.release()


_CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def _regressor(own: Tensor, theirs: Tensor) -> nn.Module:
    """Return a 1x1 convolution from one's channels to the other's, on the device of ``own``."""
    channels, wanted = own.shape[1], theirs.shape[1]
    regressor = _CONVOLUTIONS[own.ndim](channels, wanted, 1).to(own.device)
    if channels == wanted:
        assert regressor.bias is not None
        nn.init.dirac_(regressor.weight)
        nn.init.zeros_(regressor.bias)
    return regressor
