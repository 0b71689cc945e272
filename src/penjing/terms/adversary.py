"""A critic that tells the outputs of the original from those of the network in training, which learns to pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from penjing.core.outputs import answers
from penjing.terms.outputs import apart
from penjing.terms.teacher import Teacher

WIDTHS = (128, 256, 128)
"""The hidden layers of the critic."""


@dataclass(eq=False)
class Adversary:
    """Add ``data_weight`` times the relative squared distance from the teacher's outputs, and an adversarial loss.

    The critic, a perceptron on ``classes`` logits that returns a logit itself, learns log D(teacher) + log(1 - D(s)),
    and log D(s) as well, so that it does not win at once; by SGD with momentum at ``critic_lr``. The network learns
    log D(s). Both take their steps on the same batch, from the same forward, so that each sees the other as it was.
    With ``reversal`` the network has no loss of its own: the gradient of the critic's log(1 - D(s)) goes on into it
    with the sign turned, times ``weight``. Of maps every position is one sample.

    Paper: Lin, Ji, Yan, Zhang, Cao, Ye, Huang, Doermann, Towards Optimal Structured CNN Pruning via Generative
    Adversarial Learning, CVPR 2019, eq. 2 to 6; for the reversal Ganin, Lempitsky, Unsupervised Domain Adaptation by
    Backpropagation, ICML 2015, eq. 4 to 9.
    Differs: the distance is relative to the size of what the teacher returns. The released code has no nonlinearity
    between the layers of the critic, and a sigmoid in front of a loss that has one already.
    """

    classes: int
    data_weight: float
    weight: float
    critic_lr: float
    reversal: bool = False
    _critic: nn.Module = field(init=False)
    _teacher: Teacher = field(init=False, default_factory=lambda: Teacher("gal"))

    def teach(self, teacher: nn.Module) -> None:
        """Take this teacher until ``detach``."""
        self._teacher.lend(teacher)

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        """Put the teacher into evaluation mode, and make the critic."""
        self._teacher.hire(None, model)
        sizes = (self.classes, *WIDTHS)
        layers: list[nn.Module] = []
        for read, written in pairwise(sizes):
            layers += [nn.Linear(read, written), nn.ReLU()]
        self._critic = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
        return list(self._critic.parameters())

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the critic."""
        return torch.optim.SGD(self._critic.parameters(), lr=self.critic_lr, momentum=0.9)

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        """Return what the network and the critic are to lower; neither part moves the other's parameters."""
        theirs = answers(self._teacher(x))
        real, fake = (_samples(tensors[0]) for tensors in (theirs, answers(outputs)))
        loss = self.data_weight * apart("gal", theirs, answers(outputs))
        if not self.weight:
            return loss
        seen = self._critic(fake.detach())
        critics = _bce(self._critic(real), 1.0) + _bce(seen, 1.0)
        if self.reversal:
            turned: Tensor = _Reversed.apply(fake, self.weight)  # type: ignore[no-untyped-call]
            return loss + critics + _bce(self._critic(turned), 0.0)
        still = {name: parameter.detach() for name, parameter in self._critic.named_parameters()}
        passing = _bce(functional_call(self._critic, still, (fake,)), 1.0)
        return loss + self.weight * passing + critics + _bce(seen, 0.0)

    def after_step(self) -> None:
        """Do nothing."""

    def detach(self) -> None:
        """Give the teacher its modes and its device back and forget it."""
        self._teacher.release()


class _Reversed(torch.autograd.Function):
    """Hand on what it reads; on the way back turn the gradient's sign, and scale it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def _samples(logits: Tensor) -> Tensor:
    return logits.float().movedim(1, -1).flatten(0, -2)


def _bce(scores: Tensor, truth: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(scores.float(), torch.full_like(scores, truth, dtype=torch.float32))
