from typing import Any

import pytest

from penjing.report import units, words
from penjing.report.results import read


def headline(results: dict[str, Any]) -> str:
    return words.headline(read(results)).replace(units.GAP, " ")


def test_headline_of_a_met_budget(results: dict[str, Any]) -> None:
    assert headline(results) == (
        "2.3× faster, 4.1× fewer MACs, 1 more of 360 test pictures wrong (not distinguishable); "
        "budget met: measured on the exported file."
    )


def test_headline_of_a_missed_budget_begins_with_the_miss(results: dict[str, Any]) -> None:
    results["budget"][0].update(measured=1.2004, met=False)
    assert headline(results).startswith("Budget missed: latency 1.2004 ms measured, 1.2000 ms allowed (0.033 % over).")
    assert "budget met" not in headline(results)


def test_headline_says_when_the_run_rejected_what_the_numbers_allow(results: dict[str, Any]) -> None:
    results["budget"][0]["met"] = False
    assert "yet the run did not accept it" in headline(results)


def test_headline_warns_first_of_a_failed_certificate(results: dict[str, Any]) -> None:
    results["certificates"][0]["ok"] = False
    assert headline(results).startswith("Do not use this file yet: the check “cut equals zeroed” failed.")


def test_headline_without_a_budget_and_elsewhere(results: dict[str, Any]) -> None:
    results["budget"][0]["where"] = "the graph"
    assert headline(results).endswith("budget met: checked on: the graph.")
    results["budget"] = []
    assert headline(results).endswith("no budget was set.")


@pytest.mark.parametrize(
    ("low", "median", "high", "expected"),
    [
        (0.99, 2.0, 3.0, "not distinguishable"),
        (1.0, 1.4, 1.6, "not distinguishable"),
        (1.01, 1.5, 1.6, "1.5× faster"),
        (0.4, 0.5, 0.99, "2.0× slower"),
    ],
)
def test_speed_is_claimed_only_off_one(
    results: dict[str, Any], low: float, median: float, high: float, expected: str
) -> None:
    results["rows"][1]["ratio"] = {"low": low, "median": median, "high": high}
    found = words.speed(read(results))
    assert found is not None and found[0] == expected
    assert ("Speed not distinguishable" in headline(results)) == (expected == "not distinguishable")


def test_speed_without_a_ratio_compares_the_spreads(results: dict[str, Any]) -> None:
    del results["rows"][1]["ratio"]
    assert words.speed(read(results)) == ("2.3× faster", "good")
    results["rows"][1]["latency"]["high_ms"] = 2.4
    assert words.speed(read(results)) == ("not distinguishable", "even")
    del results["rows"][1]["latency"]
    assert words.speed(read(results)) is None


def test_interval_solves_wilsons_equation(results: dict[str, Any]) -> None:
    for row in read(results).rows:
        right = 1 - row.wrong / row.of
        for end in words.interval(row):
            p = end / 100
            # Both ends lie 1.96 standard errors *of the end itself* away from what was observed.
            assert (right - p) ** 2 == pytest.approx(1.959964**2 * p * (1 - p) / row.of, rel=1e-6)


def test_interval_at_the_ends(results: dict[str, Any]) -> None:
    results["rows"][0].update(wrong=0, accuracy=100.0)
    results["rows"][1].update(wrong=360, accuracy=0.0)
    checked = read(results)
    assert words.interval(checked.original)[1] == 100.0 and words.interval(checked.original)[0] > 98.5
    assert words.interval(checked.result)[0] == 0.0


def test_comparisons_claim_nothing_where_intervals_overlap(results: dict[str, Any]) -> None:
    lines = words.comparisons(read(results))
    assert len(lines) == 3
    assert "not distinguishable" in lines[0] and "not distinguishable" in lines[1]
    assert "9.7 points higher" in lines[2] and "do not overlap" in lines[2]
    results["rows"].pop()
    assert "does not show that choosing" in words.comparisons(read(results))[-1]


def test_mistakes_are_counted(results: dict[str, Any]) -> None:
    checked = read(results)
    original, result, _, scratch = checked.rows
    assert words.mistakes(original, original) == "4 of 360 test pictures wrong, as before"
    assert words.mistakes(scratch, result).replace(units.GAP, " ") == "35 fewer of 360 test pictures wrong"
    results["rows"][0].update(wrong=110, of=10_000)
    other = read(results).original
    assert words.mistakes(other, result) == "5 of 360 test pictures wrong (before: 110 of 10,000)"


def test_the_title_says_which_network_and_how_it_went(results: dict[str, Any]) -> None:
    assert words.title(read(results)) == "digits_net on digits: 2.3× faster, 4.1× fewer MACs, budget met"
    results["budget"][0].update(measured=1.4, met=False)
    assert words.title(read(results)).endswith("fewer MACs, budget missed")
    results["certificates"][0]["ok"] = False
    assert words.title(read(results)).endswith("fewer MACs, a check failed")


def test_a_bound_on_the_error_is_told_in_points(results: dict[str, Any]) -> None:
    results["budget"][0].update(cost="error", asked="+0.5", unit="%", limit=1.2, measured=1.9, met=False)
    (bound,) = read(results).budget
    assert words.excess(bound) == "0.70 points over" and words.asked("+1", "%") == "1 points above the original"
    assert "error 1.90 % measured, 1.20 % allowed (0.70 points over)" in headline(results)


def test_what_a_cut_could_reach_names_each_unit_once(results: dict[str, Any]) -> None:
    results["lowest"] = [{"step": 4, "costs": {"macs": 456_000, "size": 100_000}}, {"step": 1, "costs": {"memory": 9}}]
    told = [line.replace(units.GAP, " ") for line in words.lowest(read(results))]
    assert told == [
        "Lowest that a cut could reach in steps of 4: 456 k MACs, file size 100 kB.",
        "Lowest that a cut could reach: memory 9 bytes.",
    ]


def test_a_median_under_the_limit_with_a_slow_end_above_is_noted(results: dict[str, Any]) -> None:
    assert words.bound_notes(read(results)) == []
    results["rows"][1]["latency"]["high_ms"] = 1.31
    assert "1.31 ms" in words.bound_notes(read(results))[0].replace(units.GAP, " ")


def test_tiles_name_each_change(results: dict[str, Any]) -> None:
    tiles = {tile.label: (tile.verdict, tile.tone) for tile in words.tiles(read(results))}
    assert tiles == {
        "Latency": ("2.3× faster", "good"),
        "MACs": ("4.1× fewer", "good"),
        "Parameters": ("4.1× fewer", "good"),
        "File size": ("4.1× smaller", "good"),
        "Accuracy": ("not distinguishable", "even"),
    }


def test_reading_the_test_set_often_is_admitted(results: dict[str, Any]) -> None:
    assert "pictures once" in words.reads(read(results))
    results["test_reads"] = 9
    assert "used 9 times" in words.reads(read(results)) and "too kind" in words.reads(read(results))


def test_unequal_conditions_are_admitted(results: dict[str, Any]) -> None:
    assert "onnxruntime 1.31, 1 thread, batch of 1" in words.conditions(read(results))
    assert "not measured alike" not in words.conditions(read(results))
    results["rows"][1]["latency"]["threads"] = 2
    assert "not measured alike" in words.conditions(read(results))
