"""Few bits on hardware: by hand, and never more when a bit goes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.core.layers import Layer
from penjing.core.plan import Plan
from penjing.core.registry import build
from penjing.graph.draft import Draft
from penjing.graph.trace import plain, trace
from penjing.rewrites.rounded import Rounded
from penjing.targets import find
from penjing.targets.accelerator import ZEROS, Accelerator
from penjing.targets.systolic import DATAFLOWS
from targets.drafts import Fake, conv
from tiny import tiny

CHIP = Accelerator(
    name="chip", rows=8, columns=4, dataflow="output_stationary", clock_hz=1e8, precision="fp32",
    mac_pj={"int8": 0.5, "fp16": 2.0, "fp32": 4.0}, speed={"int8": 4.0}, sram_bytes=1e6, sram_pj=2.0, dram_pj=100.0,
    dram_bandwidth=1e9, static_mw=10.0, resident=False,
)  # fmt: skip


def rounded(layer: Layer, bits: int, inputs: int, table: int = 0) -> Layer:
    if bits == 32:
        return layer
    return replace(layer, bits=bits, input_bits=inputs, stored_bits=bits * layer.weights + table)


def test_weights_alone_in_few_bits_save_traffic_and_flash_and_nothing_else() -> None:
    whole, few = conv(), rounded(conv(), 3, 32, table=64)
    before, after = (CHIP.estimate(Fake((layer,), parameters=5000)) for layer in (whole, few))
    saved = whole.weights * 4 - (3 * whole.weights + 64) / 8
    assert before.dram_bytes - after.dram_bytes == before.flash_bytes - after.flash_bytes == saved
    (one,), (other,) = before.rows, after.rows
    assert (one.cycles, one.sram_bytes, one.need_bytes) == (other.cycles, other.sram_bytes, other.need_bytes)
    assert one.dynamic_mj - other.dynamic_mj == pytest.approx(100 * saved * 1e-9)


def test_a_layer_that_reads_few_bits_as_well_is_computed_in_the_narrowest_precision() -> None:
    """M 64, K 144, N 32 on 8 x 4, four multiplications a cycle; values that are written stay as wide as they are."""
    layer = rounded(conv(), 4, 2)
    (row,) = CHIP.estimate(Fake((layer,))).rows
    sram = 64 * 144 * 8 + 144 * 32 * 8 + 4 * 64 * 32
    dram = 16 * 10 * 10 * 2 / 8 + 16 * 32 * 9 * 4 / 8 + 4 * 32 * 8 * 8
    assert row.cycles == (8 + 4 + 144 - 2) * 8 * 8 / 4
    assert (row.sram_bytes, row.dram_bytes) == (sram, dram)
    assert row.dynamic_mj == pytest.approx((layer.macs * 0.5 + sram * 2 + dram * 100) * 1e-9)
    for bits, energy in ((9, 2.0), (17, 4.0)):
        (row,) = replace(CHIP, sram_pj=0, dram_pj=0).estimate(Fake((rounded(conv(), 8, bits),))).rows
        assert row.dynamic_mj == pytest.approx(layer.macs * energy * 1e-9)


def test_codes_with_a_table_larger_than_what_they_save_lie_there_as_floats_do() -> None:
    chip = CHIP.at(precision="int8")
    whole, few = (chip.estimate(Fake((layer,))) for layer in (conv(), rounded(conv(), 8, 32, table=8192)))
    assert whole == few


def test_flash_of_a_microcontroller_holds_packed_weights_of_each_layer_once() -> None:
    chip = find("mcu_m7").at(precision="int8")
    layer = rounded(conv(), 2, 32)
    before, after = (chip.estimate(Fake(layers, parameters=5000)) for layers in ((conv(),) * 2, (layer,) * 2))
    assert before.flash_bytes - after.flash_bytes == layer.weights * 6 / 8
    assert before.sram_bytes == after.sram_bytes


def test_weights_that_fit_a_resident_chip_when_they_are_narrow_stay_there() -> None:
    chip = replace(CHIP, resident=True, sram_bytes=40_000)
    layers = [conv(), rounded(conv(), 8, 32), rounded(conv(), 8, 8)]
    held = [chip._held(Fake((layer,), parameters=4608, peak_elements=3648)) for layer in layers]
    assert held == [True] * 3
    held = [chip._held(Fake((layer,), parameters=9000, peak_elements=3648)) for layer in layers]
    assert held == [False, False, True]  # weights alone are unpacked to floats on the chip


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DATAFLOWS), st.sampled_from(ZEROS), st.sampled_from([3e3, 1e4, 1e6]), st.integers(2, 40),
    st.integers(2, 40), st.integers(1, 10), st.sampled_from([1, 3]), st.sampled_from(["int8", "fp16", "fp32"]),
    st.booleans(), st.booleans(), st.integers(0, 600), st.sampled_from([0.25, 1.0, 4.0]), st.floats(0.1, 9.0),
)  # fmt: skip
def test_no_layer_costs_more_when_a_bit_goes(
    flow: str, zeros: str, sram: float, ins: int, outs: int, out: int, kernel: int, precision: str, resident: bool,
    both: bool, table: int, speed: float, energy: float,
) -> None:  # fmt: skip
    """Also where the narrow precision is slower, or takes more energy, than that of floats."""
    chip = replace(
        CHIP, dataflow=flow, zeros=zeros, sram_bytes=sram, resident=resident, precision=precision,
        speed={"int8": speed}, mac_pj={**CHIP.mac_pj, "int8": energy},
    )  # fmt: skip
    layer = conv("a", ins, outs, out, kernel)
    found = []
    for bits in (32, 16, 9, 8, 7, 4, 2, 1):
        few = rounded(layer, bits, bits if both else 32, table)
        found.append(chip.estimate(Fake((few,), parameters=layer.weights + 9, peak_elements=out * out * (ins + outs))))
    for cost in ("latency", "energy", "sram", "dram_bytes", "flash"):
        values = [one.cost(cost) for one in found]
        assert all(after <= before for before, after in pairwise(values)), (cost, values)


@pytest.mark.parametrize(("method", "cost"), [("lsq", "energy"), ("lsq", "latency"), ("twn", "flash")])
def test_a_plan_of_bits_is_priced_by_a_target(method: str, cost: str) -> None:
    model, chip = plain(tiny()), find("mcu_m7").at(precision="fp32")
    graph = trace(model, (torch.randn(2, 3, 8, 8),), proof=False)
    change = build("rewrite", method)
    assert isinstance(change, Rounded)
    bits = min(change.quantizer.widths)
    sites = change.find(graph)
    plan = Plan.of(method, {site.name: range(bits) for site in sites}, sites)
    channels = Plan.of("channels", {graph.sites[0].name: range(graph.sites[0].size // 2)}, graph.sites)
    whole, less, both = (
        chip.estimate(Draft(graph, one, lambda: model)).cost(cost)
        for one in (Plan(), plan, Plan((*channels.entries, *plan.entries)))
    )
    assert both < less < whole
