"""What networks cost on hardware: by hand, by known answers, and never more when a channel goes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from penjing.core.errors import PlanError, RecipeError
from penjing.core.layers import Traffic
from penjing.core.plan import Plan
from penjing.graph.draft import Draft
from penjing.graph.graph import Graph
from penjing.graph.trace import plain, trace
from penjing.rewrites.channels import channels
from penjing.targets import find, names
from penjing.targets.accelerator import ZEROS, Accelerator
from penjing.targets.estimate import COSTS, UNITS
from penjing.targets.runtime import Runtime
from penjing.targets.systolic import DATAFLOWS
from penjing.zoo import resnet56
from targets.drafts import Fake, conv, linear

CHIP = Accelerator(
    name="chip", rows=8, columns=4, dataflow="output_stationary", clock_hz=1e8, precision="int8",
    mac_pj={"int8": 0.5, "fp16": 2.0}, sram_bytes=1e6, sram_pj=2.0, dram_pj=100.0, dram_bandwidth=1e9,
    sram_bandwidth=1e10, static_mw=10.0, vector=4.0,
)  # fmt: skip
MODELLED = [name for name in names() if not isinstance(find(name), Runtime)]
NEVER_RISE = ("latency", "energy", "power", "sram", "dram_bytes", "flash")
"""At a frame rate; back to back, a faster network may draw more power."""


def test_a_layer_by_hand() -> None:
    """M 64, K 144, N 32 on 8 x 4."""
    (row,) = CHIP.estimate(Fake((conv(),))).rows
    macs, cycles = 64 * 144 * 32, (8 + 4 + 144 - 2) * 8 * 8
    sram = 64 * 144 * 8 + 144 * 32 * 8 + 64 * 32
    dram = 16 * 10 * 10 + 16 * 32 * 9 + 32 * 8 * 8
    ms = cycles / 1e8 * 1e3
    assert (row.name, row.kind, row.macs, row.cycles, row.bound) == ("conv", "conv", macs, cycles, "compute")
    assert (row.sram_bytes, row.dram_bytes) == (sram, dram)
    assert row.latency_ms == pytest.approx(ms) and row.utilisation == pytest.approx(macs / cycles / 32)
    dynamic = (macs * 0.5 + sram * 2 + dram * 100) * 1e-9
    assert row.energy_mj == pytest.approx(dynamic + 10 * ms * 1e-3)
    assert row.power_mw == pytest.approx(dynamic / ms * 1e3 + 10)


def test_whatever_is_slowest_bounds_a_layer() -> None:
    draft = Fake((conv(),))
    for changes, bound in (
        ({"dram_bandwidth": 1e6}, "dram"),
        ({"sram_bandwidth": 1e7}, "sram"),
        ({"launch_ms": 1e3}, "launch"),
    ):
        (row,) = replace(CHIP, **changes).estimate(draft).rows
        assert row.bound == bound
    assert row.latency_ms == pytest.approx(1e3 + 64 * 154 / 1e8 * 1e3)


def test_groups_run_one_after_the_other() -> None:
    one, eight = (CHIP.estimate(Fake((conv(ins=8 * g, outs=4 * g, groups=g),))).rows[0] for g in (1, 8))
    assert eight.cycles == 8 * one.cycles and eight.dram_bytes == 8 * one.dram_bytes and eight.macs == 8 * one.macs


def test_depthwise_may_run_on_the_vector_unit() -> None:
    layer = conv(ins=32, outs=32, groups=32)
    array, vector = (replace(CHIP, depthwise=how).estimate(Fake((layer,))).rows[0] for how in ("array", "vector"))
    assert array.cycles == 32 * (8 + 4 + 9 - 2) * 8 and vector.cycles == layer.macs / 4
    assert vector.utilisation == 0 and vector.dram_bytes == array.dram_bytes
    (grouped,) = replace(CHIP, depthwise="vector").estimate(Fake((conv(ins=32, outs=32, groups=16),))).rows
    assert grouped.utilisation > 0


def test_passes_cost_time_and_traffic_and_a_concatenation_does_not() -> None:
    add = Traffic("add", "elementwise", "add", 400, 200, 200)
    cat = Traffic("cat", "move", "cat", 400, 400, 0)
    rows = replace(CHIP, dram_bandwidth=1e12).estimate(Fake(passes=(add, cat))).rows
    assert (rows[0].cycles, rows[0].dram_bytes, rows[0].macs) == (50, 600, 0)
    assert (rows[1].latency_ms, rows[1].energy_mj, rows[1].dram_bytes) == (0, 0, 0)


def test_a_layer_without_channels_costs_nothing() -> None:
    chip = replace(CHIP, launch_ms=1.0)
    for layer in (replace(conv(), in_channels=0), replace(conv(), out_channels=0, groups=0)):
        found = chip.estimate(Fake((layer,), parameters=0, peak_elements=0))
        assert all(found.cost(name) == 0 for name in COSTS)


def test_zeros_take_energy_or_time_or_neither() -> None:
    draft = Fake((conv(ins=64, density=0.25),))
    dense, gated, skipped = (replace(CHIP, zeros=how).estimate(draft).rows[0] for how in ZEROS)
    assert dense.cycles == gated.cycles > 1.5 * skipped.cycles
    spared = 0.75 * dense.macs * 0.5e-9
    assert dense.energy_mj - gated.energy_mj == pytest.approx(spared) and skipped.energy_mj < gated.energy_mj


def test_precision_batch_and_frame_rate_are_asked_for() -> None:
    draft = Fake((conv(), linear()))
    half, two, slow = CHIP.at(precision="fp16"), CHIP.at(batch=2), CHIP.at(frame_rate=5.0)
    base = CHIP.estimate(draft)
    assert (
        half.estimate(draft).dram_bytes
        == 2 * base.dram_bytes
        == 2 * half.at(precision="int8").estimate(draft).dram_bytes
    )
    assert base.latency_ms < two.estimate(draft).latency_ms < 2 * base.latency_ms
    assert base.power_mw == pytest.approx(base.energy_mj / base.latency_ms * 1e3)
    dynamic = base.energy_mj - 10 * base.latency_ms * 1e-3
    assert slow.estimate(draft).power_mw == pytest.approx(10 + 5 * dynamic)
    assert replace(CHIP, speed={"int8": 0.5}).estimate(draft).rows[0].cycles == 2 * base.rows[0].cycles
    assert base.peak_power_mw == max(row.power_mw for row in base.rows)
    for wrong, says in (({"precision": "fp3"}, "fp3"), ({"batch": 0}, "batch"), ({"frame_rate": 0.0}, "frame rate")):
        with pytest.raises(RecipeError, match=says):
            CHIP.at(**wrong)


def test_a_layer_that_fits_nowhere_is_named() -> None:
    with pytest.raises(PlanError, match=r"^big does not fit chip: its smallest tile takes 9,\d+ bytes"):
        replace(CHIP, sram_bytes=1000).estimate(Fake((conv("big", kernel=49, out=2),)))


@pytest.mark.parametrize(
    ("precision", "sram", "flash"),
    [("fp32", 196_608, 3_412_072), ("int16", 98_304, 1_706_036), ("int8", 49_152, 853_018)],
)
def test_resnet56_on_a_microcontroller(precision: str, sram: int, flash: int, resnet: Graph) -> None:
    """Two maps of 16 x 32 x 32 and their sum are alive at once, and the weights lie in flash."""
    chip = find("mcu_m7").at(precision=precision)
    found = chip.estimate(Draft(resnet, Plan(), nn.Identity))
    assert (found.sram_bytes, found.flash_bytes, found.dram_bytes) == (sram, flash, 0)
    assert found.power_mw == pytest.approx(430) and chip.limits == {"sram": 1e6, "flash": 2e6}
    assert sum(row.macs for row in found.rows) == 125_485_696


@pytest.fixture(scope="module")
def resnet() -> Graph:
    return trace(plain(resnet56()), (torch.randn(2, 3, 32, 32),), proof=False)


@pytest.mark.parametrize("name", MODELLED)
def test_an_estimate_adds_up(name: str, resnet: Graph) -> None:
    chip = find(name)
    found = chip.estimate(Draft(resnet, Plan(), nn.Identity))
    assert set(chip.tells) == set(UNITS) == set(COSTS) and chip.runtime == "" and chip.step >= 1
    assert sum(row.latency_ms for row in found.rows) == pytest.approx(found.cost("latency"))
    assert sum(row.energy_mj for row in found.rows) == pytest.approx(found.cost("energy"))
    assert all(0 <= row.utilisation <= 1 for row in found.rows)
    assert all(np.isfinite(found.cost(cost)) and found.cost(cost) >= 0 for cost in COSTS)
    assert (
        found
        == chip.estimate(Draft(resnet, Plan(), nn.Identity))
        == find(name).estimate(Draft(resnet, Plan(), nn.Identity))
    )


@pytest.mark.parametrize("name", MODELLED)
def test_nothing_costs_more_when_a_channel_goes(name: str, traced: Graph) -> None:
    chip = find(name).at(frame_rate=10.0)
    kept = {site.name: np.arange(site.size) for site in channels().find(traced)}
    found = [chip.estimate(Draft(traced, Plan(), nn.Identity))]
    for site in channels().find(traced):
        while len(kept[site.name]) > 1:
            kept[site.name] = kept[site.name][1:]
            plan = Plan.of("channels", kept, traced.sites)
            found.append(chip.estimate(Draft(traced, plan, nn.Identity)))
    for cost in NEVER_RISE:
        values = [one.cost(cost) for one in found]
        assert all(after <= before for before, after in pairwise(values)), (cost, values)


@pytest.fixture(scope="module")
def traced() -> Graph:
    """A residual stream, a depthwise convolution, zeros in a weight, a linear layer."""
    from contracts.conftest import Net

    torch.manual_seed(0)
    model = plain(Net())
    with torch.no_grad():
        model.expand.weight[:6] = 0
    return trace(model, (torch.randn(2, 3, 8, 8),), proof=False)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DATAFLOWS), st.sampled_from(ZEROS), st.booleans(), st.integers(1, 16), st.integers(1, 16),
    st.sampled_from([2e3, 1e4, 1e6]), st.integers(2, 70), st.integers(2, 70), st.integers(1, 12),
    st.sampled_from([1, 3]), st.integers(1, 2), st.integers(0, 1000), st.booleans(), st.booleans(),
)  # fmt: skip
def test_no_layer_costs_more_when_a_channel_goes(
    flow: str, zeros: str, overlap: bool, rows: int, columns: int, sram: float, ins: int, outs: int, out: int,
    kernel: int, stride: int, left: int, of_ins: bool, resident: bool,
) -> None:  # fmt: skip
    """Also where the channel that goes held nothing but zeros."""
    chip = replace(
        CHIP, dataflow=flow, zeros=zeros, overlap_load=overlap, resident=resident, rows=rows, columns=columns,
        sram_bytes=sram,
    )  # fmt: skip
    weights, small = ins * outs * kernel**2, (ins - of_ins, outs - (not of_ins))
    rest = small[0] * small[1] * kernel**2
    nonzero = min(weights * left // 1000, rest)
    before = conv("a", ins, outs, out, kernel, stride, density=nonzero / weights)
    after = conv("a", *small, out, kernel, stride, density=nonzero / rest)
    (whole,), (less,) = (chip.estimate(Fake((layer,))).rows for layer in (before, after))
    for what in ("cycles", "sram_bytes", "dram_bytes", "need_bytes", "latency_ms", "energy_mj"):
        assert getattr(less, what) <= getattr(whole, what), what


def test_the_step_reaches_counts_that_just_fit() -> None:
    """144 rows are filled by 16 channels of a 3 x 3 kernel."""
    grid = {"dataflow": "weight_stationary", "rows": 144, "columns": 64}
    assert replace(CHIP, **grid).step == 16 and replace(CHIP, **grid | {"rows": 64}).step == 1
    assert CHIP.step == 1


def test_what_fits_a_resident_target_does_not_cross() -> None:
    """A layer of 8 x 8 pixels, 16 channels to 32: 3,072 bytes of activations, 4,608 of weights."""
    layer = conv("a", 16, 32, 8, 3)
    for sram, parameters, crossing in ((1e6, 4608, 0), (1e6, 2_000_000, 4608), (2500, 4608, None)):
        draft = Fake((layer,), parameters=parameters, peak_elements=3072)
        apart, kept = (
            replace(CHIP, sram_bytes=sram, resident=resident).estimate(draft).dram_bytes for resident in (False, True)
        )
        assert kept == (apart if crossing is None else crossing) and apart >= 4608 + 3072


def test_on_a_resident_array_only_what_fills_its_rows_costs_time() -> None:
    """64 x 64 multipliers hold 64 output channels at once, whatever their number, and 7 input channels of a 3 x 3."""
    chip = find("edge_tpu_like")
    assert isinstance(chip, Accelerator) and chip.resident

    def time(ins: int, outs: int) -> float:
        draft = Fake((conv("a", ins, outs, 8, 3),), parameters=9 * ins * outs, peak_elements=64 * (ins + outs))
        return chip.estimate(draft).latency_ms

    assert time(32, 8) == time(32, 64) < time(32, 65)
    assert time(29, 32) == time(35, 32) < time(36, 32) and time(28, 32) < time(29, 32)
