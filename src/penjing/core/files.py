"""Write a file completely or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from penjing.core.errors import PenjingError


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write ``data`` to a temporary file beside ``path``, then put it in place; folders are made as needed.

    Raises: PenjingError when the system does not let it.
    """
    target = Path(path)
    if not target.name:
        raise PenjingError(f"{target} cannot be written: it is a folder.")
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        beside.replace(target)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise PenjingError(f"{target} cannot be written: {why}.") from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            beside.unlink()
    return target
