"""Runs whose plan is searched for: the same with any workers, stopped by Ctrl-C, and told in the results."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import penjing
from penjing.allocators import driver as drivers
from penjing.core.errors import RecipeError, WorkerError
from penjing.steps.prune import prune
from penjing.steps.train import train
from penjing.steps.trial import Attempt
from tiny import pictures, skilled

SEARCH = prune(criterion="l1", allocator={"random": {"trials": 12}}, measure="error", step=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model():
    return skilled()


def run(model, data, workers=0, steps=(SEARCH, "export", "check"), budget="macs=0.2x", **options):
    return penjing.run(model, data, steps, budget, workers=workers, **options)


def searched(result):
    searches = [{k: v for k, v in found.items() if k != "seconds"} for found in result.results["searches"]]
    return result.results["trials"], searches, result.results["sites"]


@pytest.fixture(scope="module")
def alone(model, data):
    return run(model, data)


def test_a_search_measures_its_trials_and_takes_the_best(alone):
    trials, (search,), _ = searched(alone)
    errors = [trial["costs"]["error"] for trial in trials]
    assert len(trials) == search["plans"] <= search["trials"] == 12 and len(set(errors)) > 1, "plans are told apart"
    assert [trial["trial"] for trial in trials] == list(range(1, len(trials) + 1))
    assert search == {"step": "02-prune", "allocator": "random", "minimise": "error", "trials": 12,
                      "plans": len(trials), "best": pytest.approx(min(errors)), "stopped": False}  # fmt: skip
    limit = alone.results["budget"][0]["limit"]
    assert all(trial["costs"]["macs"] <= limit for trial in trials)
    json.dumps(alone.results["trials"])


def test_a_cut_that_tries_nothing_reads_the_pictures_once(model, data, monkeypatch):
    """For its scores; a user's loader may take long to read."""
    from penjing.data.data import Data

    honest, asked = Data.calibration_split, []
    monkeypatch.setattr(Data, "calibration_split", lambda *these: asked.append(these[1]) or honest(*these))
    penjing.run(model, data, [prune(images=32)], "macs=0.5x")
    assert asked == [32]
    penjing.run(model, data, [prune(images=32, allocator={"random": {"trials": 1}})], "macs=0.5x")
    assert asked == [32, 32, 512]


def test_processes_find_the_same(alone, model, data):
    assert searched(run(model, data, workers=2)) == searched(alone)


def test_a_ray_cluster_finds_the_same_though_a_worker_is_killed(alone, model, data, monkeypatch, ray):
    from penjing.workers import cluster

    assert not ray.is_initialized()
    killed = []
    honest = cluster.Actor.send

    def send(self, item):
        honest(self, item)
        if not killed:
            killed.append(self)
            ray.kill(self.actor)

    monkeypatch.setattr(cluster.Actor, "send", send)
    assert searched(run(model, data, workers="ray:2")) == searched(alone)
    assert killed and not ray.is_initialized(), "a cluster that was started here is ended"


@pytest.mark.parametrize("bound", ["latency=0.9x", "error=+20"])
def test_a_search_under_a_measured_bound(model, data, bound):
    small = prune(criterion="l1", allocator={"random": {"trials": 4}})
    result = run(model, data, steps=[small], budget=bound)
    assert result.results["searches"] and result.results["rows"][1]["macs"] < result.results["rows"][0]["macs"]


def test_without_data_a_search_minimises_the_score_lost(model, data):
    import torch

    result = penjing.run(model, None, [SEARCH], "macs=0.5x", example=torch.randn(2, 3, 8, 8))
    assert result.results["searches"][0]["minimise"] == "lost"


def test_without_classes_a_search_minimises_the_score_lost(model):
    import torch

    result = penjing.run(model, torch.randn(40, 3, 8, 8), [SEARCH], "macs=0.5x")
    assert result.results["searches"][0]["minimise"] == "lost"


def test_a_worker_that_cannot_do_it_leaves_a_run_that_can_go_on(alone, model, data, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "__call__", lambda self, plan: os._exit(3))
        with pytest.raises(WorkerError, match="the run can go on"):
            run(model, data, workers=2, folder=tmp_path)
    assert (tmp_path / "unfinished" / "run.json").exists()
    assert searched(run(model, data, workers=0, folder=tmp_path)) == searched(alone), (
        "workers are not the run's identity"
    )


def test_workers_that_are_none_are_refused_before_anything_begins(model, data, tmp_path):
    with pytest.raises(RecipeError, match="workers is 'many'"):
        run(model, data, workers="many", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------------------------------------- Ctrl-C


def interrupt_when(condition):
    """Send what Ctrl-C sends once the condition holds."""

    def watch():
        while not condition():
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_ends_a_search_with_the_best_so_far_and_the_run_goes_on(model, data, tmp_path, workers, monkeypatch):
    honest = drivers.Driver._trial
    seen = []

    def trial(self, plan, problem):
        seen.append(plan)
        time.sleep(0.05)
        return honest(self, plan, problem)

    monkeypatch.setattr(drivers.Driver, "_trial", trial)
    interrupt_when(lambda: len(seen) > 5)
    long = prune(criterion="l1", allocator={"random": {"trials": 5000}}, step=1)
    result = run(model, data, workers, steps=[long, "export", "check"], folder=tmp_path)
    trials, (search,), _ = searched(result)
    assert search["stopped"] and 5 < len(trials) < 1000 and (tmp_path / "model.onnx").exists()
    assert search["best"] == pytest.approx(min(trial["costs"]["error"] for trial in trials))
    assert any("stopped by hand after" in remark for remark in result.results["remarks"])


def test_ctrl_c_ends_a_training_with_the_last_whole_epoch(model, data, tmp_path, capsys):
    path = tmp_path / "unfinished" / "04-train.1.training"
    steps = [prune(criterion="l1"), "recalibrate", train(epochs=4000, lr=0.001, batch=16), "export"]
    interrupt_when(path.exists)
    result = run(model, data, steps=steps, folder=tmp_path)
    rows = result.results["training"]
    assert 1 <= len(rows) < 4000
    assert f"stopped by hand after {len(rows)} of 4000 epochs" in capsys.readouterr().err
    assert any("of 4000 epochs" in remark for remark in result.results["remarks"])
    again = run(model, data, steps=[*steps[:2], train(epochs=len(rows), lr=0.001, batch=16), "export"])
    assert len(again.results["training"]) == len(rows)


def test_ctrl_c_before_there_is_anything_leaves_a_run_that_goes_on(model, data, tmp_path):
    """From another process, as a terminal sends it."""
    words = ["-c", (
        "import sys; sys.path.insert(0, sys.argv[2]); import penjing; from tiny import tiny\n"
        "from penjing.steps.train import train\n"
        "penjing.run(tiny(), sys.argv[1], [train(epochs=400, batch=2, lr=0.001), 'export'], folder=sys.argv[3])"
    ), data, Path(__file__).parent, tmp_path / "run"]  # fmt: skip
    process = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.PIPE, start_new_session=True)
    while not (tmp_path / "run" / "unfinished" / "journal.jsonl").exists():
        time.sleep(0.01)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1].decode()
    assert process.returncode and "KeyboardInterrupt" in said
    assert (tmp_path / "run" / "unfinished" / "run.json").exists()
