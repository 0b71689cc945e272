"""Files of targets: what they say, and what is wrong with them in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from penjing.core.errors import PlanError, RecipeError
from penjing.core.plain import told as plain
from penjing.core.protocols import Target
from penjing.targets import find, names
from penjing.targets.accelerator import Accelerator
from penjing.targets.describe import USUAL, described, notes, told
from penjing.targets.read import ACCELERATOR, GROUPS, RUNTIME
from penjing.targets.runtime import Runtime
from targets.drafts import Fake

CHIP = """
kind: accelerator
about: My chip
rows: {value: 16, source: data sheet, confirmed: true}
columns: 8
dataflow: output_stationary
precision: int8
clock: 200 MHz
sram: {value: 64 KiB, source: data sheet}
dram_bandwidth: 32 bit * 200 MHz
frame_rate: 30 fps
"""

BOX = """
kind: runtime
runtime: onnxruntime
threads: 2
precision: fp32
cpu: some processor
layers: [{kind: conv, ms: 0.5}]
"""


def written(folder: Path, text: str, name: str = "chip.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_says_its_numbers_and_the_rest_stands_in(tmp_path: Path) -> None:
    chip = find(written(tmp_path, CHIP))
    assert isinstance(chip, Accelerator) and chip.name == "chip" and chip.about == "My chip"
    assert (chip.rows, chip.columns, chip.clock_hz, chip.sram_bytes) == (16, 8, 2e8, 65536)
    assert (chip.dram_bandwidth, chip.frame_rate, chip.vector, chip.zeros) == (8e8, 30, 8, "gated")
    assert (chip.mac_pj, chip.dram_pj) == ({"int8": 0.3}, 160) and chip.sram_pj == pytest.approx(1.25 * 8**0.5)
    marks = {one.key: one.mark for one in chip.numbers}
    assert marks["rows"] == "confirmed" and marks["columns"] == marks["sram"] == "assumed"
    assert marks["mac_energy.int8"] == marks["launch"] == "default" and marks["frame_rate"] == "chosen"
    assert find(str(tmp_path / "chip.yaml")) == chip


def test_a_machine_that_was_measured_keeps_its_table(tmp_path: Path) -> None:
    box = find(written(tmp_path, BOX))
    assert isinstance(box, Runtime) and (box.runtime, box.threads, box.precision) == ("onnxruntime", 2, "fp32")
    assert box.table == {"cpu": "some processor", "layers": [{"kind": "conv", "ms": 0.5}]}
    assert find("onnxruntime").table is None and find("onnxruntime").step is None
    assert box.at(batch=8).batch == 8 and box.at(threads=1).threads == 1
    with pytest.raises(RecipeError, match=r"threads of chip must be 1 or more; got 0"):
        box.at(threads=0)
    with pytest.raises(RecipeError, match=r"chip does not compute in 'int7'. Did you mean 'int8'\?"):
        box.at(precision="int7")
    with pytest.raises(RecipeError, match=r"tells no power"):
        box.at(frame_rate=30.0)
    with pytest.raises(PlanError, match=r"chip is measured, not modelled"):
        box.estimate(Fake())


def test_a_run_for_another_table_is_another_run(tmp_path: Path) -> None:
    one, same = (find(written(tmp_path, BOX)) for _ in range(2))
    other = find(written(tmp_path, BOX.replace("0.5", "0.6")))
    assert plain(one) == plain(same) != plain(other) and one.digest
    assert one.at(batch=2).digest == "" == find("onnxruntime").digest


TABLE = {
    "no unit": ("clock: 200 MHz", "clock: 200", "clock = 200 has no unit; a frequency is in Hz"),
    "another unit": ("clock: 200 MHz", "clock: 200 MB/s", "clock = '200 MB/s' is a bandwidth"),
    "a negative clock": ("clock: 200 MHz", "clock: -200 MHz", "clock = -200 MHz must be more than 0"),
    "a clock that stands": ("clock: 200 MHz", "clock: 0 Hz", "clock = 0 Hz must be more than 0"),
    "no clock": ("clock: 200 MHz\n", "", "clock is missing: clock of the multipliers, such as clock: 200 MHz"),
    "half a row": ("columns: 8", "columns: 8.5", "columns = 8.5 must be a whole number"),
    "an endless array": ("columns: 8", "columns: 1e12", "columns = 1e12 must be a whole number, of a billion"),
    "a memory without a tile": ("64 KiB", "100 B", "sram = 100 B holds no tile: 16 x 8 multipliers, output_stationary"),
    "an unknown dataflow": ("output_", "ouput_", "dataflow = 'ouput_stationary' is none of"),
    "a known one is meant": ("output_stationary", "weight_stationry", "Did you mean 'weight_stationary'?"),
    "no dataflow": ("dataflow: output_stationary\n", "", "dataflow is missing; it is one of output_stationary"),
    "a list for a word": ("output_stationary", "[a]", "dataflow = ['a'] is none of"),
    "an unknown key": ("columns", "colums", "there is no key 'colums'. Did you mean 'columns'?"),
    "an unknown part": ("source: data sheet}", "sourc: x}", "sram has no part 'sourc'. Did you mean 'source'?"),
    "a source that is none": ("source: data sheet}", "source: 3}", "sram: source must be text"),
    "no source to confirm": ("source: data sheet, ", "", "rows is confirmed, and by no source"),
    "a part without a value": ("value: 64 KiB, ", "", "sram = None is no number"),
    "an unknown kind": ("kind: accelerator", "kind: accelrator", "Did you mean 'accelerator'?"),
    "no kind": ("kind: accelerator\n", "", "kind is missing; it is one of accelerator, runtime"),
    "a number for a text": ("about: My chip", "about: 3", "about = 3 must be text"),
    "a switch that is none": ("columns: 8", "columns: 8\noverlap_load: maybe", "overlap_load = 'maybe' must be true"),
    "energy of a precision that there is not": (
        "columns: 8", "columns: 8\nmac_energy: {int7: 1 pJ}", "there is no mac_energy.int7. Did you mean 'int8'?"
    ),
    "no energy of its precision": (
        "columns: 8", "columns: 8\nmac_energy: {fp16: 1 pJ}", "precision is int8, and mac_energy has none for it"
    ),
    "energies that are none": ("columns: 8", "columns: 8\nmac_energy: 1 pJ", "mac_energy must hold key: value pairs"),
    "the speed of what it cannot": ("columns: 8", "columns: 8\nspeed: {fp32: 1}", "speed has fp32, and mac_energy"),
    "half the registers": ("columns: 8", "columns: 8\nregisters: {sums: 3}", "registers needs inputs, weights, sums"),
    "more than everything": ("columns: 8", "columns: 8\nefficiency: 120%", "efficiency = 120% must be 1 at most"),
    "a frame rate of none": ("30 fps", "0 fps", "frame_rate = 0 fps must be more than 0"),
    "a key twice": ("columns: 8", "columns: 8\ncolumns: 9", "the key 'columns' in line 6 is written twice"),
    "a bomb": (CHIP, "a: &a [1, 1]\nb: [*a, *a]", "uses YAML aliases"),
    "no keys": (CHIP, "- 1", "must hold key: value pairs"),
    "huge": (CHIP, "#" * 1_000_001, "that is not a target"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_is_wrong_is_one_sentence(name: str, tmp_path: Path) -> None:
    old, new, says = TABLE[name]
    assert old in CHIP
    path = written(tmp_path, CHIP.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        find(path)
    assert str(caught.value).startswith(str(path)) and says in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("runtime: onnxruntime", "", "runtime is missing"),
        ("threads: 2", "threads: 0", "threads = 0 must be more than 0"),
        ("precision: fp32", "precision: f32", "precision = 'f32' is none of fp32"),
        ("cpu:", "cpus:", "there is no key 'cpus'. Did you mean 'cpu'?"),
        ("threads: 2", "rows: 2", "there is no key 'rows'"),
    ],
)
def test_what_is_wrong_with_a_runtime_is_one_sentence(old: str, new: str, says: str, tmp_path: Path) -> None:
    path = written(tmp_path, BOX.replace(old, new, 1))
    with pytest.raises(RecipeError) as caught:
        find(path)
    assert str(caught.value).startswith(str(path)) and says in str(caught.value)


def test_a_name_that_there_is_not_is_told() -> None:
    with pytest.raises(RecipeError, match=r"There is no target 'eyeriss'. Did you mean 'eyeriss_v1'\?"):
        find("eyeriss")
    with pytest.raises(RecipeError, match=r"nowhere.yaml cannot be read"):
        find("nowhere.yaml")


ODD = [
    "[]", "{}", "{value: {value: 1}}", "[[1]]", "~", "''", ".nan", "-.inf", "1e999", "-0", "0x10", "1_0",
    "12:30", "2020-01-01", "!!binary aGk=", "!!set {a}", "yes", "'200 MHz '", "9999999999999999999999",
    "{value: 1 MHz, source: [a]}", "\"\\e[31m\"",
]  # fmt: skip


@pytest.mark.parametrize("key", [*ACCELERATOR, *GROUPS, "kind", "name", "about", "dataflow", "precision", "zeros"])
def test_whatever_stands_there_is_read_or_refused(key: str, tmp_path: Path) -> None:
    lines = [line for line in CHIP.splitlines() if not line.startswith(f"{key}:")]
    for odd in ODD:
        path = written(tmp_path, "\n".join([*lines, f"{key}: {odd}"]))
        try:
            assert isinstance(find(path), Accelerator)
        except RecipeError as error:
            assert str(error).startswith(str(path)), odd


WANTED = {"eyeriss_v1", "edge_tpu_like", "nvdla_small", "nvdla_full", "gemmini_default", "mcu_m7", "onnxruntime"}


def test_presets_are_there() -> None:
    assert set(names()) >= WANTED | {"openvino"}


@pytest.mark.parametrize("name", names())
def test_a_preset_is_what_a_target_must_be(name: str) -> None:
    target: Target = find(name)
    assert target.name == name and target.batch == 1 and target.tells and bool(target.runtime) == (name not in MODELLED)
    for one in target.numbers:
        assert one.source or one.mark != "confirmed"
        low, high = USUAL.get(one.key.partition(".")[0], (0.0, float("inf")))
        assert low <= one.value <= high, one
        assert one.key in described(target)
    facts = told(target)
    assert facts["about"] and all(one["means"] for one in facts["numbers"])


MODELLED = WANTED - {"onnxruntime"}


def test_every_number_is_of_a_known_quantity() -> None:
    from penjing.targets.units import QUANTITIES

    for key, what in {**ACCELERATOR, **GROUPS, **RUNTIME}.items():
        assert what.quantity in QUANTITIES and what.help, key


def test_what_to_look_at_twice_is_told(tmp_path: Path) -> None:
    chip = find(written(tmp_path, CHIP.replace("200 MHz\nsram", "200 kHz\nsram")))
    said = " ".join(notes(chip))
    assert "Nobody confirmed: columns, clock, sram, dram_bandwidth." in said
    assert "The file does not say: layer_bytes, code, launch, efficiency, power, mac_energy.int8" in said
    assert "clock = 200 kHz: 1 MHz to 5 GHz is usual; is the unit right?" in said
    assert "Its peak is 0.0256 GMAC/s in int8" in said and "fewer than 0.032 MACs a byte" in said
