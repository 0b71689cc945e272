"""Following what a layer writes, while the user's own forward runs, through a batch norm and into a sum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penjing.graph.graph import Graph
from penjing.graph.tap import Tap

Heard: TypeAlias = Callable[[int, Tensor], None]
Normed: TypeAlias = Callable[[int, Tensor, Tensor | None], None]
Summed: TypeAlias = Callable[[int, Tensor, Tensor], None]

NORMS = {F.batch_norm: 1, torch.batch_norm: 3}
"""Functions of (input, ...), and where their running mean stands."""

SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__)


class Joints(TorchFunctionMode):
    """Calls back at every layer, and where what the last layer wrote is normalised or added to something.

    ``read(i, x)`` before layer ``i`` runs; ``wrote(i, y)`` after it; ``normed(i, y, mean)`` with the result of a
    batch norm of what the layer wrote and that norm's running mean; ``summed(i, y, other)`` before what the layer
    wrote, normalised or not, is added to another tensor of its shape. Only the last layer that ran is followed: a sum
    of two layers' results belongs to the later one. Use as a context manager around one forward.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        *,
        read: Heard | None = None,
        wrote: Heard | None = None,
        normed: Normed | None = None,
        summed: Summed | None = None,
    ) -> None:
        super().__init__()
        self._tap = Tap(model, graph, self._before, self._after)
        self._read, self._wrote, self._normed, self._summed = read, wrote, normed, summed
        self._layer, self._value = -1, torch.empty(0)

    def __enter__(self) -> Joints:
        """Start listening."""
        self._tap.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop listening, and let go of the last tensor."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._tap.__exit__(*error)
        self._value = torch.empty(0)

    def _before(self, i: int, x: Tensor) -> Tensor:
        if self._read:
            self._read(i, x)
        return x

    def _after(self, i: int, x: Tensor, y: Tensor) -> None:
        self._layer, self._value = i, y
        if self._wrote:
            self._wrote(i, y)

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept one call."""
        kwargs = kwargs or {}
        if self._summed and func in SUMS and len(args) == 2 and not kwargs and any(arg is self._value for arg in args):
            other = args[0] if args[1] is self._value else args[1]
            if isinstance(other, Tensor) and other.shape == self._value.shape and other is not self._value:
                self._summed(self._layer, self._value, other)
        normed = func in NORMS and len(args) > NORMS[func] and args[0] is self._value
        y = func(*args, **kwargs)
        if normed:
            self._value = y
            if self._normed:
                self._normed(self._layer, y, args[NORMS[func]])
        return y
