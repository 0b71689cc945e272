"""Listening at layers while the user's own forward runs.

A ``Tap`` sees every convolution and linear layer that the graph knows, whether it is a module or a function called
with a parameter, and tells them apart by the identity of their weight; weights computed on the fly are told apart
by the order of the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penjing.graph.graph import Graph

Before: TypeAlias = Callable[[int, Tensor], Tensor]
After: TypeAlias = Callable[[int, Tensor, Tensor], None]

CONVOLUTIONS = (
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
    F.linear,
)
PRODUCTS = (torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.mm)


class Tap(TorchFunctionMode):
    """Calls ``before(i, x)``, whose result is read instead of ``x``, and ``after(i, x, y)`` at layer ``i``.

    ``i`` is the position in ``graph.layers``. Use as a context manager around one forward.
    """

    def __init__(
        self, model: nn.Module, graph: Graph, before: Before | None = None, after: After | None = None
    ) -> None:
        super().__init__()
        self._before, self._after = before, after
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._waiting: dict[int, list[int]] = {}
        for i, layer in enumerate(graph.layers):
            self._waiting.setdefault(id(parameters.get(layer.weight)) if layer.weight else 0, []).append(i)
        self._calls: dict[int, int] = {}

    def __enter__(self) -> Tap:
        """Start listening; each forward begins anew."""
        self._calls = {}
        super().__enter__()
        return self

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept one call."""
        kwargs = kwargs or {}
        found = self._find(func, args, kwargs)
        if found is None:
            return func(*args, **kwargs)
        layer, operand = found
        x = args[operand] if operand < len(args) else kwargs["input"]
        read = self._before(layer, x) if self._before else x
        if operand < len(args):
            args = (*args[:operand], read, *args[operand + 1 :])
        else:
            kwargs = {**kwargs, "input": read}
        y = func(*args, **kwargs)
        if self._after:
            self._after(layer, read, y)
        return y

    def _find(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, int] | None:
        """Return (layer, position of its input) if this call is a layer of the graph."""
        if func in CONVOLUTIONS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            key = id(weight) if id(weight) in self._waiting else 0
            layer = self._next(key)
            return None if layer is None else (layer, 0)
        if func in PRODUCTS:
            for operand, weight in ((0, args[1]), (1, args[0])):
                if id(weight) in self._waiting:
                    layer = self._next(id(weight))
                    return None if layer is None else (layer, operand)
        return None

    def _next(self, key: int) -> int | None:
        """Return the layer that the next call with this weight is."""
        layers = self._waiting.get(key, [])
        n = self._calls.get(key, 0)
        self._calls[key] = n + 1
        return layers[n % len(layers)] if layers else None
