"""YAML of users: what could do harm is refused with the line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penjing.core import yaml
from penjing.core.errors import RecipeError

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"


class Verbatim(yaml.Loader):
    verbatim = frozenset({"budget"})


def test_values_are_left_as_written_where_that_is_asked() -> None:
    assert yaml.parse("budget: {error: +0.5}", "x", "a thing") == {"budget": {"error": 0.5}}
    assert yaml.parse("budget: {error: +0.5}", "x", "a thing", Verbatim) == {"budget": {"error": "+0.5"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "uses YAML aliases"),
        ("a: 1\na: 2", "the key 'a' in line 2 is written twice"),
        ("a: 1\n? [b]\n: 2", "the key in line 2 is no name"),
        ("[" * 200, "is nested more than 100 deep; that is not a thing"),
        ("a:\n" + "- " * 100_000, "is nested more than 100 deep; that is not a thing"),
        ("? " * 100_000, "is nested more than 100 deep; that is not a thing"),
        ("a: 1" + ":1" * 100_000, "line 1, is not YAML: '1:1:1:1"),
        ("a: 1" + ":1" * 1_000 + ":1.5", "line 1, is not YAML: '1:1:1:1"),
        ("a: 0x" + "f" * 10_000, "is no int"),
        ("a: 1\nb: !!bool x", "line 2, is not YAML: 'x' is no bool"),
        ("a: !!timestamp x", "'x' is no timestamp"),
        ("a: !!int ''", "'' is no int"),
        ("!!float '': 1", "'' is no float"),
        ("a: !!python/object/apply:os.system [touch harm]", "is not YAML"),
        ("a: [1", "is not YAML"),
        ("- 1", "must hold key: value pairs; it holds list"),
        ("", "must hold key: value pairs; it holds NoneType"),
        ("#" * 1_000_001, "more than 1,000,000 bytes; that is not a thing"),
        (b"\xff\xfe\xfa", "cannot be read"),
    ],
)
def test_what_could_do_harm_is_refused(text: str | bytes, says: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RecipeError) as caught:
        yaml.read(file, "a thing")
    assert str(caught.value).startswith(str(file)) and says in str(caught.value)
    assert not Path("harm").exists()


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("nowhere.yaml", "No such file"), (".", "it is a folder"), ("a\0b", "null"),
        ("/dev/zero", "it is no regular file"), ("/dev/null", "it is no regular file"),
    ],
)  # fmt: skip
def test_what_is_no_file_is_told(path: str, says: str) -> None:
    with pytest.raises(RecipeError, match=f"cannot be read: .*{says}"):
        yaml.read(Path(path), "a thing")


def test_nobody_waits_for_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.yaml")
    with pytest.raises(RecipeError, match=r"x\.yaml cannot be read: it is no regular file, but a pipe"):
        yaml.read(tmp_path / "x.yaml", "a thing")


def test_brackets_in_a_text_are_none() -> None:
    assert yaml.parse(f"a: '{'[' * 200}'", "x", "a thing") == {"a": "[" * 200}
