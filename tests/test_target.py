"""``penjing target``: what is told of hardware, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from penjing.cli import app, completion
from penjing.targets import names
from penjing.targets.find import PRESETS


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["target", *words])


def test_targets_are_listed() -> None:
    told = json.loads(run("list", "--json").output)
    assert list(told) == names() and all(told.values())
    assert all(name in run("list").output and about in run("list").output for name, about in told.items())


@pytest.mark.parametrize("name", names())
def test_a_target_is_shown_with_its_sources(name: str) -> None:
    told, said = json.loads(run("show", name, "--json").output), run("show", name).output
    assert told["name"] == name and said.startswith(f"{name}: {told['about']}")
    for one in told["numbers"]:
        (line,) = [line for line in said.splitlines() if line.startswith(f"{one['key']} ")]
        assert one["shown"] in line and one["mark"] in line and one["source"] in line


def test_a_file_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (PRESETS / "nvdla_small.yaml").read_text()
    Path("mine.yaml").write_text(text)
    Path("wrong.yaml").write_text(text.replace("1 GHz", "1 GB"))
    done = run("check", "mine.yaml")
    assert done.exit_code == 0 and "mine.yaml can be used.\nNobody confirmed: clock, " in done.output
    assert json.loads(run("check", "mine.yaml", "--json").output)["notes"][0].startswith("Nobody confirmed")
    wrong = run("check", "wrong.yaml")
    assert wrong.exit_code == 2 and wrong.stderr.startswith("penjing: wrong.yaml: clock = '1 GB' is a size, where")
    assert len(wrong.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "eyeris_v1"], "Did you mean 'eyeriss_v1'"),
        (["check", "nowhere.yaml"], "nowhere.yaml cannot be read"),
        (["chek", "x.yaml"], "No such command 'chek'"),
        (["show"], "Missing argument 'NAME|FILE'"),
    ],
)
def test_what_is_wrong_is_one_sentence(words: list[str], says: str) -> None:
    done = run(*words)
    assert done.exit_code == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_words_it_tells_its_verbs_and_nothing_else() -> None:
    done = run()
    assert "check" in done.output and "penjing: " not in done.stderr


def test_names_complete() -> None:
    assert [word for word, _ in completion.target("nvdla")] == ["nvdla_full", "nvdla_small"]
