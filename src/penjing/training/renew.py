"""New weights for a network, drawn as the class of each of its modules does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def renewer(module: nn.Module) -> Callable[[], Any] | None:
    """Return what draws the parameters of a module anew, its children's not among them; None where nothing does."""
    found = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    return found if callable(found) else None


def renew(model: nn.Module) -> None:
    """Draw all parameters of a model anew, from torch's own generator."""
    for module in model.modules():
        if (again := renewer(module)) is not None:
            again()
