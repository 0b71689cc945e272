"""Following what a layer writes, while the user's own forward runs, through a batch norm and into a sum."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penjing.graph.graph import Graph
from penjing.graph.tap import Tap

Heard: TypeAlias = Callable[[int, Tensor], None]
Normed: TypeAlias = Callable[[int, Tensor, Tensor | None], None]
Summed: TypeAlias = Callable[[int, Tensor, Tensor], Any]

NORMS = {F.batch_norm: 1, torch.batch_norm: 3}
"""Functions of (input, ...), and where their running mean stands."""

SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__)

PICKS = (torch.index_select, Tensor.index_select)
"""Functions of (input, dimension, index)."""


class Joints(TorchFunctionMode):
    """Calls back at every layer, and where what the last layer wrote is normalised or added to something.

    ``read(i, x)`` before layer ``i`` runs; ``wrote(i, y)`` after it; ``normed(i, y, mean)`` with the result of a
    batch norm of what the layer wrote and that norm's running mean; ``summed(i, y, other)`` before what the layer
    wrote, normalised or not, is added to another tensor of its shape; where it returns true, the layer and its norm
    run again before the sum, with the parameters they have by then. Only the last layer that ran is followed: a sum
    of two layers' results belongs to the later one. ``absent`` are layers that the model has no more. What a layer
    wrote is also followed where its channels are picked by the index that ``orders`` has for it. Use as a context
    manager around one forward.
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
        absent: Collection[int] = (),
        orders: Mapping[int, Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._orders = orders
        self._tap = Tap(model, graph, self._before, self._after, absent)
        self._read, self._wrote, self._normed, self._summed = read, wrote, normed, summed
        self._layer, self._value = -1, torch.empty(0)
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._new = self._again = False

    def __enter__(self) -> Joints:
        """Start listening."""
        self._tap.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop listening, and let go of the last tensor."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._tap.__exit__(*error)
        self._forget()

    def _before(self, i: int, x: Tensor) -> Tensor:
        if self._read and not self._again:
            self._read(i, x)
        return x

    def _after(self, i: int, x: Tensor, y: Tensor) -> None:
        if self._again:
            return
        self._layer, self._value, self._new = i, y, True
        if self._wrote:
            self._wrote(i, y)

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept one call."""
        kwargs = kwargs or {}
        if func in SUMS and len(args) == 2 and not kwargs and any(arg is self._value for arg in args):
            self._join(*(args if args[0] is self._value else args[::-1]))
        normed = func in NORMS and len(args) > NORMS[func] and args[0] is self._value
        ordered = func in PICKS and args[0] is self._value and args[2] is self._orders.get(self._layer)
        y = func(*args, **kwargs)
        if self._new:
            self._calls, self._new = [(func, args, kwargs)], False
        elif ordered:
            self._value = y
            self._calls.append((func, args, kwargs))
        elif normed:
            self._value = y
            self._calls.append((func, args, kwargs))
            if self._normed:
                self._normed(self._layer, y, args[NORMS[func]])
        elif y is self._value:
            self._forget()  # something else was done to it in place
        return y

    def _join(self, value: Tensor, other: Any) -> None:
        """Tell of a sum, and follow the value no further."""
        joins = isinstance(other, Tensor) and other.shape == value.shape and other is not value
        if self._summed and joins and self._summed(self._layer, value, other):
            self._run_again()
        self._forget()

    def _forget(self) -> None:
        self._value, self._calls = torch.empty(0), []

    def _run_again(self) -> None:
        """Compute what the last layer wrote once more, into the same tensor."""
        self._again = True
        (func, args, kwargs), *norms = self._calls
        value = func(*args, **kwargs)
        for func, args, kwargs in norms:
            value = func(value, *args[1:], **kwargs)
        self._value.copy_(value)
        self._again = False
