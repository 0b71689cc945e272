"""The closed forms against SCALE-Sim, which walks through every cycle (rows of benchmarks/oracles/scalesim_rows.py)."""

from collections import Counter
from statistics import median

import pytest
from scipy.stats import spearmanr

from penjing.targets import systolic
from targets.scalesim import DATAFLOWS, ROWS, crossing, of, product, shape


def test_there_are_many_layers_of_each_dataflow():
    assert min(Counter(row["dataflow"] for row in ROWS).values()) >= 34
    assert {row["dataflow"] for row in ROWS} == set(DATAFLOWS)
    assert len({(row["rows"], row["columns"]) for row in ROWS}) >= 8


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_cycles_are_equal(dataflow):
    assert [systolic.cycles(*product(row)) - 1 for row in of(dataflow)] == [row["cycles"] for row in of(dataflow)]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_words_of_inputs_and_weights_are_equal(dataflow):
    for row in of(dataflow):
        words = systolic.words(*product(row))
        assert (words.inputs, words.weights) == (row["sram_in_reads"], row["sram_weight_reads"])


@pytest.mark.parametrize("dataflow", ["weight_stationary", "input_stationary"])
def test_sums_are_written_as_often_and_read_again_all_but_the_first_time(dataflow):
    for row in of(dataflow):
        words = systolic.words(*product(row))
        assert words.sums == 2 * row["sram_out_writes"] - shape(row).outputs


def test_outputs_are_written_once_where_the_simulator_adds_a_line_for_each_fold():
    # Output stationary: beside the outputs it counts rows + columns words in each fold, which it writes to no DRAM.
    for row in of("output_stationary"):
        folds = systolic.up(shape(row).m, row["rows"]) * systolic.up(shape(row).n, row["columns"])
        lines = folds * (row["rows"] + row["columns"])
        assert systolic.words(*product(row)).outputs == row["sram_out_writes"] - lines


def test_what_fits_crosses_to_dram_once():
    def read(size: int, out: int, kernel: int, stride: int) -> int:
        return min(size, out * kernel, (out - 1) * stride + kernel)

    once = 0
    for row in ROWS:
        one = shape(row)
        pixels = [read(*axis) for axis in zip(one.in_size, one.out_size, one.kernel, one.stride, strict=True)]
        needed = one.in_channels * pixels[0] * pixels[1]
        if (row["dram_in_reads"], row["dram_weight_reads"]) == (needed, one.weights):
            ours, theirs = crossing(row)
            assert ours == theirs
            once += 1
    assert once >= 100


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_chosen_tiles_cross_no_more_than_the_fixed_order_and_rank_layers_alike(dataflow):
    ours, theirs = zip(*map(crossing, of(dataflow)), strict=True)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    # Our tiles are powers of two and keep room for 32 bit sums, which costs one layer in eighty a fifth.
    assert sorted(ratios)[-2] <= 1.001
    assert max(ratios) < 1.2
    assert 0.95 < median(ratios) <= 1
    assert spearmanr(ours, theirs).statistic > 0.88
