import math
import re
from typing import Any

import matplotlib
import pytest

from penjing.report import plots
from penjing.report.results import read


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def bars(svg: str, colour: str) -> list[float]:
    """Lengths of the horizontal bars filled with one colour."""
    lengths = []
    for corners in re.findall(rf'<path d="([^"]*)"[^>]*style="fill: var\(--{colour}\)', svg):
        xs = [float(x) for x, _ in re.findall(r"[ML] (\S+) (\S+)", corners)]
        lengths.append(max(xs) - min(xs))
    return lengths


def test_bars_are_as_long_as_the_widths(results: dict[str, Any]) -> None:
    channels, ranks = plots.widths(read(results))
    for svg in (channels.wide, channels.narrow):
        before, (after,), (same,) = (bars(svg, colour) for colour in ("pale", "moss", "stone"))
        assert after / max(before) == pytest.approx(0.5, abs=1e-4)
        assert same / max(before) == pytest.approx(16 / 64, abs=1e-4)
        assert {"conv1", "16 → 16", "layer1.0.conv1", "64 → 32"} == set(texts(svg))
    assert "layer1.0.conv1: 64 to 32" in channels.alt and "80 before, 48 after" in channels.caption
    assert bars(ranks.wide, "moss")[0] / bars(ranks.wide, "pale")[0] == pytest.approx(0.4, abs=1e-4)


def test_strips_of_one_figure_share_a_scale(results: dict[str, Any]) -> None:
    results["sites"] = [{"site": f"conv{i}", "kind": "channels", "before": 100 - i, "after": 10} for i in range(30)]
    (picture,) = plots.widths(read(results))
    assert picture.wide.count("<svg") == 3
    lengths = bars(picture.wide, "pale")
    assert lengths == pytest.approx([lengths[0] * (100 - i) / 100 for i in range(30)], abs=1e-3)
    assert len(set(bars(picture.wide, "moss"))) == 1


def test_no_sites_no_figure(results: dict[str, Any]) -> None:
    results["sites"] = []
    assert plots.widths(read(results)) == []


def test_trade_off_uses_latency_where_every_row_has_it(results: dict[str, Any]) -> None:
    (picture,) = plots.trade_off(read(results))
    assert "latency, ms" in texts(picture.wide)
    assert {"original", "penjing", "from scratch, same widths"} <= set(texts(picture.narrow))
    assert "moved a little apart" in picture.caption


def test_trade_off_falls_back_to_macs(results: dict[str, Any]) -> None:
    del results["rows"][3]["latency"]
    timed, counted = plots.trade_off(read(results))
    assert "from scratch" not in timed.alt and "from scratch" in counted.alt
    assert "MACs, millions" in texts(counted.wide)
    del results["rows"][1]["latency"]
    assert len(plots.trade_off(read(results))) == 1


def test_points_of_one_cost_do_not_cover_each_other() -> None:
    assert plots._shifts([2.5, 1.1, 1.1, 1.12]) == [0, 0, 1, -1]
    assert plots._shifts([0.0, 0.0]) == [0, 1]
    assert len(set(plots._shifts([1.0] * 200))) == 200


def test_training_curve(results: dict[str, Any]) -> None:
    picture = plots.training(read(results))
    assert picture is not None
    assert "over 2 epochs" in picture.alt and "from 97.00\u00a0% to 98.70\u00a0%" in picture.alt
    assert {"loss", "training", "validation"} <= set(texts(picture.wide))
    results["training"] = []
    assert plots.training(read(results)) is None


def test_training_survives_gaps(results: dict[str, Any]) -> None:
    results["training"][0].update(loss=math.inf, val_accuracy=None, val_loss=math.nan)
    assert plots.training(read(results)) is not None
    results["training"][1].update(val_accuracy=None, val_loss=None)
    picture = plots.training(read(results))
    assert picture is not None and "Validation accuracy" not in picture.alt


def test_names_stay_text(results: dict[str, Any]) -> None:
    results["sites"][1]["site"] = "<b>$x^2$ & 层\n"
    wide = plots.widths(read(results))[0].wide
    assert "&lt;b&gt;$x^2$ &amp; 层" in texts(wide)


def test_settings_of_the_user_change_nothing_and_stay(results: dict[str, Any]) -> None:
    plain = plots.trade_off(read(results))
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert plots.trade_off(read(results)) == plain
        assert matplotlib.rcParams["text.usetex"] is True
