import copy
from collections.abc import Iterator
from typing import Any

import pytest

from penjing.core.errors import RecipeError
from penjing.report.results import read

OPTIONAL = {
    "recipe", "validation", "diagnostics", "rounds", "memory", "nonzero", "latency", "ratio", "note", "detail", "line",
    "spending",
}  # fmt: skip
FREE = {"versions", "files", "diagnostics", "predicted", "measured"}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of the nested results that a report cannot do without."""
    items = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, item in items:
        if not isinstance(key, int) and key not in OPTIONAL:
            yield (*path, key)
        if key not in FREE:
            yield from places(item, (*path, key))


def spelled(path: tuple[Any, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)[1:]


def test_every_missing_key_is_named(results: dict[str, Any]) -> None:
    found = list(places(results))
    assert len(found) > 80
    for path in found:
        broken = copy.deepcopy(results)
        holder = broken
        for part in path[:-1]:
            holder = holder[part]
        del holder[path[-1]]
        with pytest.raises(RecipeError) as caught:
            read(broken)
        assert f"have no {spelled(path)}," in str(caught.value)


def test_optional_keys_may_be_absent(results: dict[str, Any]) -> None:
    for key in ("recipe", "validation", "diagnostics", "rounds", "spending"):
        del results[key]
    for row in results["rows"]:
        for key in ("latency", "ratio", "memory", "note"):
            row.pop(key, None)
    checked = read(results)
    assert checked.validation is None and checked.rounds == [] and checked.result.latency is None


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("rows", 1, "accuracy"), "very good", "rows[1].accuracy = 'very good'"),
        (("budget",), 3, "budget = 3"),
        (("rows", 1, "wrong"), 361, "361 of 360"),
        (("rows", 1, "of"), 0, "5 of 0"),
        (("rows", 1, "accuracy"), 0.986, "accuracy 0.986 %, but 5 of 360 wrong make 98.61 %"),
        (("rows", 1, "accuracy"), float("nan"), "accuracy nan %"),
        (("rows", 1, "macs"), float("inf"), "'penjing' of the results has macs = inf"),
        (("rows", 1, "params"), -1, "has params = -1"),
        (("rows", 1, "latency", "median_ms"), 0.0, "has latency.median_ms = 0"),
        (("rows", 1, "ratio", "low"), float("nan"), "has ratio.low = nan"),
        (("rows", 1, "name"), "ours", "named 'penjing'; the results have 0"),
        (("rows", 2, "name"), "penjing", "named 'penjing'; the results have 2"),
    ],
)
def test_impossible_values_are_named(results: dict[str, Any], path: tuple[Any, ...], value: Any, word: str) -> None:
    holder: Any = results
    for part in path[:-1]:
        holder = holder[part]
    holder[path[-1]] = value
    with pytest.raises(RecipeError) as caught:
        read(results)
    assert word in str(caught.value)


def test_what_is_no_mapping_is_refused() -> None:
    with pytest.raises(RecipeError, match="got list"):
        read([])  # type: ignore[arg-type]


def test_unprintable_letters_are_replaced_everywhere(results: dict[str, Any]) -> None:
    results["name"] = "a\x1b[31mb\x00\ud800"
    results["versions"] = {"py\x07thon": "3"}
    checked = read(results)
    assert checked.name == "a [31mb ?"
    assert list(checked.versions) == ["py thon"]


def test_a_bound_is_kept_only_if_the_numbers_agree(results: dict[str, Any]) -> None:
    assert read(results).met
    results["budget"][0]["measured"] = 1.3
    assert not read(results).met
    results["budget"][0].update(measured=1.1, met=False)
    assert not read(results).met
