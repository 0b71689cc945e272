"""Write a network as ONNX, run the file, and say how far it is from the network."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from torch import nn

from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import parity


def gap_of_file(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path) -> float:
    """Return the relative difference of the exported file."""
    export_onnx(model, args, kwargs, path)
    bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    return parity(model, path, [dict(bound)]).relative
