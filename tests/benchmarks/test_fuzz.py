"""The fuzzer for a moment; and that its guard sees what it is there to see."""

import json
import pickle
import socket
import sys
from pathlib import Path

import pytest

import penjing.api

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import fuzz
from fuzzing import stage
from fuzzing.guard import arena, judged

COUNTS = {"recipes": 12, "budgets": 20, "bundles": 30, "folders": 8, "targets": 30, "runs": 4}


@pytest.fixture(scope="module", autouse=True)
def ready():
    stage.run()  # so that what libraries keep for themselves in the home folder is there already


@pytest.mark.parametrize("part", fuzz.PARTS)
def test_nothing_surprises(part):
    endings = []

    def met(case):
        ending = fuzz.played(part, case)
        assert not ending.wrong, (ending, json.dumps(case)[:3_000])
        endings.append(ending.how)

    fuzz.batch(part, 7, COUNTS[part], met)
    assert len(endings) >= COUNTS[part] // 2 and set(endings) <= {"done", "missed", "refused"}


def meet(monkeypatch, act, limit=60):
    """Let a verb do something, and judge it."""
    monkeypatch.setattr(penjing.api, "inspect", act)
    with arena() as place:
        return judged(["inspect", "tiny:tiny", "--input", "3,8,8"], place, limit=limit)


def calls(*_):
    with socket.socket() as one:
        one.connect(("127.0.0.1", 9))


def unpickles(*_):
    pickle.loads(pickle.dumps(Path("x")))


def writes(*_):
    Path("../home/mine.txt").write_text("theirs")


def writes_links(*_):
    Path("link").symlink_to("/nowhere")


def fails(*_):
    raise KeyError("here")


def leaves(*_):
    from penjing.core.errors import TraceError

    Path("../tmp/left").write_text("")
    raise TraceError("the network\nis odd")


def hangs(*_):
    while True:
        pass


@pytest.mark.parametrize(
    ("act", "words", "limit"),
    [
        (calls, "socket.connect", 60),
        (unpickles, "pickle.find_class", 60),
        (writes, "open outside", 60),
        (writes, "changed around", 60),
        (writes_links, "os.symlink outside", 60),
        (fails, "exit code 3", 60),
        (leaves, "changed around", 60),
        (hangs, "not done after 0.3 s", 0.3),
    ],
)
def test_the_guard_sees(monkeypatch, act, words, limit):
    ending = meet(monkeypatch, act, limit)
    assert any(words in wrong for wrong in ending.wrong), ending


def test_found_cases_are_played_again(tmp_path, capsys):
    case = {"budget": "macs=0.6kg"}
    report = {"found": [{"part": "budgets", "seed": 3, "case": case}]}
    (tmp_path / "r.json").write_text(json.dumps(report))
    assert fuzz.again(tmp_path / "r.json") == 0
    assert "budgets 3: refused; right | penjing: macs=0.6kg" in capsys.readouterr().out
