"""What is wrong is refused in one sentence that names it, with the right exit code, and leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from broken import line_of
from penjing.cli import app
from penjing.exporting import bundle
from tiny import pictures, tiny

RECIPE = """
model: tiny:tiny
data: pictures
budget: {macs: 0.6x}
steps:
  - prune: {criterion: l1}
  - export
  - check
"""


@dataclass(frozen=True)
class Row:
    """A command that is wrong: its words, what the sentence says, and what lies on the desk beforehand."""

    words: tuple[str, ...]
    says: tuple[str, ...]
    desk: Callable[[], object] = lambda: None
    code: int = 2


def compress(
    *says: str, model: str = "tiny:tiny", data: str = "pictures", budget: str = "macs=0.6x", more: tuple[str, ...] = (),
    desk: Callable[[], object] = lambda: None, code: int = 2,
) -> Row:  # fmt: skip
    words = ("compress", model, data, "--budget", budget, "--criterion", "l1", "--epochs", "0", "--quiet", *more)
    return Row(words, says, desk, code)


def recipe(old: str, new: str, *says: str) -> Row:
    assert old in RECIPE

    def desk() -> None:
        Path("r.yaml").write_text(RECIPE.replace(old, new))

    return Row(("run", "r.yaml", "--quiet"), says, desk)


# ------------------------------------------------------------------------------------------------------ what is made


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[], object]:
    return lambda: save_file(change(dict(tiny().state_dict())), "w.safetensors")


class Harm:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harm"),)


def harmful() -> None:
    Path("w.pt").write_bytes(pickle.dumps(Harm()))


def harmful_npz() -> None:
    x = np.zeros((9, 8, 8, 3), np.uint8)
    for part in ("train", "test"):
        np.savez(folder("bad") / f"{part}.npz", x=x, y=np.array([Harm()] * 9, dtype=object))


def folder(name: str) -> Path:
    place = Path(name)
    place.mkdir(parents=True, exist_ok=True)
    return place


def npz(x: tuple[int, ...], y: list[int], test: list[int] | None = None) -> Callable[[], None]:
    def make() -> None:
        np.savez(folder("bad") / "train.npz", x=np.zeros(x, np.uint8), y=np.array(y))
        labels = np.array([0, 1, 2] if test is None else test)
        np.savez(folder("bad") / "test.npz", x=np.zeros((len(labels), 8, 8, 3), np.uint8), y=labels)

    return make


def classes(*names: str, count: int = 5) -> None:
    from PIL import Image

    for c, name in enumerate(names):
        for i in range(count):
            Image.fromarray(np.full((8, 8, 3), 40 * c + i, np.uint8)).save(folder(f"bad/{name}") / f"{i}.png")


def empty_class() -> None:
    classes("cat", "dog")
    folder("bad/owl")


def corrupt() -> None:
    classes("cat", "dog")
    file = Path("bad/dog/3.png")
    file.write_bytes(file.read_bytes()[:40])


def odd_names() -> None:
    classes("cat")
    folder("bad/\x1b[31mdog\nhouse")


def tampered() -> None:
    place = bundle.write("b.penjing", tiny(), builder="tiny:tiny", inputs=[[3, 8, 8]])
    packed = bytearray((place / bundle.WEIGHTS).read_bytes())
    packed[-1] ^= 1
    (place / bundle.WEIGHTS).write_bytes(packed)


def spoilt() -> None:
    model = tiny()
    torch.nn.init.constant_(model.bn1.bias, torch.nan)
    bundle.write("b.penjing", model, builder="tiny:tiny", inputs=[[3, 8, 8]])


def stranger() -> None:
    Path("stranger.py").write_text("import pathlib\npathlib.Path('harm').touch()\n")
    bundle.write("b.penjing", tiny(), builder="stranger:build", inputs=[[3, 8, 8]])


def without(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda given: {key: value for key, value in given.items() if key != name}


CHIP = """
kind: accelerator
rows: 16
columns: 8
dataflow: output_stationary
precision: int8
clock: 200 MHz
sram: 64 KiB
"""

BOX = """
kind: runtime
runtime: onnxruntime
version: "0.1"
cpu: An abacus
fit: {linear: {read_step: 1, write_step: 1, ms: {macs: 0.1}}}
layers: {8>8: 0.1}
"""


def target(old: str, new: str, *says: str, text: str = CHIP) -> Row:
    assert old in text

    def desk() -> None:
        Path("t.yaml").write_text(text.replace(old, new))

    return Row(("target", "check", "t.yaml"), says, desk)


TABLE = {
    # The hardware.
    "a negative clock": target("200 MHz", "-200 MHz", "t.yaml: clock = -200 MHz must be more than 0"),
    "a clock that is no number": target("200 MHz", ".nan", "t.yaml: clock = nan is no number", "200 MHz"),
    "an endless clock": target("200 MHz", "1e999 GHz", "t.yaml: clock = '1e999 GHz' is too large"),
    "no unit": target("200 MHz", "200", "t.yaml: clock = 200 has no unit"),
    "units of two kinds": target("200 MHz", "200 MHz GHz", "t.yaml: clock = '200 MHz GHz' is no number"),
    "a unit of another quantity": target("64 KiB", "64 KiB/s", "t.yaml: sram = '64 KiB/s' is a bandwidth"),
    "less memory than a tile": target("64 KiB", "64 B", "t.yaml: sram = 64 B holds no tile", "give more sram"),
    "an unknown dataflow": target("output_s", "ouput_s", "t.yaml: dataflow", "Did you mean 'output_stationary'"),
    "a list deep inside": target("rows: 16", "rows: {value: [16]}", "t.yaml: rows = [16] is no number"),
    "a key of hardware twice": target("rows: 16", "rows: 16\nrows: 9", "t.yaml: the key 'rows' in line 4"),
    "a bomb": target("rows: 16", "rows: &a [1]\nx: [*a, *a]", "t.yaml uses YAML aliases"),
    "a huge target": target(CHIP, "#" * 2_000_000, "t.yaml has more than 1,000,000 bytes"),
    "a tag with nothing in it": target("rows: 16", "rows: !!int ''", "t.yaml, line 3, is not YAML: '' is no int"),
    "a folder of hardware": Row(("target", "check", "t.yaml"), ("t.yaml cannot be read: it is a folder",),
                                lambda: folder("t.yaml")),
    "a pipe": Row(("target", "check", "t.yaml"), ("t.yaml cannot be read", "a pipe"), lambda: os.mkfifo("t.yaml")),
    "a device": Row(("target", "check", "/dev/zero"), ("/dev/zero cannot be read", "a device")),
    "a table's step that is none": target("read_step: 1", "read_step: .inf", "fit.linear.read_step = inf", text=BOX),
    "a table's term that is none": target("0.1}}", "-0.1}}", "t.yaml: fit.linear.ms.macs = -0.1 is no time", text=BOX),
    "a table's layer that is none": target("8>8", "8>>8", "t.yaml: layers: '8>>8' is no layer", text=BOX),
    "a table without layers": target("layers: {8>8: 0.1}", "layers: [8]", "t.yaml: layers = [8] must hold", text=BOX),
    "runs that are none": target("layers", "runs: 3\nlayers", "t.yaml: runs = 3 must be a list", text=BOX),
    # The model.
    "unknown network": compress("'resnet57'", "Did you mean 'resnet5", model="resnet57"),
    "unknown builder": compress("Did you mean 'tiny'", model="tiny:tinny"),
    "unknown module": compress("no module 'nowhere'", "PYTHONPATH", model="nowhere:net"),
    "builder that raises": compress("broken:raising", "FileNotFoundError: no config net.toml", model="broken:raising"),
    "builder that leaves": compress("broken:leaving", "usage: net.py CONFIG", model="broken:leaving"),
    "builder without a module": compress("broken:nothing returned NoneType", model="broken:nothing"),
    "NaN weights": compress("body.weight", "NaN", "earlier checkpoint", model="broken:Unfinite"),
    "control flow on data": compress(line_of("control flow"), "torch.where", model="broken:Choosing"),
    "no ONNX form": compress(line_of("no ONNX"), "aten._linalg_svd", "simpler ones", model="broken:Unexportable"),
    "nothing that we can prove": compress("stem takes part in sort over its channels", model="broken:Sorting"),
    # Its weights.
    "weights that lack a tensor": compress(
        "w.safetensors", "lacks 1 tensor (bn1.bias)", more=("--weights", "w.safetensors"),
        desk=weights(without("bn1.bias")),
    ),
    "weights of another width": compress(
        "linear.weight is [3, 8]", more=("--weights", "w.safetensors"),
        desk=weights(lambda given: given | {"linear.weight": torch.zeros(3, 8)}),
    ),
    "weights that are not finite": compress(
        "1 tensor (stem.weight)", more=("--weights", "w.safetensors"),
        desk=weights(lambda given: given | {"stem.weight": given["stem.weight"] / 0}),
    ),
    "weights with code in them": compress(
        "w.pt is refused", "can run code", "safetensors", more=("--weights", "w.pt"), desk=harmful
    ),
    "no such weights": compress("no weights file w.pt", more=("--weights", "w.pt")),
    # The data.
    "no such folder": compress("/nowhere does not exist", data="/nowhere"),
    "data that is a file": compress("is a file", "mine.txt", data="mine.txt"),
    "an empty class": compress("bad/owl has no pictures", data="bad", desk=empty_class),
    "a corrupt picture": compress("bad/dog/3.png", data="bad", desk=corrupt),
    "one class": compress("one class only ('cat')", data="bad", desk=lambda: classes("cat")),
    "a name that a terminal obeys": compress(r"bad/\x1b[31mdog house has no pictures", data="bad", desk=odd_names),
    "labels beyond the classes": compress(
        "bad/test.npz", "label 7", data="bad", desk=npz((9, 8, 8, 3), [0, 1, 2] * 3, [0, 1, 7])
    ),
    "a label below 0": compress("bad/train.npz", "label -1", data="bad", desk=npz((9, 8, 8, 3), [-1, 1, 0] * 3)),
    "more classes than outputs": compress(
        "3 outputs", "labels go up to 8", data="bad", desk=npz((27, 8, 8, 3), [*range(9)] * 3, [*range(9)])
    ),
    "pictures of another shape": compress(
        "bad/train.npz", "channels first", data="bad", desk=npz((9, 3, 8, 8), [0, 1, 2] * 3)
    ),
    "pictures without a shape": compress("x is [9]", data="bad", desk=npz((9,), [0, 1, 2] * 3)),
    "labels of another length": compress("9 pictures need integers [9]", data="bad", desk=npz((9, 8, 8, 3), [0, 1])),
    "labels with code in them": compress("bad/train.npz holds Python objects", data="bad", desk=harmful_npz),
    "too few to validate on": compress(
        "val = 0.9", "3 pictures", data="bad", more=("--val", "0.9"), desk=npz((3, 8, 8, 3), [0, 1, 2])
    ),
    # The budget.
    "an unknown cost": compress("Did you mean 'macs'", budget="mac=0.5x"),
    "another unit": compress("macs is counted in MACs, not in 'ms'", budget="macs=5ms"),
    "a negative bound": compress("macs=-3 is negative", budget="macs=-3"),
    "a bound twice": compress("macs is bounded twice: 0.5x and 0.6x", budget="macs=0.5x,macs=0.6x"),
    "an endless bound": compress("9 a b is not a bound", budget=f"macs={'9' * 9_000} a b"),
    "a bound that asks for nothing": compress("params=2x asks for nothing", budget="params=2x"),
    "a bound below what is reachable": compress(
        "macs 0.0001x", "lowest reachable 25.4 k", "Raise the bound", budget="macs=0.0001x", code=1
    ),
    "bounds of which one is out of reach": compress(
        "params 10", "lowest reachable", budget="macs=0.5x,params=10", code=1
    ),
    # How it is done.
    "an unknown criterion": compress("'taylor'", more=("--criterion", "tailor")),
    "an absurd learning rate": compress(
        "diverged in epoch 1", "learning rate 1e+30", "Try lr=1e+29", more=("--epochs", "1", "--lr", "1e30")
    ),
    "more threads than cores": compress("100000 threads", "cores", more=("--threads", "100000")),
    "more than memory holds": compress("A batch of 1000000000000", "memory", more=("--batch", "1000000000000")),
    # Recipes.
    "a misspelt key": recipe("steps:", "stepps:", "unknown key 'stepps'. Did you mean 'steps'"),
    "a misspelt step": recipe("- prune", "- prone", "no step 'prone'. Did you mean 'prune'"),
    "a misspelt option": recipe("criterion", "criterio", "Did you mean 'criterion'"),
    "a list in place of a name": recipe("criterion: l1", "criterion: [l1]", "['l1'] is no criterion"),
    "no steps": recipe(RECIPE, "model: tiny:tiny\ndata: pictures", "r.yaml", "needs 'steps'"),
    "not YAML": recipe("model: tiny:tiny", "model: [", "r.yaml", "is not YAML"),
    "not text": recipe("model: tiny:tiny", "model: \0", "r.yaml", "is not YAML"),
    "aliases": recipe("model: tiny:tiny", "model: &a x\nweights: *a", "r.yaml", "aliases"),
    "a list": recipe(RECIPE, "- 1", "r.yaml", "key: value pairs"),
    "a later version": recipe("model:", "penjing: 9\nmodel:", "r.yaml", "recipe version 9"),
    "a key that is no name": recipe("model:", "? [a]\n: 1\nmodel:", "r.yaml", "the key in line 2 is no name"),
    "a budget in a budget": recipe("0.6x", "{at most: 3}", "macs={'at most': 3} is not a bound"),
    "huge": recipe(RECIPE, "#" * 2_000_000, "r.yaml", "1,000,000 bytes"),
    "deep": recipe(RECIPE, "[" * 100_000, "r.yaml is nested more than 100 deep"),
    "no recipe": Row(("run", "nowhere.yaml"), ("nowhere.yaml",)),
    # What is there already.
    "a file in the way": compress("mine.txt cannot be made or written to", more=("--out", "mine.txt")),
    "a tampered bundle": Row(("export", "b.penjing", "--builder", "tiny:tiny"), ("checksums differ",), tampered),
    "a bundle that is not finite": Row(
        ("export", "b.penjing", "--builder", "tiny:tiny"), ("NaN or infinity in bn1.bias",), spoilt
    ),
    "a stranger's builder": Row(("export", "b.penjing"), ("stranger:build", "--trust"), stranger),
    "no bundle": Row(("export", "nowhere"), ("no bundle nowhere",)),
    "no file to measure": Row(("bench", "nowhere.onnx"), ("nowhere.onnx",)),
    "nothing of that kind": Row(("list", "criterias"), ("Did you mean 'criteria'",)),
}  # fmt: skip


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The user's folder: good pictures, and a file of their own."""
    place = tmp_path / "desk"
    (place / "pictures").mkdir(parents=True)
    pictures(place / "pictures")
    (place / "mine.txt").write_text("mine")
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return place


def lying(place: Path) -> dict[str, bytes]:
    """Return everything below a folder."""
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else b"" for p in place.rglob("*")}


def polite(said: str) -> None:
    """Check the form of what is said."""
    assert said.startswith("penjing: ") and len(said.splitlines()) == 1, said
    assert "Traceback" not in said and said.strip().isprintable() and said.strip().endswith((".", "?", ")")), said


@pytest.mark.parametrize("name", TABLE)
def test_what_is_wrong_is_one_sentence(name, desk):
    row = TABLE[name]
    row.desk()
    before = lying(desk.parent)
    out = (
        ()
        if "--out" in row.words or row.words[0] in ("inspect", "bench", "resume", "list", "target")
        else ("--out", "out")
    )
    done = CliRunner().invoke(app, [*row.words, *out])
    assert done.exit_code == row.code, (done.output, done.exception)
    polite(done.stderr)
    for words in row.says:
        assert words in done.stderr
    assert lying(desk.parent) == before, "nothing is left, changed or run"


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_an_interrupted_run_says_how_to_go_on(desk, monkeypatch):
    monkeypatch.setattr("penjing.api.gather", interrupted)
    words = compress().words
    done = CliRunner().invoke(app, [*words, "--out", "out"])
    assert done.exit_code == 130
    polite(done.stderr)
    assert "penjing resume" in done.stderr and (desk / "out" / "unfinished" / "run.json").exists()


def test_an_interrupted_frontier_is_gone_on_with_by_resume(desk, monkeypatch):
    words = ["frontier", "tiny:tiny", "pictures", "--cost", "macs", "--shares", "0.8", "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr("sys.argv", ["penjing", *words])
        patch.setattr("penjing.api.swept", interrupted)
        done = CliRunner().invoke(app, [*words, "--out", "out"])
    assert done.exit_code == 130 and "penjing resume" in done.stderr, done.output
    done = CliRunner().invoke(app, ["resume", "out"])
    assert done.exit_code == 0, done.output
    assert (desk / "out" / "frontier.json").exists() and not (desk / "out" / "unfinished").exists()


def test_an_interrupted_reading_leaves_nothing_to_go_on_with(desk, monkeypatch):
    monkeypatch.setattr("penjing.zoo.build", interrupted)
    done = CliRunner().invoke(app, ["inspect", "tiny:tiny"])
    assert done.exit_code == 130 and done.stderr == "penjing: interrupted.\n"


def test_a_table_of_elsewhere_is_shown_with_both_named(desk):
    from penjing.core.registry import build
    from penjing.exporting.measure import cpu_name

    Path("t.yaml").write_text(BOX)
    done = CliRunner().invoke(app, ["target", "check", "t.yaml"])
    assert done.exit_code == 0, done.output
    for name in (
        "onnxruntime 0.1 and An abacus",
        f"onnxruntime {build('runtime', 'onnxruntime').version()}",
        cpu_name(),
    ):
        assert name in done.output
