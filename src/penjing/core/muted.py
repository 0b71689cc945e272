"""Keep compiled libraries from printing past Python's streams."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def stdout_muted() -> Iterator[None]:
    """Drop what anything in this process writes to file descriptor 1 inside the block.

    HiGHS prints a line of its own there when told to be quiet, in the midst of what a command answers. What C has
    buffered is flushed before the descriptor is put back, or it would come out later. Does nothing on Windows, and
    where there is no standard output.
    """
    if sys.platform == "win32":
        yield
        return
    flush = ctypes.CDLL(None).fflush
    try:
        kept = os.dup(1)
    except OSError:
        yield
        return
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
        flush(None)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        yield
    finally:
        flush(None)
        os.dup2(kept, 1)
        os.close(kept)
