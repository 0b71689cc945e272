"""Watch one call of the command line: how it ends, what it says, what it touches, and how long it takes."""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

LIMIT = 60
"""Seconds of the processor a case may take; a busy machine must not look like a hang."""

PATIENCE = 10
"""How many times as long the wall clock may run, for what waits and computes nothing."""

LONGEST = 1_500
"""Characters of a sentence that somebody will still read."""

CODES = {0: "done", 1: "missed", 2: "refused"}

CALLS = frozenset(["socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.fork",
                   "os.posix_spawn", "pickle.find_class"])  # fmt: skip
"""What a case must not do at all: talk to anybody, start anything, unpickle."""

CHANGES = frozenset(["os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod",
                     "os.truncate", "shutil.rmtree"])  # fmt: skip
"""What a case may do in its own folders alone."""

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Hung(BaseException):
    """The case takes too long."""


@dataclass
class Arena:
    """A place for one case: ``given`` holds what the user has, ``out`` takes the results, ``tmp`` is the system's."""

    root: Path

    def __post_init__(self) -> None:
        """Make all but ``out``, with something that nobody may touch beside them."""
        for folder in (self.given, self.tmp, self.root / "home"):
            folder.mkdir()
        (self.root / "home" / "mine.txt").write_text("mine")

    @property
    def given(self) -> Path:
        """What the user has; the working folder."""
        return self.root / "given"

    @property
    def out(self) -> Path:
        """Where results go."""
        return self.root / "out"

    @property
    def tmp(self) -> Path:
        """The system's folder for temporary files."""
        return self.root / "tmp"


@dataclass
class Ending:
    """How a case ended, and what is wrong with that."""

    how: str
    said: str = ""
    wrong: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------- listening


class _Listener:
    """Hears of every file that is opened for writing and every call out, through the interpreter's own audit."""

    def __init__(self) -> None:
        self.inside: tuple[str, ...] = ()
        self.heard: list[str] = []
        self.on = False
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Take down what is not allowed; a call out is stopped."""
        if not self.on:
            return
        if event in CALLS:
            self.heard.append(f"{event} {args!r:.200}")
            raise PermissionError(f"{event} is not allowed here")
        if event == "open" and isinstance(args[2], int) and args[2] & WRITING:
            self._check(event, args[0], -1)
        elif event in CHANGES:
            two = event in ("os.rename", "os.link")
            for path in args[: 2 if two else 1] if event != "os.symlink" else args[1:2]:
                self._check(event, path, args[-1] if isinstance(args[-1], int) and event != "os.chmod" else -1)

    def _check(self, event: str, path: Any, dir_fd: int) -> None:
        if isinstance(path, int) or dir_fd >= 0 or path is None:
            return
        real = os.path.join(os.path.realpath(os.path.dirname(os.fsdecode(path)) or "."), os.path.basename(os.fsdecode(path)))  # fmt: skip  # noqa: E501, PTH118, PTH119, PTH120
        if real != os.devnull and not real.startswith(self.inside):
            self.heard.append(f"{event} outside: {real!r}")


_listener: list[_Listener] = []


@contextlib.contextmanager
def _listening(*inside: Path) -> Iterator[list[str]]:
    if not _listener:
        _listener.append(_Listener())  # a hook cannot be taken away again, so there is one
    one = _listener[0]
    one.inside, one.heard, one.on = tuple(os.path.realpath(folder) for folder in inside), [], True
    try:
        yield one.heard
    finally:
        one.on = False


@contextlib.contextmanager
def _timed(limit: float) -> Iterator[None]:
    """Raise Hung in the main thread after the limit; end the process where even that is not heard."""

    def late(number: int, frame: FrameType | None) -> None:
        raise Hung

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    clocks = ((signal.SIGPROF, signal.ITIMER_PROF, limit), (signal.SIGALRM, signal.ITIMER_REAL, PATIENCE * limit))
    before = [signal.signal(number, late) for number, _, _ in clocks]
    for _, clock, seconds in clocks:
        signal.setitimer(clock, seconds)
    with contextlib.suppress(OSError, ValueError):
        faulthandler.dump_traceback_later(2 * PATIENCE * limit, exit=True)
    try:
        yield
    finally:
        for (number, clock, _), handler in zip(clocks, before, strict=True):
            signal.setitimer(clock, 0)
            signal.signal(number, handler)
        faulthandler.cancel_dump_traceback_later()


# --------------------------------------------------------------------------------------------------------- judging


def listing(folder: Path, *but: Path) -> dict[str, str]:
    """Return what lies below a folder: names, kinds and the digests of what files hold."""
    found: dict[str, str] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if Path(place) / name not in but]
        for name in (*folders, *files):
            path = Path(place) / name
            key = os.fspath(path.relative_to(folder))
            if path.is_symlink():
                found[key] = f"link to {path.readlink()}"
            elif path.is_file():
                found[key] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[key] = "folder"
    return found


@contextlib.contextmanager
def _placed(arena: Arena, words: Sequence[str]) -> Iterator[None]:
    """Make the arena the whole world that the process knows of."""
    cwd, argv, temporary = Path.cwd(), sys.argv, tempfile.tempdir
    known = {name: os.environ.get(name) for name in ("HOME", "TMPDIR")}
    path, unwritten = list(sys.path), sys.dont_write_bytecode
    os.chdir(arena.given)
    sys.argv, tempfile.tempdir, sys.dont_write_bytecode = ["penjing", *words], os.fspath(arena.tmp), True
    os.environ.update(HOME=os.fspath(arena.root / "home"), TMPDIR=os.fspath(arena.tmp))
    try:
        yield
    finally:
        os.chdir(cwd)
        sys.argv, tempfile.tempdir, sys.path[:], sys.dont_write_bytecode = argv, temporary, path, unwritten
        for name, value in known.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def judged(words: Sequence[str], arena: Arena, *, limit: float = LIMIT, goes_on: bool = False) -> Ending:
    """Run the command line on these words and say what is wrong with how it ended.

    ``goes_on`` says that ``out`` holds a run already, which a failure may leave changed.
    """
    from typer.testing import CliRunner

    from penjing.cli import app

    around, before = listing(arena.root, arena.out), listing(arena.out)
    with _placed(arena, words), _listening(arena.out, arena.tmp) as heard:
        try:
            with _timed(limit):
                done = CliRunner().invoke(app, list(words))
        except Hung:
            return Ending("hung", wrong=[f"not done after {limit:g} s", *heard])
    said = done.stderr
    ending = Ending(CODES.get(done.exit_code, f"exit {done.exit_code}"), said, list(dict.fromkeys(heard)))
    if isinstance(done.exception, Hung):
        ending.how = "hung"
    if done.exit_code not in CODES:
        ending.wrong.append(f"exit code {done.exit_code}: {done.exception!r}")
    elif done.exit_code:
        ending.wrong += _manners(said)
    if done.exit_code == 2 and not goes_on and listing(arena.out) != before:
        ending.wrong.append("refused, and yet something is written")
    if left := set(listing(arena.root, arena.out).items()) ^ set(around.items()):
        ending.wrong.append(f"changed around: {sorted(left)[:3]}")
    return ending


def _manners(said: str) -> list[str]:
    """Return what is wrong with the way something is refused."""
    wrong = []
    lines = said.splitlines()
    if len(lines) != 1 or not said.startswith("penjing: ") or lines[-1][-1:] not in (".", ")", "?"):
        wrong.append(f"not one sentence: {len(lines)} lines")
    if "Traceback" in said or "Error(" in said:
        wrong.append("a traceback or an exception's bare form")
    if not said.rstrip("\n").isprintable():
        wrong.append("characters that do not print")
    if len(said) > LONGEST:
        wrong.append(f"{len(said)} characters long")
    return wrong


@contextlib.contextmanager
def arena() -> Iterator[Arena]:
    """Give out a place for one case, which goes afterwards."""
    root = Path(tempfile.mkdtemp(prefix="penjing-fuzz-"))
    try:
        yield Arena(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
