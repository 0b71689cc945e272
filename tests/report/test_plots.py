import math
import re
from typing import Any

import matplotlib

from penjing.report import plots
from penjing.report.results import read


def texts(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


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


def test_settings_of_the_user_change_nothing_and_stay(results: dict[str, Any]) -> None:
    plain = plots.trade_off(read(results))
    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert plots.trade_off(read(results)) == plain
        assert matplotlib.rcParams["text.usetex"] is True
