"""An optimiser that ends in exact zeros: accelerated proximal gradient steps on factors that must not be negative."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Fista(torch.optim.Optimizer):
    """Minimise f(m) + ``penalty`` ‖m‖₁ over m ≥ 0, one step for every ``every`` gradients of f.

    A parameter holds the extrapolated point y, at which the next gradients are taken; ``point`` returns m itself, with
    its exact zeros. The gradient is the mean of those since the step before. ``drop`` is after how many gradients the
    rate falls to a tenth, each time; 0 for never. Momentum starts anew there.

    Where ``least`` is given, which is asked by the number of gradients so far, the penalty of a step is lowered so that
    it does not pull the mean of all m below that: what L1 norm is left is then the constraint, and the penalty its
    price.

    Paper: Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm, 2009, eq. 4.1 to 4.3; GAL, CVPR 2019,
    section 3.3.
    Differs: y is held at 0 or above as well.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        penalty: float,
        every: int = 1,
        drop: int = 0,
        least: Callable[[int], float] | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "penalty": penalty, "every": every, "drop": drop})
        self.least = least

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take in the gradients, and step where it is time."""
        assert closure is None, "the gradients are there already"
        for group in self.param_groups:
            counts = [self._heard(y) for y in group["params"]]
            if counts and not counts[0] % group["every"]:
                self._move(group, counts[0])

    def _heard(self, y: nn.Parameter) -> int:
        """Take in a gradient, and return how many there were."""
        state = self.state[y]
        if not state:
            zero = torch.zeros((), dtype=torch.float64)
            state |= {"point": y.detach().clone(), "total": torch.zeros_like(y), "count": zero, "a": zero + 1}
        state["count"] += 1
        if y.grad is not None:
            state["total"] += y.grad
        return int(state["count"])

    def _move(self, group: dict[str, Any], count: int) -> None:
        """Take the step that is due after so many gradients."""
        falls, fallen = (n // group["drop"] if group["drop"] else 0 for n in (count - 1, count - 1 - group["every"]))
        rate = group["lr"] * 0.1**falls
        moved = [y - rate * self.state[y]["total"] / group["every"] for y in group["params"]]
        shrunk = rate * group["penalty"]
        if self.least is not None:
            shrunk = min(shrunk, _shrinkage(torch.cat([m.flatten() for m in moved]), self.least(count)))
        for y, m in zip(group["params"], moved, strict=True):
            state = self.state[y]
            if falls > max(fallen, 0):
                state["a"].fill_(1.0)
            before, a = state["point"], float(state["a"])
            m = (m - shrunk).clamp_min(0)
            following = (1 + (1 + 4 * a * a) ** 0.5) / 2
            y.copy_((m + (a - 1) / following * (m - before)).clamp_min(0))
            state["point"].copy_(m)
            state["a"].fill_(following)
            state["total"].zero_()

    def point(self, parameter: nn.Parameter) -> Tensor:
        """Return m, whose place the parameter holds y for."""
        state = self.state[parameter]
        found: Tensor = state["point"] if state else parameter.detach()
        return found

    @torch.no_grad()
    def close(self, parameter: nn.Parameter, where: Tensor) -> None:
        """Set m and y to zero where told; gradients may open them again."""
        for tensor in (self.point(parameter), parameter):
            tensor.masked_fill_(where, 0)


def _shrinkage(values: Tensor, mean: float) -> float:
    """Return what to take from all values, 0 or more, so that what is left above 0 has this mean over all."""
    sorted_ = values.double().clamp_min(0).sort(descending=True).values
    excess = sorted_.cumsum(0) - mean * len(sorted_)
    cuts = excess / torch.arange(1, len(sorted_) + 1, dtype=torch.float64, device=values.device)
    above = int((sorted_ > cuts).sum())  # the projection on a simplex: those that stay above the cut set it
    return max(float(cuts[max(above - 1, 0)]), 0.0)
