"""Compile the package's own C on this machine when it is first needed, and open it.

A library is built once for a source, a compiler and its flags, and kept in a folder that its user alone can write to.
Its name holds the checksum of what is in it, so that it comes into being whole, by one rename, however many processes
build it at once; and a file that is not what its name says is built anew. Every processor's code is in one library,
which looks at the processor when it runs, so that machines of one architecture may share the folder.

Nothing here fails: where there is no compiler, or no place for what it makes, a remark says so once and ``load``
returns None; the same numbers then come from PyTorch.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cffi import FFI

from penjing.core import console
from penjing.core.errors import PenjingError, did_you_mean

PATHS = ("portable", "avx2", "avx512")
"""What code may use, by the numbers that the C has for them (kernels.h)."""

SWITCH, CACHE = "PENJING_KERNELS", "PENJING_CACHE"
"""Environment variables: ``off`` or the most that code may use; the folder for what is built."""

SOURCES = Path(__file__).parent
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", "-fvisibility=hidden")
"""Without contraction: a product is rounded before it is added to, as PyTorch does, on every path."""

COMPILERS = ("cc", "gcc", "clang")
PATIENCE = 120.0
"""Seconds that a compiler may take."""


class Unbuilt(Exception):
    """Why there is no library; half a sentence."""


@dataclass(frozen=True, eq=False)
class Library:
    """An open library: ``lib`` has the functions that were declared, ``ffi`` makes what they are called with."""

    ffi: FFI
    lib: Any

    def path(self, most: str | None = None) -> int:
        """Return the number of the path to take: the best that this processor has, up to ``most`` if given.

        Raises: PenjingError for a path that there is not.
        """
        asked = most or switch()
        if asked is not None and asked not in PATHS:
            raise PenjingError(f"There is no path {asked!r} through the kernels.{did_you_mean(asked, PATHS)}")
        best = int(self.lib.best())
        return best if asked is None else min(best, PATHS.index(asked))


@functools.cache
def switch() -> str | None:
    """Return what PENJING_KERNELS says, once and for all: ``off``, a path, or None where it says nothing.

    Raises: PenjingError for another word.
    """
    word = os.environ.get(SWITCH, "").strip().lower()
    if word and word not in ("off", *PATHS):
        raise PenjingError(f"{SWITCH}={word}: that is no way to run kernels.{did_you_mean(word, ('off', *PATHS))}")
    return word or None


@functools.cache
def load(name: str, declarations: str) -> Library | None:
    """Return the library made of ``name``.c beside this file, or None where kernels are off or cannot be had.

    Asked once a process, so that a layer may ask at each call.

    ``declarations`` are the C functions to call; every source also has ``int best(void)``, the number in ``PATHS`` of
    the best path that this processor has.

    Raises: PenjingError where PENJING_KERNELS is a word that means nothing.
    """
    if switch() == "off":
        return None
    try:
        path = built(SOURCES / f"{name}.c", folder())
        ffi = FFI()
        ffi.cdef(f"int best(void);\n{declarations}")
        return Library(ffi, ffi.dlopen(str(path)))
    except OSError as error:
        _tell(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Unbuilt as error:
        _tell(str(error))
    return None


@functools.cache
def _tell(why: str) -> None:
    """Say it once, for however many sources."""
    why = why.strip().rstrip(".")
    console.remark(
        f"Packed layers run in PyTorch, several times slower than in compiled code: {why}. "
        f"({SWITCH}=off stops trying to compile.)"
    )


def folder() -> Path:
    """Return the folder for what is built, after making it for this user alone.

    Raises: Unbuilt, OSError.
    """
    if sys.platform != "linux":
        raise Unbuilt(f"kernels are built on Linux only, and this is {platform.system() or sys.platform}")
    asked = os.environ.get(CACHE)
    cache = Path(asked) if asked else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penjing"
    cache = cache.absolute()
    cache.parent.mkdir(parents=True, exist_ok=True)
    for place in (cache, cache / "kernels"):
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.stat()
        # What lies here is run: nobody else may put it here, or put another folder in its place.
        if found.st_uid != os.geteuid():
            raise Unbuilt(f"{place} belongs to another user: set {CACHE} to a folder of your own")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unbuilt(f"others may write to {place}: chmod 700 it, or set {CACHE} to another folder")
    return cache / "kernels"


def built(source: Path, where: Path) -> Path:
    """Return the library made of ``source``, from ``where`` if it is there, else compiled.

    Raises: Unbuilt, OSError.
    """
    compiler = _compiler()
    start = f"{source.stem}-{_key(source, compiler)}"
    for path in sorted(where.glob(f"{start}-*.so")):
        if path.name == _called(start, path.read_bytes()):
            return path
    with tempfile.TemporaryDirectory(prefix=f".{start}-", dir=where) as place:
        made = Path(place) / "made.so"
        _run([*compiler, *FLAGS, f"-I{SOURCES}", str(source), "-o", str(made)])
        made.chmod(0o600)  # the linker minds the umask alone
        return made.replace(where / _called(start, made.read_bytes()))


def _called(start: str, content: bytes) -> str:
    return f"{start}-{hashlib.sha256(content).hexdigest()[:32]}.so"


def _key(source: Path, compiler: list[str]) -> str:
    """Return a hash of all that decides what a library does."""
    headers = sorted({*source.parent.glob("*.h"), *SOURCES.glob("*.h")})
    parts = [source.name.encode(), *(path.read_bytes() for path in (source, *headers))]
    parts += [_run([*compiler, "--version"]), *(word.encode() for word in (*compiler, *FLAGS, platform.machine()))]
    return hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


def _compiler() -> list[str]:
    asked = os.environ.get("CC")
    try:
        words = shlex.split(asked) if asked else []
    except ValueError as error:
        raise Unbuilt(f"CC={asked} cannot be read: {error}") from None
    for candidate in [words] if words else [[name] for name in COMPILERS]:
        if found := shutil.which(candidate[0]):
            return [found, *candidate[1:]]
    raise Unbuilt(f"there is no C compiler ({' '.join(words) or ', '.join(COMPILERS)}): install gcc, or set CC")


def _run(command: list[str]) -> bytes:
    environment: Mapping[str, str] = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, env=environment, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Unbuilt(f"{command[0]} took more than {PATIENCE:.0f} seconds") from None
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if "error" in line.lower()]
        raise Unbuilt(f"{command[0]} failed with code {done.returncode}{': ' + lines[0] if lines else ''}")
    return done.stdout
