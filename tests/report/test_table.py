from typing import Any

import pytest

from penjing.core.errors import RecipeError
from penjing.report.table import summary_table


def test_summary_is_plain_and_complete(results: dict[str, Any]) -> None:
    text = summary_table(results)
    lines = text.splitlines()
    assert text.isascii()
    assert lines[0] == "digits_net on digits"
    assert lines[1].split("  ")[0] == "network" and "speed-up" in lines[1] and "memory" in lines[1]
    assert len(lines) == 3 + 4
    assert "98.61 %" in lines[4] and "5 of 360" in lines[4] and "2.30x (2.20-2.40)" in lines[4]
    assert lines[5].endswith("-")


def test_columns_nobody_can_fill_are_left_out(results: dict[str, Any]) -> None:
    for row in results["rows"]:
        for key in ("latency", "ratio", "memory"):
            row.pop(key, None)
    header = summary_table(results).splitlines()[1]
    assert "latency" not in header and "memory" not in header and "MACs" in header


def test_names_cannot_break_the_table(results: dict[str, Any]) -> None:
    results["rows"][2]["name"] = "two\nlines \x1b[2J"
    text = summary_table(results)
    assert "\x1b" not in text and len(text.splitlines()) == 7


def test_malformed_results_are_refused(results: dict[str, Any]) -> None:
    del results["rows"][0]["macs"]
    with pytest.raises(RecipeError, match=r"rows\[0\]\.macs"):
        summary_table(results)
