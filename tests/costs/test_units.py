import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.errors import BudgetError
from penjing.core.search import Bound
from penjing.costs.units import parse_bound, parse_budget, resolve, show

UNITS = {"latency": "ms", "params": "parameters", "macs": "MACs", "size": "bytes", "error": "%", "energy": "mJ"}


@pytest.mark.parametrize(
    ("cost", "text", "kind", "value"),
    [
        ("latency", 2.5, "absolute", 2.5),
        ("latency", "2.5", "absolute", 2.5),
        ("latency", "2.5ms", "absolute", 2.5),
        ("latency", " 300 us ", "absolute", 0.3),
        ("latency", "0.01s", "absolute", 10.0),
        ("latency", "0.6x", "relative", 0.6),
        ("latency", "60%", "relative", 0.6),
        ("params", 300_000, "absolute", 300_000),
        ("params", "120k", "absolute", 120_000),
        ("params", "1.2M", "absolute", 1_200_000),
        ("macs", "0.5G", "absolute", 5e8),
        ("macs", "1_000", "absolute", 1000),
        ("macs", "1e6", "absolute", 1e6),
        ("size", "1MB", "absolute", 1e6),
        ("size", "96kB", "absolute", 96_000),
        ("size", "64KiB", "absolute", 65_536),
        ("size", "1M", "absolute", 1e6),
        ("energy", "2 mJ", "absolute", 2.0),
        ("error", "8%", "absolute", 8.0),
        ("error", 8, "absolute", 8.0),
        ("error", "+0.5", "difference", 0.5),
        ("error", "+0.5%", "difference", 0.5),
        ("error", "+0", "difference", 0.0),
        ("error", "1.1x", "relative", 1.1),
        ("params", "0.5X", "relative", 0.5),
    ],
)
def test_every_way_to_write_a_bound(cost: str, text: str | float, kind: str, value: float) -> None:
    asked = parse_bound(cost, UNITS[cost], text)
    assert asked.kind == kind and asked.value == pytest.approx(value, rel=1e-12)
    assert (asked.cost, asked.unit, asked.text) == (cost, UNITS[cost], str(text))


@pytest.mark.parametrize(
    ("cost", "text", "reason"),
    [
        ("latency", "-2", "negative"),
        ("latency", -2.0, "negative"),
        ("latency", "0", "cannot be met"),
        ("latency", "0x", "cannot be met"),
        ("latency", math.nan, "not a bound"),
        ("latency", math.inf, "not a bound"),
        ("latency", "1e999", "too large"),
        ("latency", "fast", "not a bound"),
        ("latency", "", "not a bound"),
        ("latency", "2.5.1", "not a bound|counted in ms"),
        ("latency", True, "not a bound"),
        ("latency", None, "not a bound"),
        ("latency", "2.5MB", "counted in ms, not in 'MB'; write 2.5ms"),
        ("latency", "+0.5", "only an error"),
        ("latency", "1x", "asks for nothing"),
        ("latency", "120%", "asks for nothing"),
        ("params", "1.5x", "asks for nothing"),
        ("params", "300ms", "counted in parameters"),
        ("params", "1.2m", "counted in parameters"),
        ("error", "-0.5", "negative"),
        ("error", "+0.5x", "points"),
        ("error", "101", "at most 100"),
        ("error", "0", r"cannot be met.*write \+0"),
        ("macs", 0.5, r"below 1 MACs; did you mean 0\.5x"),
        ("size", "0.4", r"did you mean 0\.4x"),
    ],
)
def test_a_wrong_bound_is_refused_by_key_and_value(cost: str, text: object, reason: str) -> None:
    with pytest.raises(BudgetError, match=reason) as caught:
        parse_bound(cost, UNITS[cost], text)  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{cost}={text}")


def test_bounds_are_resolved_against_the_original() -> None:
    def limit(cost: str, text: str, original: float) -> Bound:
        return resolve(parse_bound(cost, UNITS[cost], text), original)

    assert limit("latency", "2.5", math.nan) == Bound("latency", 2.5, "2.5")
    assert limit("latency", "0.6x", 5.0) == Bound("latency", 3.0, "0.6x")
    assert limit("params", "25%", 4000) == Bound("params", 1000.0, "25%")
    assert limit("error", "+0.5", 7.25) == Bound("error", 7.75, "+0.5")
    assert limit("error", "+0.5", 0.0).limit == 0.5
    with pytest.raises(BudgetError, match=r"latency=0\.6x is relative, and the original's latency is nan"):
        limit("latency", "0.6x", math.nan)
    with pytest.raises(BudgetError, match=r"is 0\.0"):
        limit("latency", "0.6x", 0.0)


def test_a_budget_as_text_or_mapping() -> None:
    text = parse_budget(" latency=0.6x , params = 300k,")
    assert list(text) == ["latency", "params"]
    assert text == parse_budget({"latency": "0.6x", "params": "300k"})
    assert parse_budget({"macs": 40e6})["macs"].value == 40e6


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        ("latencey=2", "no cost 'latencey'. Did you mean 'latency'"),
        ("FLOPs=0.5x", "no cost 'FLOPs'. Did you mean 'macs'"),
        ("accuracy=90%", "no cost 'accuracy'. Did you mean 'error'"),
        ("latency=2,latency=0.5x", "bounded twice: 2 and 0.5x"),
        ("latency", "'latency' is not name=bound"),
        ("latency=", "'latency=' is not name=bound"),
        ("=2", "'=2' is not name=bound"),
        ("", "empty"),
        ({}, "empty"),
        ({"params": [1]}, r"params=\[1\] is not a bound"),
    ],
)
def test_a_wrong_budget_is_refused(budget: object, reason: str) -> None:
    with pytest.raises(BudgetError, match=reason):
        parse_budget(budget)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1_240_000, "parameters", "1.24 M"),
        (853_018, "parameters", "853 k"),
        (999_600, "parameters", "1 M"),
        (999, "parameters", "999"),
        (0, "MACs", "0"),
        (125_750_000, "MACs", "126 M"),
        (2.5, "ms", "2.5 ms"),
        (0.0625, "ms", "62.5 us"),
        (1234.0, "ms", "1.23 s"),
        (3_400_000, "bytes", "3.4 MB"),
        (120, "bytes", "120 B"),
        (7.954, "%", "7.95 %"),
        (12.34, "mJ", "12.3 mJ"),
        (12_345, "mJ", "12.3 J"),
        (math.nan, "ms", "nan"),
    ],
)
def test_values_are_shown_with_three_digits(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


@given(st.floats(min_value=1e-3, max_value=1e12), st.sampled_from(sorted(set(UNITS.values()))))
def test_what_is_shown_can_be_read_back(value: float, unit: str) -> None:
    if unit == "%":
        value = min(value, 100.0)
    if unit in ("parameters", "MACs", "bytes"):
        value = max(value, 1.0)  # what is counted is refused below one
    text = show(value, unit)
    if value >= 0.01 or unit == "ms":
        assert parse_bound("cost", unit, text).value == pytest.approx(value, rel=6e-3 if value > 1 else 0.6)
