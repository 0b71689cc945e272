import random
import re
from typing import Any

import pytest

from penjing.report import searches
from penjing.report.build import render
from penjing.report.results import read


def trial(number: int, error: float | None, met: bool, step: str = "02-prune") -> dict[str, Any]:
    return {"step": step, "trial": number, "costs": {"error": error, "macs": 1e6}, "minimise": "error", "met": met}


@pytest.fixture
def searched(results: dict[str, Any]) -> dict[str, Any]:
    results["trials"] = [trial(1, 9.0, False), trial(2, 14.0, True), trial(3, 12.3, True), trial(4, 13.0, True)]
    results["searches"] = [
        {
            "step": "02-prune",
            "allocator": "evolution",
            "minimise": "error",
            "unit": "%",
            "trials": 4,
            "best": 3,
            "evaluated": 3,
            "seconds": 12.0,
            "stopped": "the time was up",
        }
    ]
    return results


def dots(svg: str, fill: str) -> list[tuple[float, float]]:
    """Places of the markers of one fill, as drawn."""
    uses = re.findall(r"<use [^>]*>", svg)
    found = []
    for use in uses:
        if f"fill: var(--{fill})" in use:
            found.append((float(re.search(r' x="([^"]+)', use)[1]), float(re.search(r' y="([^"]+)', use)[1])))  # type: ignore[index]
    return found


def test_each_trial_is_a_dot_and_what_breaks_a_bound_is_hollow(searched: dict[str, Any]) -> None:
    (told,) = searches.searches(read(searched))
    assert told.picture is not None and told.title == "Step 2, prune: evolution"
    for drawn in (told.picture.wide, told.picture.narrow):
        full, hollow = dots(drawn, "moss"), dots(drawn, "paper")
        assert (len(full), len(hollow)) == (3, 1)
        assert hollow[0][1] > max(y for _, y in full), "9.0 lies lowest on the page"
        assert sorted(x for x, _ in full) == [x for x, _ in full]


def test_what_was_found_is_told_in_words(searched: dict[str, Any]) -> None:
    (told,) = searches.searches(read(searched))
    assert told.text.replace("\u00a0", " ") == (
        "4 candidates were tried, 3 of them worked out in full, to make error as small as possible, in 12 s. 3 of 4 "
        "kept every bound; the best of these was trial 3, with error 12.3 %. It stopped: the time was up."
    )
    assert told.picture is not None and told.text in told.picture.alt


def test_the_line_is_the_best_so_far_that_keeps_all_bounds(searched: dict[str, Any]) -> None:
    assert searches.best_so_far(read(searched).trials) == [None, 14.0, 12.3, 12.3]


def test_trials_may_fail_and_searches_may_lack(results: dict[str, Any]) -> None:
    results["trials"] = [trial(1, None, False), trial(2, float("nan"), True), trial(1, 5.0, False, "04-prune")]
    results["searches"] = [{"step": "06-prune", "allocator": "random"}]
    third, first, second = searches.searches(read(results))
    assert (third.title, third.picture) == ("Step 6, prune: random", None)
    assert first.picture is None and "1 of 2 kept every bound." in first.text
    assert second.picture is not None and "0 of 1 kept every bound." in second.text
    assert "nan" not in render(results)


def test_a_search_may_leave_out_which_trials_kept_the_bounds(searched: dict[str, Any]) -> None:
    for one in searched["trials"]:
        del one["met"], one["minimise"]
    searched["searches"][0]["stopped"] = True
    (told,) = searches.searches(read(searched))
    assert told.picture is not None and len(dots(told.picture.wide, "stone")) == 4
    assert "Triangle" in told.picture.caption and "Filled" not in told.picture.caption
    assert "kept every bound" not in told.text and told.text.endswith("stopped by hand, and the best so far was taken.")


def test_a_step_that_searches_twice_tells_of_both(searched: dict[str, Any]) -> None:
    searched["searches"] = [searched["searches"][0] | {"trials": 1}, searched["searches"][0] | {"trials": 3}]
    first, second = searches.searches(read(searched))
    assert first.picture is not None and second.picture is not None
    assert len(dots(first.picture.wide, "paper")) == 1 and dots(first.picture.wide, "moss") == []
    assert len(dots(second.picture.wide, "moss")) == 3


def test_many_trials_stay_light(results: dict[str, Any]) -> None:
    rng = random.Random(0)
    results["trials"] = [trial(i, rng.uniform(1, 90), rng.random() < 0.5) for i in range(1, 20_001)]
    (told,) = searches.searches(read(results))
    assert told.picture is not None and "20,000 trials 400 are drawn" in told.picture.caption
    assert len(dots(told.picture.wide, "moss")) + len(dots(told.picture.wide, "paper")) <= 400
    assert len(told.picture.wide) < 200_000


def test_nothing_appears_where_nothing_was_searched(results: dict[str, Any], searched: dict[str, Any]) -> None:
    assert "<h2>What was tried</h2>" in render(searched)
    for key in ("trials", "searches"):
        results[key] = []
    assert "What was tried" not in render(results)
    for key in ("trials", "searches"):
        del results[key]
    assert "What was tried" not in render(results)
