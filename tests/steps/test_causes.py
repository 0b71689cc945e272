"""Each cause by a case made for it: a time of layers that is a formula, of which nothing else could be the reason."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.core.layers import Layer
from penjing.steps.causes import find
from penjing.steps.sides import Pair, Setting, Side, slow, tiny, widened

NO_UNITS = np.arange(0)


def conv(ins: int, outs: int, size: int = 16, kernel: int = 3, groups: int = 1, density: float = 1.0) -> Layer:
    sides = (size, size)
    return Layer(
        name="conv", kind="conv", weight="conv.weight", bias=None, in_units=NO_UNITS, out_units=NO_UNITS,
        in_channels=ins, out_channels=outs, groups=groups, kernel=(kernel, kernel), stride=(1, 1), padding=(1, 1),
        dilation=(1, 1), transposed=False, in_size=sides, out_size=sides, density=density,
    )  # fmt: skip


def linear(ins: int, outs: int) -> Layer:
    return replace(
        conv(ins, outs), kind="linear", kernel=(), stride=(), padding=(), dilation=(), in_size=(), out_size=()
    )


def blocked(layer: Layer, batch: int) -> float:
    """Time in blocks of 16, a third more off the fast path: what processors do."""
    padded = math.ceil(layer.in_channels / 16) * math.ceil(layer.out_channels / 16) * 256
    slow_path = 1.33 if layer.in_channels % 4 or layer.out_channels % 4 else 1.0
    return batch * 1e-8 * slow_path * padded * math.prod(layer.kernel) * math.prod(layer.out_size)


def pair(before: Layer, after: Layer, time: Callable[[Layer, int], float], **side: object) -> Pair:
    first, second = time(before, 1), time(after, 1)
    return Pair("conv", Side(before, first, first), Side(after, second, second, **side))  # type: ignore[arg-type]


def setting(time: Callable[[Layer, int], float | None], total: float = 1.0, **more: object) -> Setting:
    return Setting("a runtime", time, total, **more)  # type: ignore[arg-type]


def test_odd_width() -> None:
    one = pair(conv(128, 128), conv(128, 113), blocked)
    found = find(one, setting(blocked))
    assert found.cause == "odd width" and "writes 113 channels, no multiple of 4" in found.detail
    assert "112 or 116 in place of 113" in found.remedy
    assert found.brings == pytest.approx(blocked(conv(128, 113), 1) - blocked(conv(128, 112), 1))


def test_an_odd_width_is_not_rounded_up_where_that_brings_nothing() -> None:
    """In blocks of 16 alone, 20 channels take two of them as 19 do, and 16 take one."""

    def blocks(layer: Layer, batch: int) -> float:
        return 1e-3 * math.ceil(layer.out_channels / 16) * math.ceil(layer.in_channels / 16)

    found = find(pair(conv(32, 32), conv(32, 19), blocks), setting(blocks))
    assert found.remedy == "keep 16 in place of 19 (prune: {step: 16}); 20 would bring nothing"
    assert found.brings == pytest.approx(blocks(conv(32, 16), 1))
    few = find(pair(conv(32, 32), conv(32, 3), blocked), setting(blocked))
    assert "keep 4 in place of 3" in few.remedy


def test_a_width_that_is_odd_for_others_alone_is_none() -> None:
    """Of images and linear layers, and on hardware that knows no such path."""
    image = pair(conv(3, 64), conv(3, 48), blocked)
    assert find(image, setting(lambda layer, batch: 1.0)).cause != "odd width"
    small = pair(linear(512, 10), linear(333, 10), lambda layer, batch: layer.macs * 1e-6)
    assert find(small, setting(lambda layer, batch: layer.macs * 1e-6)).cause != "odd width"


def test_below_the_step() -> None:
    found = find(pair(conv(128, 128), conv(128, 100), blocked), setting(blocked))
    assert (
        found.cause == "below the step" and found.detail == "writes 100 channels, and 112 cost a runtime the same time"
    )
    assert found.remedy == "go down to 96 channels, or take 112 back for nothing"
    assert found.brings == pytest.approx(blocked(conv(128, 100), 1) - blocked(conv(128, 96), 1))
    read = find(pair(conv(128, 128), conv(100, 128), blocked), setting(blocked))
    assert read.detail.startswith("reads 100 channels")


def test_below_the_lowest_step_there_is_nothing_to_gain() -> None:
    found = find(pair(conv(64, 64), conv(64, 12), blocked), setting(blocked))
    assert found.remedy == "take 16 back for nothing; fewer bring no time" and found.brings == 0


def test_no_more_is_taken_back_than_there_was() -> None:
    found = find(pair(conv(64, 104), conv(64, 100), blocked), setting(blocked))
    assert "112 cost a runtime the same" in found.detail and found.remedy.endswith("or take 104 back for nothing")
    uncut = find(pair(conv(64, 100), conv(64, 100), blocked), setting(blocked))
    assert uncut.remedy == "go down to 96 channels"
    deep = pair(conv(64, 16), conv(64, 3), blocked, bound="compute")
    found = find(deep, setting(lambda layer, batch: math.ceil(layer.out_channels / 16) * 1.0, modelled=True))
    assert found.remedy == "take 16 back for nothing; fewer bring no time"


def test_what_has_to_stay_is_left_alone() -> None:
    """Of a head: its classes are as odd as they are, and what it reads may become less."""
    head = pair(conv(128, 21), conv(100, 21), blocked, writes_fixed=True)
    found = find(head, setting(blocked))
    assert found.cause == "below the step" and found.detail.startswith("reads 100 channels")

    def moved(layer: Layer, batch: int) -> float:
        return 1e-6 * batch * (layer.in_channels + layer.out_channels) * math.prod(layer.out_size)

    image = find(pair(conv(6, 4, kernel=1), conv(6, 2, kernel=1), moved, reads_fixed=True), setting(moved))
    assert image.cause == "memory bound" and "let it write fewer channels (1 in place of 2)" in image.remedy
    stuck = pair(conv(6, 4, kernel=1), conv(6, 2, kernel=1), moved, reads_fixed=True, writes_fixed=True)
    assert find(stuck, setting(moved)).brings is None

    def dense(layer: Layer, batch: int) -> float:
        return 1e-6 * layer.macs

    head = pair(linear(64, 10), replace(linear(64, 10), density=0.25), dense, writes_fixed=True)
    found = find(head, setting(dense))
    assert "16 of the 64 that it reads" in found.remedy
    assert found.brings == pytest.approx(0.75 * dense(linear(64, 10), 1))
    head = pair(linear(64, 10), replace(linear(64, 10), density=0.25), dense, reads_fixed=True, writes_fixed=True)
    assert find(head, setting(dense)).brings is None


@given(st.integers(1, 60), st.integers(4, 40), st.integers(3, 20))
def test_a_modelled_step_is_found_wherever_it_lies(tread: int, width: int, passes: int) -> None:
    def time(layer: Layer, batch: int) -> float:
        return passes * math.ceil(layer.out_channels / tread) * 0.01 + layer.in_channels

    one = pair(conv(8, width), conv(8, width), time, bound="compute")
    found = find(one, setting(time, modelled=True))
    above = min(math.ceil(width / tread) * tread, 2 * width)
    if above > width * 1.02:
        assert found.cause == "below the step" and f"{above} cost" in found.detail
    else:
        assert found.cause != "below the step"


def test_memory_bound_by_weights_asks_for_larger_batches() -> None:
    def time(layer: Layer, batch: int) -> float:
        return 1e-7 * layer.in_channels * layer.out_channels * (1 + 0.01 * batch)

    found = find(pair(linear(4096, 4096), linear(2048, 4096), time), setting(time))
    assert found.cause == "memory bound" and "8,388,608 weights" in found.detail and "batches of 8" in found.remedy
    now = time(linear(2048, 4096), 1)
    assert found.brings == pytest.approx(now - time(linear(2048, 4096), 8) / 8)


def test_memory_bound_by_activations_asks_for_fewer_channels() -> None:
    def time(layer: Layer, batch: int) -> float:
        return 1e-6 * batch * (layer.in_channels + layer.out_channels) * math.prod(layer.out_size)

    depthwise = pair(conv(64, 64, groups=64), conv(48, 48, groups=48), time)
    found = find(depthwise, setting(time))
    assert found.cause == "memory bound" and "write fewer channels (24 in place of 48)" in found.remedy
    assert found.brings == pytest.approx(time(conv(48, 48, groups=48), 1) / 2)
    modelled = find(pair(conv(16, 64), conv(16, 32), time, bound="dram"), setting(time, modelled=True))
    assert modelled.cause == "memory bound" and "DRAM traffic" in modelled.detail


def test_launch_bound() -> None:
    def time(layer: Layer, batch: int) -> float:
        return 0.003 + 1e-9 * batch * layer.macs

    found = find(pair(conv(64, 64, 8), conv(16, 16, 8), time), setting(time))
    assert found.cause == "launch bound" and "with 4 channels on one position takes" in found.detail
    assert "rewrite: layers" in found.remedy
    now = time(conv(16, 16, 8), 1)
    assert found.brings == pytest.approx(now - time(conv(16, 16, 8), 8) / 8)
    modelled = find(pair(conv(64, 64), conv(16, 16), time, bound="launch"), setting(time, modelled=True))
    assert modelled.cause == "launch bound"


def test_depthwise_on_an_array() -> None:
    def time(layer: Layer, batch: int) -> float:
        return 0.01 * layer.groups

    one = pair(conv(64, 64, groups=64), conv(48, 48, groups=48), time, utilisation=0.002)
    found = find(one, setting(time, modelled=True, array_depthwise=True))
    assert found.cause == "depthwise on a systolic array" and "0.2 % of the multipliers work" in found.detail
    assert found.brings == pytest.approx(0.24)


def test_zeros_on_a_dense_engine() -> None:
    def time(layer: Layer, batch: int) -> float:
        return 1e-6 * layer.macs

    one = pair(conv(64, 64), conv(64, 64, density=0.25), time)
    found = find(one, setting(time))
    assert found.cause == "unstructured zeros on a dense engine" and found.detail.startswith(
        "75 % of its weights are zero"
    )
    assert found.brings == pytest.approx(0.75 * time(conv(64, 64), 1))
    assert find(one, setting(time, skips=True)).cause != "unstructured zeros on a dense engine"


def test_a_reference_kernel() -> None:
    one = pair(conv(64, 64), conv(32, 32), lambda layer, batch: 1.0, kernel="ref_any_f32")
    found = find(one, setting(lambda layer, batch: 1.0))
    assert found.cause == "fallback operator" and "ref_any_f32" in found.detail and found.brings is None


def test_what_nothing_explains_is_said_to_be_so() -> None:
    def rate(layer: Layer, batch: int) -> float:
        return 1e-6 * layer.macs**0.5

    found = find(pair(conv(64, 64), conv(32, 32), rate), setting(rate))
    assert found.cause == "no cause found" and found.brings is None and "4x less to compute, 2x as fast" in found.detail
    alone = pair(conv(64, 64), conv(32, 32), rate)
    before, after = alone.before, alone.after
    assert before and after
    alone = replace(alone, before=replace(before, alone=1.0), after=replace(after, alone=0.25))
    idle = replace(alone, before=replace(before, utilisation=0.5), after=replace(after, utilisation=0.2))
    assert "20 % of the multipliers work, before 50 %" in find(idle, setting(rate, modelled=True)).detail
    assert "alone it gains 4x, among its neighbours 2x" in find(alone, setting(rate)).detail
    same = replace(alone, before=before, after=replace(before, utilisation=0.2))  # which was not cut, and is dear
    assert find(same, setting(rate, modelled=True)).detail.endswith("much for its MACs (20 % of the multipliers work)")


def test_without_predictions_causes_are_told_and_gains_are_not() -> None:
    found = find(pair(conv(128, 128), conv(128, 113), blocked), setting(lambda layer, batch: None))
    assert found.cause == "odd width" and found.brings is None


def test_slow_are_those_that_lag_and_those_that_are_dear() -> None:
    def at(ms: float, layer: Layer, name: str, before: float, first: Layer) -> Pair:
        return Pair(name, Side(first, before), Side(layer, ms))

    good = at(0.25, conv(32, 32), "follows", 1.0, conv(64, 64))
    lags = at(0.60, conv(32, 32), "lags", 1.0, conv(64, 64))
    little = at(0.004, conv(32, 32), "little", 0.004, conv(64, 64))
    dear = at(0.10, conv(16, 16, kernel=1), "dear", 0.10, conv(16, 16, kernel=1))
    gone = Pair("gone", Side(conv(64, 64), 1.0), None)
    new = Pair("new", None, Side(conv(32, 32), 0.25))
    found = slow([good, little, dear, lags, gone, new], setting(blocked, total=1.2))
    assert [one.name for one in found] == ["lags", "dear"]
    slight = at(0.014, conv(32, 32), "slight", 0.04, conv(64, 64))
    assert slow([slight], setting(blocked, total=1.0)) == [], "what it lost is not worth a word"
    assert lags.lost == pytest.approx(0.35) and dear.lost == gone.lost == new.lost == 0


def test_other_counts_keep_to_the_groups() -> None:
    depthwise = widened(conv(32, 32, groups=32), outs=16)
    assert depthwise is not None and (depthwise.in_channels, depthwise.groups) == (16, 16)
    grouped = conv(32, 32, groups=4)
    assert widened(grouped, outs=18) is None and widened(grouped, outs=20) is not None
    assert tiny(conv(64, 64, groups=64)).groups == 4 and tiny(linear(64, 10)).in_size == ()
