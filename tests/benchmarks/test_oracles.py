"""The stored figures are of the layers that the scripts draw, and what the benchmarks make of them by hand."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

from penjing.targets import find

ROOT = Path(__file__).parents[2]


def script(monkeypatch, path):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location(f"benchmark_{Path(path).stem}", ROOT / "benchmarks" / path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_the_stored_layers_are_those_that_the_seed_draws(monkeypatch):
    module = script(monkeypatch, "oracles/scalesim_rows.py")
    stored = json.loads((ROOT / "tests/targets/figures/scalesim.json").read_text())["rows"]
    chance = random.Random(0)
    drawn = [module.draw(chance, dataflow) for _ in range(len(stored) // 3) for dataflow in module.DATAFLOWS]
    assert drawn == [row[: len(module.DRAWN)] for row in stored]


def test_every_layer_of_the_list_was_searched_on_both_accelerators(monkeypatch):
    module = script(monkeypatch, "oracles/zigzag_rows.py")
    stored = json.loads((ROOT / "benchmarks/results/oracles/zigzag.json").read_text())
    assert stored["columns"] == module.SHAPE + module.TOLD
    assert {tuple(row[:8]) for row in stored["rows"]} == {
        (*layer, name) for layer in module.LAYERS for name in ("edge_tpu_like", "eyeriss_like")
    }


@pytest.mark.parametrize("oracle", ["edge_tpu_like", "eyeriss_like"])
def test_energy_ranks_layers_as_zigzag_does(monkeypatch, oracle):
    module = script(monkeypatch, "against_oracles.py")
    stored = json.loads((ROOT / "benchmarks/results/oracles/zigzag.json").read_text())
    rows = [dict(zip(stored["columns"], row, strict=True)) for row in stored["rows"]]
    found = module.held(find(module.ORACLES[oracle]), [row for row in rows if row["accelerator"] == oracle])
    assert found["energy"]["rank_correlation"] > 0.95
    assert found["energy"]["rank_correlation"] > found["energy"]["rank_correlation_of_macs"]
    assert found["latency"]["rank_correlation"] > 0.8


def test_passes_of_a_mapping_by_hand(monkeypatch):
    module = script(monkeypatch, "eyeriss.py")
    layer = script(monkeypatch, "alone.py").square("conv3", 256, 384, 1, 3, 1, 13)
    work, sums = module.mapped(layer, module.PAPER["alexnet"].mappings["conv3"], 4)
    # 6 times 64 filters and 64 times 4 channels; a pass: 4 pictures, 13 columns, 3 taps, 4 channels, 16 filters.
    assert work == 6 * 64 * (4 * 13 * 3 * 4 * 16)
    assert sums == 4 * 384 * 13 * 13 * 64 / 4
