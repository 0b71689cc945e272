import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.core.errors import PlanError
from penjing.steps.order import ordered

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from papers import methods, oneshot, render, tables  # noqa: E402
from papers.clock import Clock  # noqa: E402
from papers.lengths import LENGTHS, course, fraction  # noqa: E402
from papers.methods import METHODS, Setting  # noqa: E402
from papers.row import Asked, renewed, row, twin  # noqa: E402
from papers.scale import BRIEF, FULL, SCALES, SHORT, SMOKE  # noqa: E402
from papers.subjects import SUBJECTS, SmallNet  # noqa: E402


def setting(method, scale=SHORT, removed=0.8, network=None):
    search, train = course(method, scale)
    return Setting(search, train, scale.trials, scale.bees, scale.policies, scale.rounds, 48_000, 10, True, removed,
                   network or SmallNet(), scale.epochs is None)  # fmt: skip


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_rows_have_names_of_their_own_and_methods_a_length(scale):
    names = [name for name, _ in tables.rows(scale, argparse.Namespace())]
    assert len(names) == len(set(names))
    asked = list(tables.asked(scale, 0))
    assert {one.method for one in asked} == set(METHODS) == set(LENGTHS)
    assert {f"{one.name}_twin" for one in asked} | {one.name for one in asked} <= set(names)


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_steps_can_be_built_and_train_as_long_as_the_row_says(scale):
    for method, make in METHODS.items():
        steps = ordered(make(setting(method, scale)))
        trained = sum(step.epochs for step in steps if type(step).__name__ == "train")
        assert trained == course(method, scale)[1], method
        assert scale.epochs is None or sum(course(method, scale)) == scale.epochs
    assert fraction(method, FULL) == 1


def test_searches_that_train_take_what_they_may_and_no_more():
    bees, judge = (f(setting("abcpruner")) for f in (methods.bees, methods.tuned))
    colony, judge = bees["abcpruner"], judge["tuned_error"]
    trials = colony["sources"] * (1 + 2 * colony["cycles"]) + colony["cycles"] - 1
    (student,) = methods.n2n(setting("n2n"))
    student = student["n2n"]
    for epochs in (
        trials * judge["epochs"] * judge["train_images"] / 48_000,
        (2 * student["updates"] * student["rollouts"] + 2) * student["taught"] * student["images"] / 48_000,
    ):
        assert 5.9 < epochs <= 6


def test_the_published_shares_fit_the_wide_head():
    """28.08 % of all are 64 % of the convolutions, and with 98.5 % of the head that makes the 83.33 of combined."""
    with torch.device("meta"):
        model = zoo.vgg16_bn_wide()
    assert methods.share_of_convolutions(model, 0.2808) == pytest.approx(1 - 0.642, abs=1e-3)
    _, linear, _ = methods.kinds(model)
    gone = round(0.985 * sum(w.numel() for w in linear))
    assert methods.share_of_convolutions(model, 0.8333, gone) == pytest.approx(1 - 0.639, abs=5e-3)


def test_combined_counts_the_weights_that_three_deviations_take():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(1000, 100))
    nn.init.normal_(model[2].weight, 0.5, 0.1)
    assert methods.within_sigma(model) == pytest.approx(99_730, abs=60)
    with pytest.raises(PlanError, match=r"convolutions would keep"):
        methods.combined(setting("combined", removed=0.5, network=model))


def test_a_twin_has_the_zeros_and_else_new_weights():
    model = SmallNet()
    with torch.no_grad():
        model.head[0].weight[:, ::2] = 0
    zeros, before = model.head[0].weight == 0, model.head[0].weight.detach().clone()
    after = renewed(model, 3).head[0].weight.detach()
    assert torch.equal(after == 0, zeros)
    assert not torch.isclose(after[~zeros], before[~zeros]).any()
    assert float(after.std()) == pytest.approx((2 / after.shape[1]) ** 0.5, rel=0.05)


def test_a_clock_counts_over_processes(tmp_path):
    for _ in range(2):
        with Clock(tmp_path / "clock.json") as clock:
            pass
        first = json.loads((tmp_path / "clock.json").read_text())
        (tmp_path / "clock.json").write_text(json.dumps({"wall": first["wall"] + 60, "cpu": first["cpu"] + 30}))
    with Clock(tmp_path / "clock.json") as clock:
        told = clock.minutes()
    assert 2 <= told["minutes"] < 2.2 and 1 <= told["cpu minutes"] < 1.2


def test_a_row_and_its_twin_are_made_gone_on_with_and_shown(tmp_path):
    where = argparse.Namespace(out=tmp_path, data=None, cifar100=None)
    one = Asked("vgg16", SUBJECTS["small"], "sigma", "params", 83.33, 0)
    with pytest.raises(PlanError, match=r"before its twin"):
        twin(one, SMOKE, where)
    facts = row(one, SMOKE, where)
    assert facts["params removed"] == pytest.approx(83.33, abs=0.05)
    assert facts["drop"] == pytest.approx(facts["baseline accuracy"] - facts["accuracy"], abs=0.01)
    assert facts["test reads"] == 2 and facts["epochs"] == SMOKE.epochs
    again = row(one, SMOKE, where)  # its JSON was not written: the run is read, not made again
    assert again["minutes"] >= facts["minutes"] and again["accuracy"] == facts["accuracy"]
    scratch = twin(one, SMOKE, where)
    size = sum(p.numel() for p in SmallNet().parameters())
    assert 100 * (1 - scratch["nonzero"] / size) == pytest.approx(facts["params removed"], abs=0.2)
    for name, made in ((one.name, facts), (f"{one.name}_twin", scratch)):
        told = {"row": name, "device": "here", "threads": 1, **made}
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    shown = render.tables_of(tmp_path)
    assert "| sigma | 83.3" in shown and f"| {facts['drop']:.2f} | {scratch['drop']:.2f} |" in shown


def test_what_was_published_stands_beside_rows_of_its_share():
    assert [one.drop for one in render.beside("vgg16", "combined", 83.33)] == [1.55]
    assert render.beside("vgg16", "combined", 95.0) == []
    assert sorted(one.drop for one in render.beside("vgg16", "gal", 77.46)) == [1.93, 6.86]
    assert len(render.beside("cifar10", "gal", 50.0)) == 2
    for one in tables.VGG16:
        assert one == "rbp" or render.beside("vgg16", one, tables.VGG16[one][0])


def test_one_shot_rows_can_be_built():
    for removed in oneshot.STAGES:
        for how in oneshot.WEIGHTS:
            ordered(oneshot.weights(how, removed))
    for how in oneshot.CHANNELS:
        ordered(oneshot.channels(how))


def test_a_searcher_is_held_against_chance_and_the_solver_seed_by_seed(tmp_path):
    found = {"random": (0.2, 0.3), "knapsack": (0.1, 0.4), "ddpg": (0.15, 0.35)}
    for name, values in found.items():
        for seed, divergence in enumerate(values):
            made = {"allocator": name, "seed": seed, "divergence": divergence, "evaluated": 9, "drop": 1, "minutes": 1}
            told = {"row": name, "table": "searches", "network": "net", "asked": "macs=0.4x", **made}
            (tmp_path / f"{name}{seed}.json").write_text(json.dumps(told))
    (tmp_path / "failed.json").write_text(json.dumps({"row": "failed", "error": "PlanError: no"}))
    shown = render.tables_of(tmp_path).splitlines()
    assert any(line.startswith("| ddpg | 9 | 0.2500 (0.1500 to 0.3500) | 1 of 2 | 1 of 2 |") for line in shown)
    assert any(line.startswith("| random | 9 | 0.2500 (0.2000 to 0.3000) |  | 1 of 2 |") for line in shown)


def test_the_brief_scale_trains_on_a_part_of_train_and_never_on_validation(tmp_path):
    images = np.arange(120, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8)
    for name in ("train", "test"):
        np.savez(tmp_path / f"{name}.npz", x=images, y=np.arange(120) % 10)
    scale = replace(BRIEF, pictures=60, val=30)
    data = SUBJECTS["resnet20"].data(argparse.Namespace(data=tmp_path), 0, scale)
    assert (len(data.train), len(data.val), len(data.test)) == (60, 30, 120)
    of_train, of_val = ({int(image.max()) for image in split.images} for split in (data.train, data.val))
    assert len(of_train) == 60
    assert not of_train & of_val


@pytest.mark.slow
def test_every_row_of_the_smallest_scale(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "papers"), "--scale", "smoke", "--out", str(tmp_path), "--threads", "1"]
    subprocess.run(command, check=True, timeout=1800, capture_output=True)
    rows = [json.loads(path.read_text()) for path in (tmp_path / "smoke").glob("*.json")]
    assert len(rows) == len(list(tables.rows(SMOKE, argparse.Namespace())))
    assert [row for row in rows if "error" in row] == []
    assert {made["method"] for made in rows if "method" in made} == set(METHODS)
    for made in rows:
        if "method" in made:
            ((cost, share),) = made["asked"].items()
            assert made[f"{cost} removed"] >= share - 0.01, made["row"]
