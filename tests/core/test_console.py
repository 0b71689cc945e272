"""Where people see progress and where programs hear it."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.console import Console
from rich.progress import Progress

from penjing.core import console

SPEAKS = """
from penjing.core import console
with console.quiet({quiet}):
    console.say("prune: done [0.1 s]")
    for _ in console.track(range(3), "counting"):
        pass
    with console.bar("training", 2) as bar:
        bar(2, "epoch 1")
"""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_events_reach_who_listens_and_nobody_else():
    heard, inner = [], []
    console.emit("stage", name="lost")
    with console.listening(heard.append):
        console.emit("stage", name="prune", seconds=0.5)
        with console.quiet(), console.listening(inner.append):
            console.emit("epoch", epoch=1)
        with console.unheard():
            console.emit("epoch", epoch=2)
        with console.quiet():
            console.remark("going on")
    assert [event["event"] for event in heard] == ["stage", "epoch", "remark"]
    assert heard[0] == {"event": "stage", "name": "prune", "seconds": 0.5} and heard[1]["epoch"] == 1
    assert inner == [{"event": "epoch", "epoch": 1}]


def test_lines_are_json_whatever_the_numbers(capsys):
    with console.json_lines():
        console.emit("epoch", loss=float("nan"), rate=float("inf"), nested={"a": [1.5, float("nan")]})
    with console.json_lines(False):
        console.emit("epoch")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "event": "epoch", "loss": None, "rate": None, "nested": {"a": [1.5, None]}
    }  # fmt: skip


def test_somebody_watches_a_terminal_that_is_not_silenced(monkeypatch):
    assert not console.watched()
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert console.watched()
    with console.quiet():
        assert not console.watched()


def test_the_time_left_is_told_of_slow_steps_and_not_by_those_of_an_earlier_process(monkeypatch):
    """Ten steps, four of them known; the others take longer than the half minute rich looks back by itself."""
    clock, made = [0.0], []

    class Seen(Progress):
        def __init__(self, *columns, **options):
            super().__init__(*columns, **options)
            made.append(self)

    monkeypatch.setattr("rich.progress.Progress", Seen)
    monkeypatch.setattr(console, "watched", lambda: True)
    monkeypatch.setattr(console, "_console", lambda: Console(file=io.StringIO(), get_time=lambda: clock[0]))
    with console.bar("searching", 10) as bar:
        for _ in range(4):
            clock[0] += 0.001
            bar(worked=False)
        for _ in range(2):
            clock[0] += 40
            bar(1, "trial")
        ((task,),) = [one.tasks for one in made]
        assert (task.completed, task.time_remaining) == (6, 4 * 40)


def spoken(quiet=False, **environment):
    """Return what comes out of a pipe."""
    done = subprocess.run(
        [sys.executable, "-c", SPEAKS.format(quiet=quiet)], capture_output=True, text=True, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0 and not done.stdout
    return done.stderr


def test_a_pipe_gets_plain_lines_and_silence_is_silence():
    assert spoken() == "prune: done [0.1 s]\n"
    assert spoken(quiet=True) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("colourless", "coloured"), [(None, True), ("1", False)])
def test_a_terminal_sees_bars_in_colours_unless_it_wants_none(colourless, coloured):
    import pty

    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    environment |= {"TERM": "xterm-256color"} | ({"NO_COLOR": colourless} if colourless else {})
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", SPEAKS.format(quiet=False)], stderr=theirs, env=environment) as child:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
    os.close(ours)
    assert child.returncode == 0
    assert b"counting" in seen and b"epoch 1" in seen and b"prune: done [0.1 s]" in seen
    colours = [code for code in seen.split(b"\x1b[")[1:] if code.split(b"m")[0].replace(b";", b"").isdigit()]
    assert bool(colours) is coloured
