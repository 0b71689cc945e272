"""What each site loses for what it saves: the ranking follows from the numbers, and curves lie where they belong."""

import re
from typing import Any

import pytest

from penjing.core.errors import RecipeError
from penjing.report import sensitivity
from penjing.report.build import render
from penjing.report.results import read
from penjing.report.sensitivity import Told


def site(name: str, kept: int, lost: float, saves: float, **more: Any) -> dict[str, Any]:
    facts = {"site": name, "kind": "channels", "size": 64, "kept": kept, "score": 64.0, "lost": lost, "saves": saves}
    return facts | more


def measured(expected: float, *losses: float) -> dict[str, Any]:
    return {"expected": expected, "measured": [{"kept": 8 * 2**i, "loss": loss} for i, loss in enumerate(losses)]}


def cut(*sites: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"step": "02-prune", "cost": "latency", "said": "", "sites": list(sites), **more}


@pytest.fixture
def scored(results: dict[str, Any]) -> dict[str, Any]:
    results["sensitivity"] = [cut(site("a", 32, 4.0, 0.3), site("b", 48, 4.0, 0.1), site("c", 64, 0.0, 0.0))]
    return results


@pytest.fixture
def sensed(results: dict[str, Any]) -> dict[str, Any]:
    sites = (
        site("a", 32, 4.0, 0.3, **measured(6.0, 30.0, 10.0)),
        site("b", 48, 12.0, 0.3, **measured(2.0, 10.0, 5.0)),
        site("c", 64, 0.0, 0.0, **measured(0.0, 80.0, -1.0)),
    )
    results["sensitivity"] = [cut(*sites, minimise="error", unit="%", whole=2.5)]
    ranks = (("both", 0.9, True), ("scores", -0.25, False))
    losses = [{"by": by, "rank": rank, "explained": 0.5, "reached": 9.0, "taken": taken} for by, rank, taken in ranks]
    results["searches"] = [{"step": "02-prune", "allocator": "knapsack", "losses": losses, "foretold": 8}]
    return results


def told(results: dict[str, Any]) -> Told:
    (one,) = sensitivity.sensitivities(read(results))
    return one


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def test_scores_tell_what_is_lost_where_nothing_was_measured(scored: dict[str, Any]) -> None:
    one = told(scored)
    assert [(line.site, line.kept, plain(line.score), plain(line.part), line.ratio) for line in one.lines] == [
        ("b", "48 of 64", "6.2 %", "50 %", "2.00"),
        ("a", "32 of 64", "6.2 %", "50 %", "0.67"),
    ]
    assert one.picture is None and not one.measured and one.title == ""
    assert one.sentences == [
        "No site was measured alone, so that the criterion's scores tell the loss.",
        "Larger part of the loss than of the saving: b.",
        "Left whole: c.",
    ]


def test_what_was_measured_goes_before_scores(sensed: dict[str, Any]) -> None:
    one = told(sensed)
    rows = [(line.site, plain(line.expected), plain(line.part), line.ratio, line.dear) for line in one.lines]
    assert rows == [("a", "6.0 points", "75 %", "1.50", True), ("b", "2.0 points", "25 %", "0.50", False)]
    assert [plain(sentence) for sentence in one.sentences] == [
        "Sites were cut alone, all others whole, and error was measured; without a cut it is 2.50 %.",
        "Larger part of the loss than of the saving: a.",
        "8 whole plans were measured and their losses foretold; the rank correlation is 0.90 by the mean of both, "
        "−0.25 by scores. The best plan was found by the mean of both.",
        "Left whole: c.",
    ]


def test_where_no_choice_was_found_to_lose_scores_decide(sensed: dict[str, Any]) -> None:
    for one in sensed["sensitivity"][0]["sites"]:
        one["expected"] = 0.0
    found = told(sensed)
    assert [line.site for line in found.lines] == ["b", "a"]
    assert "At the counts chosen no site alone was found to lose anything" in found.sentences[1]
    assert {line.expected for line in found.lines} == {"none"}


def test_a_site_that_was_not_measured_leaves_the_ranking_to_scores(sensed: dict[str, Any]) -> None:
    del sensed["sensitivity"][0]["sites"][1]["expected"]
    assert next((line.site, line.expected) for line in told(sensed).lines) == ("b", "–")


def test_a_loss_for_nothing_comes_first_and_no_loss_last(scored: dict[str, Any]) -> None:
    sites = scored["sensitivity"][0]["sites"]
    sites[0]["saves"], sites[1]["lost"] = -0.01, 0.0
    assert [(line.site, line.ratio, line.dear) for line in told(scored).lines] == [
        ("a", "nothing saved", True),
        ("b", "0.00", False),
    ]


def test_scores_may_be_such_that_no_share_of_them_means_anything(scored: dict[str, Any]) -> None:
    for one in scored["sensitivity"][0]["sites"]:
        one.update(score=-3.0, lost=-1.0)
    assert {(line.score, line.part, line.ratio) for line in told(scored).lines} == {("–", "–", "0.00")}


def test_a_best_plan_of_nobody_is_said_to_be_one(sensed: dict[str, Any]) -> None:
    for one in sensed["searches"][0]["losses"]:
        one["taken"] = False
    assert told(sensed).sentences[2].endswith("The best of those plans was taken itself.")


def test_the_allocator_has_its_word_where_nothing_was_foretold(scored: dict[str, Any]) -> None:
    scored["sensitivity"][0]["said"] = "knapsack solved to a gap of 0 %, losses by scores"
    assert "Knapsack solved to a gap of 0 %, losses by scores." in told(scored).sentences


def test_every_measured_site_has_a_panel_the_most_sensitive_first(sensed: dict[str, Any]) -> None:
    picture = told(sensed).picture
    assert picture is not None
    for drawn in (picture.wide, picture.narrow):
        assert [text for text in re.findall(r"<text[^>]*>([^<]*)</text>", drawn) if text in "abc"] == ["c", "a", "b"]
        dots = [use for use in re.findall(r"<use [^>]*>", drawn) if "fill: var(--moss)" in use]
        assert len(dots) == 6
        heights = [float(re.search(r' y="([^"]+)', use)[1]) for use in dots[:4]]  # type: ignore[index]
        assert heights[0] < heights[2] < heights[3] < heights[1], "80, 30, 10 and -1 on one scale"
    assert "c: 80 points with 8 of 64" in plain(picture.alt)


def test_many_sites_stay_readable(sensed: dict[str, Any]) -> None:
    sites = [site(f"s{i}", 32, 1.0 + i, 0.1, **measured(1.0 + i, 9.0)) for i in range(30)]
    sensed["sensitivity"][0]["sites"] = sites
    one = told(sensed)
    assert len(one.lines) == 20 and one.lines[0].site == "s29"
    assert one.sentences[-1] == "The table has the 20 sites of 30 that lose most for what they save."
    assert one.picture is not None and one.picture.caption.endswith("Drawn are 12 of 30 sites.")


def test_each_cut_has_its_own_table_under_its_name(scored: dict[str, Any]) -> None:
    scored["sensitivity"].append({**scored["sensitivity"][0], "step": "04-prune"})
    assert [one.title for one in sensitivity.sensitivities(read(scored))] == ["Step 2, prune", "Step 4, prune"]
    page = render(scored)
    assert "<h3>Step 4, prune</h3>" in page and page.count("saves of latency") == 2


def test_the_section_is_there_where_something_was_cut_and_names_are_escaped(scored: dict[str, Any]) -> None:
    scored["sensitivity"][0]["sites"][0]["site"] = "<b>a</b>"
    page = render(scored)
    assert "<h2>Sensitivity</h2>" in page and "&lt;b&gt;a&lt;/b&gt;" in page and "<b>a</b>" not in page
    del scored["sensitivity"]
    assert "<h2>Sensitivity</h2>" not in render(scored)


def test_a_wrong_key_is_named(scored: dict[str, Any]) -> None:
    scored["sensitivity"][0]["sites"][1]["lost"] = "much"
    with pytest.raises(RecipeError, match=r"sensitivity\[0\].sites\[1\].lost = 'much'"):
        read(scored)
