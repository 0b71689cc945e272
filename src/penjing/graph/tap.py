"""Listening at layers while the user's own forward runs.

A ``Tap`` sees every convolution and linear layer that the graph knows, whether it is a module or a function called
with a parameter, and tells them apart by the identity of their weight and, for one weight used twice, the order of
the calls. Weights computed on the fly are told apart by the order of their calls alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from penjing.graph.graph import Graph
from penjing.graph.rules.layers import einsum_roles

Before: TypeAlias = Callable[[int, Tensor], Tensor]
After: TypeAlias = Callable[[int, Tensor, Tensor], None]

CONVOLUTIONS = (
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
    torch.convolution,
    F.linear,
)
"""Functions of (input, weight, ...)."""

PRODUCTS = (
    torch.matmul,
    torch.mm,
    torch.bmm,
    torch.linalg.matmul,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.mm,
    Tensor.bmm,
)
"""Functions of two factors, either of which may be the weight."""

SUMS = (torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm)
"""Functions of (summand, factor, factor)."""

COMPUTED = 0
"""The key of all layers whose weight is no parameter."""


class Tap(TorchFunctionMode):
    """Calls ``before(i, x)``, whose result is read instead of ``x``, and ``after(i, x, y)`` at layer ``i``.

    ``i`` is the position in ``graph.layers``; channels lie along ``graph.reading_dims[i]`` of ``x``. Use as a context
    manager around one forward. ``absent`` are layers of the graph that the model has no more. Layers inside torch's own
    composite functions (``nn.MultiheadAttention``) are not seen.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        before: Before | None = None,
        after: After | None = None,
        absent: Collection[int] = (),
    ) -> None:
        super().__init__()
        self._before, self._after = before, after
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._waiting: dict[int, list[int]] = {}
        for i, layer in enumerate(graph.layers):
            if i in absent:
                continue
            key = id(parameters[layer.weight]) if layer.weight else COMPUTED
            self._waiting.setdefault(key, []).append(i)
        # Parameters, buffers and what is computed from them alone: the tensors that can be a weight.
        self._parameters = {id(p) for p in parameters.values()}
        self._own: dict[int, Tensor] = {id(t): t for t in (*parameters.values(), *model.buffers())}
        self._computed: dict[int, Tensor] = {}
        self._calls: dict[int, int] = {}

    def __enter__(self) -> Tap:
        """Start listening; each forward begins anew."""
        self._calls, self._computed = {}, {}
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop listening and let go of what the forward computed."""
        self._computed = {}
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Intercept one call."""
        kwargs = kwargs or {}
        found = self._find(func, args, kwargs)
        if found is None:
            y = func(*args, **kwargs)
            if COMPUTED in self._waiting:
                self._remember(y, args, kwargs)
            return y
        layer, place = found
        x = _at(place, args, kwargs)
        read = self._before(layer, x) if self._before else x
        args, kwargs = _put(read, place, args, kwargs)
        y = func(*args, **kwargs)
        if self._after:
            self._after(layer, read, y)
        return y

    def _remember(self, y: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note a result that comes from parameters and buffers alone."""
        inputs = [t for t in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if inputs and all(self._is_own(t) for t in inputs):
            made = (t for t in torch.utils._pytree.tree_leaves(y) if isinstance(t, Tensor))
            self._computed.update({id(t): t for t in made if id(t) not in self._own})

    def _is_own(self, x: Any) -> bool:
        return id(x) in self._own or id(x) in self._computed

    def _find(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[int, Place] | None:
        """Return the layer of the graph that this call is, and where its input stands."""
        if func in CONVOLUTIONS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            return self._next(weight, (0,) if args else ("input",))
        if func is torch.einsum:
            return self._of_einsum(args)
        shift = 1 if func in SUMS else 0
        if (func in PRODUCTS or shift) and len(args) >= 2 + shift:
            factors = args[shift : shift + 2]
            own = [self._is_own(factor) for factor in factors]
            if own[0] != own[1] and all(factor.dim() > 1 for factor in factors):
                return self._next(factors[own.index(True)], (own.index(False) + shift,))
        return None

    def _of_einsum(self, args: tuple[Any, ...]) -> tuple[int, Place] | None:
        """Return the layer of an einsum, whose tensors stand in a list or one by one."""
        nested = len(args) == 2 and isinstance(args[1], list | tuple)
        operands = args[1] if nested else args[1:]
        left, _, right = str(args[0]).replace(" ", "").partition("->")
        roles = einsum_roles(left.split(","), right, [self._is_own(x) for x in operands])
        if roles is None or "." in left:
            return None
        return self._next(operands[roles.weight], (1, roles.read) if nested else (1 + roles.read,))

    def _next(self, weight: Any, place: Place) -> tuple[int, Place] | None:
        """Return the layer that the next call with this weight is."""
        key = id(weight) if id(weight) in self._parameters else COMPUTED
        layers = self._waiting.get(key)
        if not layers:
            return None
        n = self._calls.get(key, 0)
        self._calls[key] = n + 1
        return layers[n % len(layers)], place


Place: TypeAlias = tuple[int | str, ...]
"""Where an argument stands: its position, its position in a list of arguments, or its name."""


def _at(place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    value: Any = kwargs if isinstance(place[0], str) else args
    for step in place:
        value = value[step]
    assert isinstance(value, Tensor)
    return value


def _put(
    x: Tensor, place: Place, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with ``x`` in this place."""
    first = place[0]
    if isinstance(first, str):
        return args, {**kwargs, first: x}
    value: Any = x
    if len(place) == 2:
        value = [*args[first]]
        value[int(place[1])] = x
    return (*args[:first], value, *args[first + 1 :]), kwargs
