"""Write layers as two, one after the other, each fitted to what is left of its responses behind a ReLU."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penjing.core.modes import modes_kept
from penjing.core.registry import register
from penjing.factors.regression import Map, Moments, nonlinear
from penjing.rewrites.svd_asymmetric import svd_asymmetric

NORMS = (F.batch_norm, torch.batch_norm)
RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)

MOST = 16_384
"""How many samples take part in a fit, which goes over them 50 times."""


@register("rewrite")
@dataclass(frozen=True)
class svd_nonlinear(svd_asymmetric):  # noqa: N801  (registered under its own name)
    """Reduce the output channels as svd_asymmetric does, but nearest behind the ReLU where one reads the layer.

    What a ReLU takes away need not be met. Where it reads a sum, or there is neither batch norm nor bias to take a
    shift, the fit is the linear one.

    Paper: Zhang, Zou, He, Sun, TPAMI 2016, sections 3.2 and 3.3.
    """

    def _fit(self, moments: Moments, now: list[Tensor], then: list[Tensor], rectified: bool, rank: int) -> Map:
        if not (rectified and bool(moments.y.any())):
            return super()._fit(moments, now, then, rectified, rank)
        x, y = torch.cat(now), torch.cat(then)
        apart = -(-len(x) // MOST)
        return nonlinear(x[::apart], y[::apart], rank)

    def _rectified(self, model: nn.Module, paths: Collection[str]) -> Collection[str]:
        following = _Following()
        with ExitStack() as stack:
            for path in paths:
                hook = model.get_submodule(path).register_forward_hook(partial(following.wrote, path))
                stack.enter_context(hook)
            stack.enter_context(modes_kept(model))
            stack.enter_context(torch.no_grad())
            model.eval()
            stack.enter_context(following)
            model(self.pictures[0].to(next(model.parameters()).device))
        return following.found


class _Following(TorchFunctionMode):
    """Notes behind which layers a ReLU comes, at once or after a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._path, self._value = "", torch.empty(0)

    def wrote(self, path: str, _: nn.Module, __: Any, y: Tensor) -> None:
        """Hear a layer write."""
        self._path, self._value = path, y

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept one call."""
        read = bool(args) and args[0] is self._value
        y = func(*args, **(kwargs or {}))
        if read and func in RELUS:
            self.found.add(self._path)
        if read and func in NORMS:
            self._value = y
        return y
