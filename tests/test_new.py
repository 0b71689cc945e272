"""``penjing new``: the largest member that a budget allows, as trying all of them finds it, and a recipe that runs."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import penjing
from penjing import largest as module
from penjing import targets, zoo
from penjing.cli import app
from penjing.core.errors import DataError, Infeasible, PenjingError, RecipeError
from penjing.costs.units import parse_bound, resolve
from penjing.data import load
from penjing.exporting.measure import summary
from penjing.exporting.onnx import export_onnx
from penjing.exporting.session import file_bytes
from penjing.graph.draft import Draft
from penjing.steps.original import counted, drafted, estimated
from penjing.steps.state import Run
from penjing.zoo.family import Family

ARCH = "test_new:net"
PICTURE = (3, 12, 12)
WIDTHS = tuple(n / 10 for n in range(1, 21))


class Net(nn.Module):
    """Three convolutions, one of them wide, and a linear layer; of pictures of any size."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        a, b = max(1, round(18 * width)), max(1, round(50 * width))
        self.features = nn.Sequential(
            nn.Conv2d(3, a, 3, padding=1, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
            nn.Conv2d(a, b, 3, 2, 1), nn.ReLU(),
            nn.Conv2d(b, a, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU(),
        )  # fmt: skip
        self.linear = nn.Linear(a, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(x).mean((2, 3)))


def net(num_classes: int = 3, width: float = 1.0) -> nn.Module:
    return Net(num_classes, width)


@functools.cache
def members(side: int, widths: tuple[float, ...] = WIDTHS) -> dict[str, Draft]:
    """Return every member, traced, narrowest first."""
    family, example = Family.of(ARCH, 3), ((torch.randn(2, 3, side, side),), {})
    names = [family.member(width) for width in family.widths(widths)]
    return {name: drafted(zoo.build(name).eval(), example) for name in names}


def by_force(bounds: dict[str, str], target: str, sides: tuple[int, ...] = (12,), widths: Any = WIDTHS) -> Any:
    """Price every member and return the largest that keeps the bounds, with its side."""
    made_for = targets.find(target)
    priced = {
        (name, side): counted(draft) | estimated(draft, made_for)
        for side in sides
        for name, draft in members(side, widths).items()
    }
    unit = {"latency": "ms", "energy": "mJ", "macs": "MACs", "params": "parameters"}
    whole = priced[Family.of(ARCH, 3).member(1.0), sides[-1]]
    limits = {name: resolve(parse_bound(name, unit[name], text), whole[name]) for name, text in bounds.items()}
    found = [
        (costs["macs"], costs["params"], place)
        for place, costs in priced.items()
        if all(bound.met(costs[name]) for name, bound in limits.items())
    ]
    return max(found)[2] if found else None


@pytest.mark.parametrize(
    ("bounds", "target"),
    [
        ({"macs": "0.5x"}, "eyeriss_v1"),
        ({"latency": "0.6x"}, "eyeriss_v1"),
        ({"latency": "0.3x", "params": "2k"}, "gemmini_default"),
        ({"energy": "0.8x", "macs": "0.9x"}, "edge_tpu_like"),
        ({"latency": "10s"}, "nvdla_small"),
    ],
)
def test_it_is_what_trying_every_width_finds(bounds: dict[str, str], target: str) -> None:
    found = penjing.new(ARCH, bounds, picture=PICTURE, classes=3, target=target, widths=WIDTHS)
    assert (found.model, found.chosen.picture[-1]) == by_force(bounds, target)
    assert len(found.tried) <= 8 < len(members(12))
    assert found.chosen.meets and [one for one in found.tried if one.meets is None] == []


def test_sides_are_tried_and_the_most_arithmetic_wins(tmp_path: Path) -> None:
    bounds, sides, widths = {"macs": "0.4x", "params": "0.5x"}, (8, 12), (0.2, 0.4, 0.6, 0.65, 0.7, 0.8, 1.0)
    how: dict[str, Any] = {"target": "eyeriss_v1", "resolutions": sides, "widths": widths}
    found = penjing.new(ARCH, bounds, picture=PICTURE, classes=3, **how)
    assert (found.model, found.chosen.picture[-1]) == by_force(bounds, "eyeriss_v1", sides, widths)
    assert found.is_resized == (found.chosen.picture[-1] == 8)
    assert {one.picture[-1] for one in found.tried} == set(sides)


class Machine:
    """A machine that takes what it likes of a network: more for each layer than their times tell."""

    def __init__(self, ms: Any) -> None:
        self.ms, self.asked = ms, list[str]()

    def __call__(self, run: Run, what: str, subjects: Any, limit: float | None = None) -> Any:
        self.asked.append(what)
        times = {name: self.ms(count(one.model)) for name, one in subjects.items()}
        return {name: summary([ms] * 5, 1, 1, "cpu", "made up", "made up") for name, ms in times.items()}


def count(model: nn.Module) -> float:
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(lambda parameters: 0.1 + (parameters / 1e4) ** 1.3)
    monkeypatch.setattr(Run, "measure", lambda *words: found(*words))
    monkeypatch.setattr(module, "timed", lambda run, shape, batch: shape.macs * 1e-6)
    monkeypatch.setattr(module, "learn_step", lambda table: 4)
    return found


@pytest.mark.parametrize("share", [0.9, 0.55, 0.3])
def test_what_is_chosen_was_measured_and_nothing_wider_keeps_the_bound(machine: Machine, share: float) -> None:
    found = penjing.new(ARCH, {"latency": f"{share}x"}, picture=PICTURE, classes=3)
    family = Family.of(ARCH, 3)
    limit = 0.98 * share * machine.ms(count(net()))
    keeping = [w for w in family.widths() if machine.ms(count(zoo.build(family.member(w)))) <= limit]
    assert found.chosen.width == max(keeping)
    assert found.chosen.measured["latency"] == pytest.approx(machine.ms(count(found.build())))
    assert f"width {found.chosen.width:g} on 3x12x12" in machine.asked
    for one in found.tried:
        assert one.meets in (False, None) if not one.measured else one.meets == (one.width in keeping)


def test_a_latency_that_only_the_file_tells_may_be_out_of_reach(machine: Machine) -> None:
    with pytest.raises(Infeasible, match=r"No member .* the smallest, width 0.05 .* latency 101 us \(at most 90 us\)"):
        penjing.new(ARCH, "latency=90us", picture=PICTURE, classes=3)
    assert "width 0.05 on 3x12x12" in machine.asked


def test_the_size_is_that_of_the_file(tmp_path: Path) -> None:
    found = penjing.new(ARCH, "size=9kB", picture=PICTURE, classes=3, widths=[0.1, 0.35, 1])
    smaller, larger = (one.measured["size"] for one in found.tried if one.measured)
    assert found.chosen.width == 0.35 and smaller <= 9000 < larger
    trained = found.build()
    for _ in range(2):  # batch norm's statistics, and what would be learned
        trained(torch.randn(8, *PICTURE))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    there = export_onnx(trained.eval(), (torch.randn(2, *PICTURE),), {}, tmp_path / "there.onnx")
    assert file_bytes(there) == smaller


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"budget": "params=10"}, r"No member of test_new:net\(num_classes=3\) meets the budget: the smallest, width"),
        ({"budget": ""}, r"empty"),
        ({"budget": {}}, r"There is no budget"),
        ({"budget": "error=5%"}, r"untrained network tells no error"),
        ({"budget": "energy=1mJ", "target": "onnxruntime"}, r"nothing that the target onnxruntime tells"),
        ({"budget": "macs=1M", "picture": None}, r"does not say how large its pictures are"),
        ({"budget": "macs=1M", "picture": (3, 12)}, r"channels, height and width"),
        ({"budget": "macs=1M", "picture": (4, 12, 12)}, r"does not take pictures of 4x12x12"),
        ({"budget": "macs=1M", "resolutions": [0]}, r"side in pixels"),
        ({"budget": "macs=1M", "widths": [-1]}, r"a number above 0; got -1"),
    ],
)
def test_what_cannot_be_is_told(asked: dict[str, Any], told: str) -> None:
    how: dict[str, Any] = {"picture": PICTURE, "classes": 3, "target": "eyeriss_v1"}
    with pytest.raises(PenjingError, match=told):
        penjing.new(ARCH, **how | asked)


def test_data_tells_pictures_and_classes(pictures: Path) -> None:
    found = penjing.new(ARCH, "params=1k", data=pictures, target="eyeriss_v1")
    assert found.chosen.picture == (3, 12, 12) and "num_classes=3" in found.model
    for wrong in ({"classes": 4}, {"picture": (3, 8, 8)}):
        with pytest.raises(RecipeError, match=r"are asked for"):
            penjing.new(ARCH, "params=1k", data=pictures, target="eyeriss_v1", **wrong)


# ------------------------------------------------------------------------------------------------------- the shell


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures by class."""
    folder, rng = tmp_path_factory.mktemp("made") / "pictures", np.random.default_rng(0)
    for name, at in (("blue", 2), ("green", 1), ("red", 0)):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            x = rng.integers(0, 90, (12, 12, 3)).astype(np.uint8)
            x[..., at] += 120
            Image.fromarray(x).save(folder / name / f"{i}.png")
    return folder


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


def test_the_recipe_runs(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder, too."""
    words = ["--budget", "macs=0.5x,params=3k", "--data", str(pictures), "--target", "eyeriss_v1", "--epochs", "2",
             "--lr", "0.02", "--seed", "3", "--resolutions", "8,12"]  # fmt: skip
    monkeypatch.chdir(pictures.parent)
    done = run("new", ARCH, *words, "--out", str(tmp_path / "new"))
    assert done.exit_code == 0 and "chosen" in done.output, done.output
    file = tmp_path / "new" / "recipe.yaml"
    told = yaml.safe_load(file.read_text())
    found = penjing.new(ARCH, words[1], data=pictures, target="eyeriss_v1", resolutions=(8, 12), seed=3)
    assert told["model"] == found.model and told["seed"] == 3 and told["target"] == {"name": "eyeriss_v1"}
    assert told["budget"]["params"] == "3k" and told["budget"]["macs"] == pytest.approx(found.bounds[0].limit)
    assert told["steps"][0] == {"train": {"epochs": 2, "lr": 0.02, "terms": []}}
    assert told.get("side") == (8 if found.chosen.picture[-1] == 8 else None)
    monkeypatch.chdir(tmp_path)
    assert load(file.parent / told["data"]).num_classes == 3
    done = run("run", str(file), "--out", "one")
    assert done.exit_code == 0, done.output
    results = json.loads(Path("one/results.json").read_text())
    assert [bound["met"] for bound in results["budget"]] == [True, True]


def test_a_teacher_goes_into_the_recipe(pictures: Path, tmp_path: Path) -> None:
    done = run("new", ARCH, "--budget", "params=1k", "--data", str(pictures), "--target", "eyeriss_v1", "--teacher",
               "test_new:net", "--out", str(tmp_path), "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    told = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert told["teacher"] == "test_new:net" and "terms" not in told["steps"][0]["train"]
    assert json.loads(done.output)["recipe"] == str(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["mobilenet_v9", "--budget", "macs=1M"], 2, "Did you mean 'mobilenet_v"),
        (["resnet18", "--budget", "macs=1M"], 2, "takes no width"),
        ([ARCH, "--budget", "params=9", "--input", "3x12x12", "--target", "eyeriss_v1"], 1, "the smallest, width"),
        ([ARCH, "--budget", "macs=1M", "--input", "3xax12"], 2, "--input '3,a,12' must be positive whole numbers"),
        ([ARCH, "--budget", "macs=1M", "--input", "3x12x12", "--widths", "a"], 2, "--widths 'a' must be numbers"),
        ([ARCH, "--budget", "macs=1M", "--input", "3x12x12", "--out", "x"], 2, "A recipe needs data"),
    ],
)
def test_what_is_wrong_ends_in_one_sentence(words: list[str], code: int, told: str) -> None:
    done = run("new", *words)
    assert done.exit_code == code and told in done.output and done.output.startswith("penjing: "), done.output
    assert done.output.count("\n") == 1


def test_new_weights_are_drawn_by_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (zoo.build(ARCH, seed=seed).linear.weight for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pictures_of_a_folder_are_brought_to_a_side(pictures: Path) -> None:
    assert load(pictures, side=8).shape == (3, 8, 8)
    assert next(load(pictures, side=30).train.batches(4))[0].shape == (4, 3, 30, 30)
    with pytest.raises(DataError, match=r"no picture files to bring to a side of 16"):
        load("digits", side=16)
    with pytest.raises(DataError, match=r"side = 0 is not right"):
        load(pictures, side=0)
