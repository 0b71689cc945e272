"""Processes that file permissions bind, although root may run the tests."""

import ctypes
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import penjing as package

DROP = 24
"""PR_CAPBSET_DROP of Linux: a capability is gone for good, from the next program on."""

PASSING = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, by which root passes every permission."""


def without_power() -> None:
    """Give up root's passing of permissions; for ``preexec_fn``."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in PASSING:
            libc.prctl(DROP, capability, 0, 0, 0)


@functools.cache
def _bound() -> bool:
    """Tell whether a process so started is really stopped by a permission."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        code = "import sys; open(sys.argv[1] + '/x', 'w')"
        done = subprocess.run([sys.executable, "-c", code, folder], preexec_fn=without_power, capture_output=True)
        Path(folder).chmod(0o755)
        return b"PermissionError" in done.stderr


def needs_permissions() -> None:
    """Skip where nothing here binds this user."""
    if not _bound():
        pytest.skip("this user passes all file permissions, and the system does not let the power be given up")


def penjing(*words: object, cwd: Path, before: str = "") -> tuple[int, str]:
    """Run the command line as a user whom permissions bind; return the exit code and what it says on stderr.

    ``before`` is code to run first, in the same process.
    """
    places = (Path(__file__).parent, Path(package.__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, places))}
    command = [sys.executable, "-c", f"{before}\nfrom quick import main\nmain()", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env=environment, preexec_fn=without_power, capture_output=True, text=True, timeout=600
    )
    return done.returncode, done.stderr
