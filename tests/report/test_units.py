import math

import pytest

from penjing.report import units


@pytest.mark.parametrize(
    ("value", "text"),
    [(9.9996, "10.0"), (0.99951, "1.00"), (999.6, "1,000"), (0, "0"), (math.nan, "not a number"), (-math.inf, "−∞")],
)
def test_significant_rounds_before_it_counts_digits(value: float, text: str) -> None:
    assert units.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(9999, "9,999"), (10_000, "10.0 k"), (999_600, "1.00 M"), (1_500_000_000, "1.50 G"), (12.5, "12.5"), (0, "0")],
)
def test_scaled_changes_prefix_at_the_rounded_value(value: float, text: str) -> None:
    assert units.scaled(value).replace(units.GAP, " ") == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.0, "ms", "1.00 ms"),
        (999_600, "bytes", "1.00 MB"),
        (12, "bytes", "12 bytes"),
        (812_345, "parameters", "812 k parameters"),
        (5, "", "5"),
        (1.1, "%", "1.10 %"),
        (41_200_000, "MAC", "41.2 M MACs"),
    ],
)
def test_quantity_reads_like_speech(value: float, unit: str, text: str) -> None:
    assert units.quantity(value, unit).replace(units.GAP, " ") == text


def test_apart_never_prints_two_values_alike() -> None:
    for gap in (1e-1, 1e-3, 1e-6):
        first, second = units.apart(1.2, 1.2 * (1 + gap), "ms")
        assert first != second
    assert len(set(units.apart(1.2, 1.2, "ms"))) == 1


def test_moment_keeps_what_is_no_time() -> None:
    assert units.moment("yesterday") == "yesterday"
    assert units.moment("2026-11-07T14:03:22") == "2026-11-07 14:03"


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.96, "1 min 0 s"), (0.0021, "2.1 ms"), (59.5, "60 s"), (3600, "1 h 0 min")]
)
def test_duration_carries(seconds: float, text: str) -> None:
    assert units.duration(seconds).replace(units.GAP, " ") == text
