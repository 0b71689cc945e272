"""A folder shows one finished run, whole: files are made aside and put in place together."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from penjing.core.errors import PlanError

RESULTS, REPORT = "results.json", "report.html"


@contextlib.contextmanager
def aside(place: Path) -> Iterator[Path]:
    """Give out a hidden folder inside ``place`` to make files in; it goes at the end, with ``place`` if that was made.

    Raises: PlanError when a folder cannot be made.
    """
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        hidden = Path(tempfile.mkdtemp(prefix=".penjing-", dir=place))
    except OSError as error:
        raise PlanError(f"The folder {place} cannot be made or written to: {error.strerror}. Choose another.") from None
    try:
        yield hidden
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):  # one that holds something stays
                folder.rmdir()


def publish(hidden: Path, place: Path) -> None:
    """Put every file in place; those of an earlier run that this one did not make go.

    ``results.json`` goes first and comes last, so that it never tells of files that are not there.

    Raises: PlanError when the system does not let it.
    """
    files = sorted((file for file in hidden.iterdir() if file.is_file()), key=lambda file: file.name == RESULTS)
    try:
        earlier = _files_of(place)
        (place / RESULTS).unlink(missing_ok=True)
        for name in earlier - {file.name for file in files}:
            (place / name).unlink(missing_ok=True)
        for file in files:
            file.replace(place / file.name)
    except OSError as error:
        raise PlanError(f"The results cannot be put into {place}: {error.strerror}.") from None


def _files_of(place: Path) -> set[str]:
    """Return the names of the ONNX files that an earlier run's results list."""
    try:
        listed = json.loads((place / RESULTS).read_text(encoding="utf-8"))["files"]
        return {name for name in listed if Path(name).name == name and name.endswith(".onnx")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
