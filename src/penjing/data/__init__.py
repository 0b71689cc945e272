"""Data sets as three splits: train, validation (cut from train) and test (counted each time it is read)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Not lazy like `Data`: the function must be bound after the file of the same name, or the file would hide it.
# It costs nothing, because load.py imports torch and the readers only when it is called.
from penjing.data.load import as_data, cifar10, digits, from_parts, load

if TYPE_CHECKING:
    from penjing.data.data import Data

__all__ = ["Data", "as_data", "cifar10", "digits", "from_parts", "load"]


def __getattr__(name: str) -> Any:
    if name != "Data":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from penjing.data.data import Data

    return Data


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
