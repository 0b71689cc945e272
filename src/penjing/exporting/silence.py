"""Keep torch's exporters quiet: they print, log and warn even when all is well."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch

_NOISY = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "onnxscript", "onnx_ir")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Drop what is printed, logged or warned inside the block; levels and streams are put back."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    # The older exporter hands its graph to this printer when it fails, past Python's streams.
    printer = torch._C._jit_onnx_log
    try:
        torch._C._jit_onnx_log = lambda *_: None
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        torch._C._jit_onnx_log = printer
