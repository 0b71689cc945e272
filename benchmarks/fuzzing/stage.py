"""What all cases share: pictures, a bundle, runs that were stopped; and the short cuts that make a case quick."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock


@cache
def home() -> Path:
    """Return a folder that lasts as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="penjing-stage-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def pictures() -> Path:
    """Return a folder with 24 training pictures."""
    import tiny

    folder = home() / "pictures"
    folder.mkdir()
    return Path(tiny.pictures(folder, per_class=8))


def command(out: Path) -> list[str]:
    """Return the command whose runs are stopped and damaged."""
    return ["compress", "tiny:tiny", str(pictures()), "--budget", "macs=0.6x", "--criterion", "l1", "--epochs", "2",
            "--quiet", "--out", str(out)]  # fmt: skip


@cache
def run() -> Path:
    """Return the folder of a run that is done."""
    out = home() / "run"
    _ended(command(out))
    return out


class Killed(BaseException):
    """Stands for SIGKILL."""


@cache
def stopped(lines: int) -> Path:
    """Return the folder of a run that was killed when its journal had so many lines; 0: in the midst of training."""
    from penjing.core.journal import Journal
    from penjing.training.session import Session

    out, honest, seen = home() / f"stopped-{lines}", Journal.note, list[str]()

    def note(self: Journal, event: str, **facts: Any) -> None:
        if len(seen) == lines:
            raise Killed
        seen.append(event)
        honest(self, event, **facts)

    whole = Session._epoch

    def epoch(self: Session, advance: Any) -> None:
        if self.at.epoch:
            raise Killed
        whole(self, advance)

    patch = mock.patch.object(Journal, "note", note) if lines else mock.patch.object(Session, "_epoch", epoch)
    with patch, contextlib.suppress(Killed):
        _ended(command(out))
    return out


def make(stops: Sequence[int]) -> None:
    """Make everything beforehand, so that no case waits for it."""
    run()
    for lines in stops:
        stopped(lines)


def _ended(words: list[str]) -> None:
    import sys

    from typer.testing import CliRunner

    from penjing.cli import app

    with mock.patch.object(sys, "argv", ["penjing", *words]):
        done = CliRunner().invoke(app, words)
    if isinstance(done.exception, Killed):
        raise done.exception
    if done.exit_code:
        raise RuntimeError(f"{' '.join(words)} ended with {done.exit_code}: {done.stderr}") from done.exception


@contextlib.contextmanager
def quickly() -> Iterator[None]:
    """Export by torch's older exporter and measure five rounds: the same paths, a fifth of the time."""
    from penjing import compare, results
    from penjing.exporting import measure, onnx
    from penjing.steps import export, original, price, state

    def quick(*args: Any, **options: Any) -> Path:
        return onnx.export_onnx(*args, **options | {"quick": True})

    with contextlib.ExitStack() as patches:
        for module in (compare, results, export, original, price):
            patches.enter_context(mock.patch.object(module, "export_onnx", quick))
        patches.enter_context(mock.patch.object(state, "measure", partial(measure.measure, rounds=5)))
        yield
