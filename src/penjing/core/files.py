"""Write a file completely or not at all; read one that may be anything."""

from __future__ import annotations

import contextlib
import os
import stat
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


def read_limited(path: Path, most: int) -> bytes | None:
    """Return what a regular file holds, None where that is more than so many bytes.

    A pipe would keep us waiting, and a device may never end.

    Raises: OSError for a file that cannot be read, ValueError for what is no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is a folder" if path.is_dir() else "it is no regular file, but a pipe or a device")
    with path.open("rb") as file:
        found = file.read(most + 1)
    return found if len(found) <= most else None
