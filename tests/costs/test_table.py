from dataclasses import replace

import pytest

from penjing.core.errors import PenjingError
from penjing.core.layers import Traffic
from penjing.core.protocols import Cost
from penjing.costs.probe import Shape
from penjing.costs.table import LayerTable
from penjing.exporting.measure import summary

from .drafts import FakeDraft, conv, layer, linear


class FakeTimer:
    """One microsecond a thousand MACs, and a record of what was asked."""

    def __init__(self) -> None:
        self.asked: list[Shape] = []

    def __call__(self, shape: Shape) -> float:
        self.asked.append(shape)
        return shape.macs / 1e6


def test_each_shape_is_timed_once() -> None:
    timer = FakeTimer()
    table = LayerTable(timer=timer)
    layers = [conv(16, 16), conv(16, 16, name="again"), conv(16, 32), linear(32, 10), linear(32, 10)]
    expected = sum(layer.macs for layer in layers) / 1e6
    assert table.predict(layers) == pytest.approx(expected)
    assert table.predict(layers) == pytest.approx(expected)
    assert [(shape.in_channels, shape.out_channels) for shape in timer.asked] == [(16, 16), (16, 32), (32, 10)]


def test_a_table_is_a_cheap_cost() -> None:
    table = LayerTable(timer=FakeTimer())
    assert isinstance(table, Cost) and table.unit == "ms" and table.cheap
    layers = (conv(16, 16), linear(16, 4))
    assert table(FakeDraft(layers)) == table.predict(layers)


def test_a_layer_without_channels_takes_no_time() -> None:
    timer = FakeTimer()
    assert LayerTable(timer=timer).time(conv(0, 16)) == LayerTable(timer=timer).time(conv(16, 0)) == 0.0
    assert timer.asked == []


def test_calibration_meets_the_original_and_the_rest_shrinks_with_the_activations() -> None:
    table = LayerTable(timer=FakeTimer())
    whole, half = [conv(16, 16), conv(16, 16)], [conv(16, 8), conv(8, 8)]
    explained = table.predict(whole)
    table.calibrate(whole, explained + 0.4)
    assert table.predict(whole) == pytest.approx(explained + 0.4)
    assert table.predict(half) == pytest.approx(sum(layer.macs for layer in half) / 1e6 + 0.2)


def test_layers_that_explain_too_much_are_scaled_down() -> None:
    table = LayerTable(timer=FakeTimer())
    whole = [conv(16, 16), conv(16, 16, kernel=1)]
    explained = table.predict(whole)
    table.calibrate(whole, 0.8 * explained)
    assert table.predict(whole) == pytest.approx(0.8 * explained)
    assert table.predict(whole[:1]) == pytest.approx(0.8 * 0.9 * explained)
    table.calibrate(whole, explained)
    assert [table.scale, table.rest] == pytest.approx([1.0, 0.0])


def test_a_timing_calibrates_with_its_least_and_predicts_its_median() -> None:
    table = LayerTable(timer=FakeTimer())
    whole = [conv(16, 16)]
    explained = table.predict(whole)
    timing = summary([explained, 1.1 * explained, 1.3 * explained], 1, 1, "cpu", "r", "c")
    table.calibrate(whole, timing)
    assert table.rest == 0.0
    assert table.predict(whole) == pytest.approx(1.1 * explained)
    with pytest.raises(PenjingError, match=r"0\.0 ms cannot calibrate"):
        table.calibrate(whole, 0.0)


def test_between_a_few_timed_widths_the_rest_is_read_off_the_stairs() -> None:
    timer = FakeTimer()
    table = LayerTable(timer=timer, step=16)
    table.calibrate([conv(256, 256)], 10.0)
    for read in range(4, 257, 4):
        for made in range(4, 257, 4):
            stairs = conv(-(-read // 16) * 16, -(-made // 16) * 16)
            assert table.time(conv(read, made)) == pytest.approx(stairs.macs / 1e6)
    assert len(timer.asked) == 6 * 6


def test_what_lies_off_the_stairs_is_timed_itself() -> None:
    timer = FakeTimer()
    table = LayerTable(timer=timer, step=16)
    table.calibrate([conv(64, 64)], 1.0)
    for odd in (conv(63, 64), conv(64, 128), conv(64, 62)):
        assert table.time(odd) == odd.macs / 1e6
        assert Shape.of(odd) in table.times


def test_what_a_chain_moves_is_added_and_is_no_layer_that_others_read() -> None:
    table = LayerTable(timer=FakeTimer())
    whole = [conv(16, 16)]
    table.calibrate(whole, table.predict(whole) + 0.4)
    moved = conv(16, 16, groups=16)
    chain = [replace(conv(16, 64, kernel=1), inner=True), conv(64, 16, kernel=1)]
    passes = (Traffic("pad", "move", "pad", 1, 1, 0), Traffic("shift", "move", "cat", 1, 1, 0, moved))
    expected = sum(one.macs for one in (*chain, moved)) / 1e6 + 0.4
    assert table(FakeDraft(tuple(chain), passes=passes)) == pytest.approx(expected)


def test_picks_are_timed_at_powers_of_two_and_read_off_the_line_between() -> None:
    asked: list[Shape] = []

    def timer(shape: Shape) -> float:
        asked.append(shape)
        return 1.0 + shape.in_channels + 10 * shape.out_channels

    table = LayerTable(timer=timer)
    for ins, outs in ((24, 40), (16, 64), (20, 33), (1, 3)):
        pick = layer(ins, outs, kind="pick", in_size=(8, 8), out_size=(8, 8))
        assert Shape.of(pick).macs == 0
        assert table.time(pick) == pytest.approx(1 + ins + 10 * outs)
    widths = {n for shape in asked for n in (shape.in_channels, shape.out_channels)}
    assert widths <= {1, 2, 4, 16, 32, 64} and all(shape.picks for shape in asked) and len(asked) == len(set(asked))
