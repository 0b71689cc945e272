"""Give a model its training modes back after it has run in others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Give every module its own training mode back when the block ends."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        # Flags are set one by one: train() would reach into the children and may be overridden.
        for module, training in modes:
            module.training = training
