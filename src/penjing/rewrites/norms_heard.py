"""Which batch norm alone reads what a layer writes, heard while a network runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class NormsHeard:
    """``of`` holds, by the path of a layer that ``wrote``, the norm that reads it at once; None where several do."""

    def __init__(self) -> None:
        self.of: dict[str, _BatchNorm | None] = {}
        self._last: dict[int, tuple[str, Tensor]] = {}

    def wrote(self, path: str, y: Tensor) -> None:
        """Hear a layer write."""
        self._last[id(y)] = path, y  # which keeps the tensor, and so its number, until the forward ends

    def begin(self) -> None:
        """Forget the forward before."""
        self._last.clear()

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Hear the norms of a model that have running statistics."""
        with ExitStack() as stack:
            for module in model.modules():
                if isinstance(module, _BatchNorm) and module.running_mean is not None:
                    stack.enter_context(module.register_forward_pre_hook(self._read))
            yield
        self.begin()

    def _read(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if args and id(args[0]) in self._last and isinstance(module, _BatchNorm):
            path = self._last[id(args[0])][0]
            self.of[path] = module if self.of.get(path, module) is module else None
