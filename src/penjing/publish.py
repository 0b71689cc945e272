"""A run's folder: it shows one finished run, whole, and under ``unfinished`` the one that is still at work."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from penjing.core.errors import PenjingError, PlanError, RecipeError, ResumeError, WorkerError
from penjing.core.files import read_limited, write_whole
from penjing.core.journal import NAME as JOURNAL
from penjing.exporting.bundle import BUNDLE
from penjing.tracking.tensorboard import FOLDER as TENSORBOARD

try:
    import fcntl
except ImportError:  # where the system has no such locks, two processes in one folder are the user's care
    fcntl = None  # type: ignore[assignment]

RESULTS, REPORT = "results.json", "report.html"
LARGEST_BYTES = 200_000_000
"""Above what a run says of itself."""

WORK, RUN, LOCK = "unfinished", "run.json", "lock"


def read_results(folder: Path) -> Any:
    """Return the results of a run's folder, unchecked.

    Raises: RecipeError when they cannot be read.
    """
    try:
        raw = read_limited(folder / RESULTS, LARGEST_BYTES)
        if raw is None:
            raise ValueError(f"it has more than {LARGEST_BYTES:,} bytes")
        return json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", "") or error
        raise RecipeError(f"{folder / RESULTS} cannot be read: {said}.") from None


@contextlib.contextmanager
def unfinished(place: Path, identity: Mapping[str, Any], command: Sequence[str] = ()) -> Iterator[Path]:
    """Give out ``place/unfinished``, where a run makes its files, and from where it can go on.

    It stays where the run is interrupted, killed, or stopped by the system (a full disk); it goes, with ``place`` if
    that was made, when the run is done or ends by an error of the user's that would only come again. ``identity`` says
    which run it is; ``command`` how it was started.

    Raises: PlanError when a folder cannot be made; ResumeError when another process works there, or on another run.
    """
    work = place / WORK
    try:
        made = [folder for folder in (place, *place.parents) if not folder.exists()]
        work.mkdir(parents=True, exist_ok=True)
        lock = _locked(work)
    except OSError as error:
        raise PlanError(f"The folder {place} cannot be made or written to: {error.strerror}. Choose another.") from None
    with lock:
        _same_run(place, identity, command)
        try:
            yield work
        except BaseException as error:
            if not _may_go_on(error):
                _remove(work, made)
            raise
        _remove(work, made)


def _locked(work: Path) -> IO[str]:
    """Take the folder for this process.

    Raises: ResumeError naming the process that has it.
    """
    while True:
        lock = (work / LOCK).open("a+")
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            who = lock.read().strip() or "another process"
            lock.close()
            raise ResumeError(f"In {work.parent} {who} is at work; wait for it, or choose another folder.") from None
        if os.fstat(lock.fileno()).st_nlink:  # or the run that had it has just removed it
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {platform.node()}")
            lock.flush()
            return lock
        lock.close()
        work.mkdir(parents=True, exist_ok=True)


def _same_run(place: Path, identity: Mapping[str, Any], command: Sequence[str]) -> None:
    """Write down which run this is, or compare with what an earlier process wrote.

    Raises: ResumeError naming what differs.
    """
    work = place / WORK
    for torn in work.glob(".*.part"):
        torn.unlink(missing_ok=True)
    for torn in work.glob(".*-*/"):
        shutil.rmtree(torn, ignore_errors=True)
    now = json.loads(json.dumps(dict(identity)))
    file = work / RUN
    if not file.exists():
        text = json.dumps({"identity": now, "command": list(command), "folder": str(Path.cwd())}, indent=1)
        write_whole(file, text.encode())
        return
    if different := _difference(read_run(place)["identity"], now):
        key, before, after = different
        raise ResumeError(
            f"{place} holds an unfinished run with another {key} ({_short(before)}, now {_short(after)}); go on with "
            f"that one, choose another folder, or remove {work}."
        )


def _difference(before: Any, now: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """Return the first entry that differs, by name, with its value before and now."""
    if isinstance(before, dict) and isinstance(now, dict):
        parts = ((f"{key} {name}".strip(), before.get(name), now.get(name)) for name in {**before, **now})
        return next(filter(None, (_difference(a, b, name) for name, a, b in parts)), None)
    return None if before == now else (key, before, now)


def read_run(place: Path) -> dict[str, Any]:
    """Return what an unfinished run wrote of itself.

    Raises: ResumeError when there is none.
    """
    file = place / WORK / RUN
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not (isinstance(found["identity"], dict) and all(isinstance(part, str) for part in found["command"])):
            raise ValueError("its entries are of other kinds")
    except (FileNotFoundError, NotADirectoryError):
        done = ": its run is done" if (place / RESULTS).exists() else ""
        raise ResumeError(f"{place} holds no unfinished run{done}.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResumeError(f"{file} cannot be read ({error}); the run cannot go on. Remove {place / WORK}.") from None
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _may_go_on(error: BaseException) -> bool:
    """Tell whether a run that ended so may end otherwise next time.

    The system's own errors have a number; a decoder's, of a file that is broken, have not.
    """
    ours = isinstance(error, PenjingError) and not isinstance(error, ResumeError | WorkerError)
    return not ours or (isinstance(error.__cause__, OSError) and error.__cause__.errno is not None)


def _remove(work: Path, made: Sequence[Path]) -> None:
    shutil.rmtree(work, ignore_errors=True)
    for folder in made:
        with contextlib.suppress(OSError):  # one that holds something stays
            folder.rmdir()


def publish(hidden: Path, place: Path) -> None:
    """Copy what is to be shown into place; files of an earlier run that this one did not make go.

    ``results.json`` goes first and comes last, so that it never tells of files that are not there; what was copied
    stays in ``hidden``, so that a publishing that was killed can be done again.

    Raises: PlanError when the system does not let it.
    """
    names = (RESULTS, REPORT, JOURNAL, BUNDLE, TENSORBOARD)
    shown = [file for file in hidden.iterdir() if file.suffix == ".onnx" or file.name in names]
    files = sorted(shown, key=lambda file: file.name == RESULTS)
    try:
        earlier = _files_of(place)
        (place / RESULTS).unlink(missing_ok=True)
        for name in earlier - {file.name for file in files}:
            (place / name).unlink(missing_ok=True)
        for file in files:
            _copy(file, place / file.name)
        if not (hidden / TENSORBOARD).exists():
            _forget_events(place / TENSORBOARD)
    except OSError as error:
        raise PlanError(f"The results cannot be put into {place}: {error.strerror or error}.") from error


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder in place of what is there."""
    beside = target.with_name(f".{target.name}.part")
    if source.is_file():
        shutil.copyfile(source, beside)
    else:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.copytree(source, beside)
        shutil.rmtree(target, ignore_errors=True)
    beside.replace(target)


def _forget_events(folder: Path) -> None:
    """Remove what an earlier run told TensorBoard, and nothing else."""
    for file in folder.glob("events.out.tfevents.*"):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _files_of(place: Path) -> set[str]:
    """Return the names of the ONNX files that an earlier run's results list."""
    try:
        listed = json.loads((place / RESULTS).read_text(encoding="utf-8"))["files"]
        return {name for name in listed if Path(name).name == name and name.endswith(".onnx")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
