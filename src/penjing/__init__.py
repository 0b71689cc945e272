"""A trained CNN and a hardware budget go in; a smaller, proved, re-measured, exported CNN comes out."""

from __future__ import annotations

import importlib
import os
from typing import Any

__version__ = "0.1.0"

# ONNX Runtime reports to its maker, and keeps a number of this machine, unless told otherwise before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Result": "api",
    "bench": "compare",
    "compress": "api",
    "explain": "api",
    "frontier": "api",
    "inspect": "api",
    "load": "exporting.bundle",
    "new": "new_network",
    "preview": "api",
    "run": "api",
    "PenjingError": "core.errors",
}
_PACKAGES = ("data", "zoo")
_STEPS = ("check", "export", "prune", "recalibrate", "reconstruct", "train")

__all__ = [
    "PenjingError",
    "Result",
    "__version__",
    "bench",
    "check",
    "compress",
    "data",
    "explain",
    "export",
    "frontier",
    "inspect",
    "load",
    "new",
    "preview",
    "prune",
    "recalibrate",
    "reconstruct",
    "run",
    "train",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import penjing`` stays quick."""
    if name in _PACKAGES:
        return importlib.import_module(f"penjing.{name}")
    home = _HOMES.get(name) or (f"steps.{name}" if name in _STEPS else None)
    if home is None:
        raise AttributeError(f"module 'penjing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"penjing.{home}"), name)
