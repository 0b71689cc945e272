"""YAML of users: what could do harm is refused with the line."""

from __future__ import annotations

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
        ("[" * 200, "more than 100 brackets within brackets; that is not a thing"),
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


@pytest.mark.parametrize("path", ["nowhere.yaml", ".", "a\0b"])
def test_what_is_no_file_is_told(path: str) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        yaml.read(Path(path), "a thing")
