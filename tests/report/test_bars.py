"""Bars are as long as what they stand for, whatever the layers are called."""

import re
from typing import Any

import pytest

from penjing.report.bars import times, widths
from penjing.report.results import read


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def lengths_of(svg: str, colour: str) -> list[float]:
    """Lengths of the horizontal bars filled with one colour."""
    lengths = []
    for corners in re.findall(rf'<path d="([^"]*)"[^>]*style="fill: var\(--{colour}\)', svg):
        xs = [float(x) for x, _ in re.findall(r"[ML] (\S+) (\S+)", corners)]
        lengths.append(max(xs) - min(xs))
    return lengths


def test_bars_are_as_long_as_the_widths(results: dict[str, Any]) -> None:
    channels, ranks = widths(read(results))
    for svg in (channels.wide, channels.narrow):
        before, (after,), (same,) = (lengths_of(svg, colour) for colour in ("pale", "moss", "stone"))
        assert after / max(before) == pytest.approx(0.5, abs=1e-4)
        assert same / max(before) == pytest.approx(16 / 64, abs=1e-4)
        assert {"conv1", "16 → 16", "layer1.0.conv1", "64 → 32"} == set(texts(svg))
    assert "layer1.0.conv1: 64 to 32" in channels.alt and "80 before, 48 after" in channels.caption
    assert lengths_of(ranks.wide, "moss")[0] / lengths_of(ranks.wide, "pale")[0] == pytest.approx(0.4, abs=1e-4)


def test_strips_of_one_figure_share_a_scale(results: dict[str, Any]) -> None:
    results["sites"] = [{"site": f"conv{i}", "kind": "channels", "before": 100 - i, "after": 10} for i in range(30)]
    (picture,) = widths(read(results))
    assert picture.wide.count("<svg") == 3
    lengths = lengths_of(picture.wide, "pale")
    assert lengths == pytest.approx([lengths[0] * (100 - i) / 100 for i in range(30)], abs=1e-3)
    assert len(set(lengths_of(picture.wide, "moss"))) == 1


def test_no_sites_no_figure(results: dict[str, Any]) -> None:
    results["sites"] = []
    assert widths(read(results)) == []


def test_names_stay_text(results: dict[str, Any]) -> None:
    results["sites"][1]["site"] = "<b>$x^2$ & 层\n"
    wide = widths(read(results))[0].wide
    assert "&lt;b&gt;$x^2$ &amp; 层" in texts(wide)


def test_times_share_a_scale_and_little_layers_a_bar(results: dict[str, Any]) -> None:
    picture = times(read(results).spending)
    assert picture is not None
    assert {"conv1", "layer1.0.conv1", "fc", "all ReorderOutput"} <= set(texts(picture.wide))
    assert "0.80 → 0.50" in texts(picture.narrow) and "layer1.0.conv1: 1.4 to 0.40" in picture.alt
    before = lengths_of(picture.wide, "pale")
    assert before[1] / before[0] == pytest.approx(1.4 / 0.8, abs=1e-3)
    results["spending"]["layers"][2]["before"]["measured_ms"] = 1e-5
    results["spending"]["layers"][2]["after"]["measured_ms"] = 1e-5
    fewer = times(read(results).spending)
    assert fewer is not None and "fc" not in texts(fewer.wide) and "all others" in texts(fewer.wide)


def test_nothing_known_no_figure(results: dict[str, Any]) -> None:
    assert times(None) is None
    results["spending"]["layers"] = []
    assert times(read(results).spending) is None
