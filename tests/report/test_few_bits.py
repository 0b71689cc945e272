"""Layers in few bits on the page: from how many bits to how many, and that some are no faster."""

from typing import Any

import pytest

from penjing.report.bars import widths
from penjing.report.build import render
from penjing.report.few_bits import lines, summary
from penjing.report.results import read
from penjing.report.table import summary_table
from penjing.steps.few_bits import FewBits

CONV1 = FewBits("conv1", "twn", 2, 32, 18432.0, 1156.0, True)
CONV2 = FewBits("conv2", "lsq", 4, 8, 18432.0, 2308.0, False)


def test_a_row_tells_bits_in_words_and_marks_what_is_no_faster() -> None:
    first, second = lines([CONV1, CONV2])
    assert (first.weights, first.reads, first.mark) == ("32 → 2\xa0bits", "floats", "size only")
    assert (second.weights, second.reads, second.mark) == ("32 → 4\xa0bits", "32 → 8\xa0bits", "")


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        ([CONV1], "1 layer is in few bits, by twn: 18.4\xa0kB of weights became 1.16\xa0kB, tables included. All are"),
        ([CONV1, CONV2], "2 layers are in few bits, by twn, lsq"),
        ([CONV1, CONV2], "1 of them are smaller and not faster"),
        ([CONV2], "computed in a narrower precision"),
    ],
)
def test_a_sentence_sums_up(layers: list[FewBits], says: str) -> None:
    assert says in summary(layers)


def test_the_page_has_the_layers_their_bits_and_the_sizes(results: dict[str, Any]) -> None:
    page = render(results)
    assert "<h3>Layers in few bits" not in page and 'data-label="bundle"' not in page
    results["few_bits"] = [vars(CONV1)]
    results["sites"].append({"site": "conv1/bits", "kind": "twn", "before": 32, "after": 2})
    results["rows"][1] |= {"bundle": 13_500, "packed": 40_000}
    page = render(results)
    assert "<h3>Layers in few bits" in page and 'data-label="bundle"' in page
    assert "size only" in page and "13.5\xa0kB" in page
    assert "conv1: 32 to 2\xa0bits" in widths(read(results))[-1].alt
    table = summary_table(results)
    assert "bundle" in table and "13.5 kB (40.0 kB in memory)" in table
