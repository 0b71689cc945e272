"""The shell's manners: one sentence, the right exit code, no traceback."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import penjing.api
from penjing.cli import app, options
from penjing.core import registry
from penjing.recipe import Recipe
from tiny import pictures

COMPRESS = ["compress", "digits_net", "digits", "--budget", "macs=0.5x"]


def run(*args, **options):
    return CliRunner().invoke(app, [str(a) for a in args], **options)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["inspect", "resnet20", "--input", "1.5"], "--input '1.5'"),
        (["inspect", "resnet20", "--input", "nan,3,3"], "--input"),
        (["inspect", "resnet20", "--input", ""], "--input"),
        (["inspect", "resnet20", "--input", "1,32,32"], "give another with --input"),
        (["compress", "digits_net", "digits", "--budget", ""], "The budget is empty"),
        (["compress", "digits_net", "digits", "--budget", "macs=0.5x", "--val", "x"], "--val 'x'"),
        (["compress", "digits_net", "digits", "--budget", "macs=0.5x", "--lr", "-1"], "lr must be"),
        (["compress", "digits_net", "digits", "--budget", "macs=0.5x", "--reference", "rnd"], "Did you mean 'random'"),
        ([*COMPRESS, "--mean", "0.5,x"], "--mean '0.5,x' is not right. One number a channel"),
        ([*COMPRESS, "--set", "trian.lr=1"], "no key and no step 'trian'. Did you mean 'train'"),
        ([*COMPRESS, "--set", "train.rate=1"], "step 'train' has no option 'rate'"),
        ([*COMPRESS, "--set", "train.lr=fast"], "step 'train': lr = 'fast' is not right"),
        ([*COMPRESS, "--set", "prune.images=0"], "images must be a whole number"),
        ([*COMPRESS, "--set", "train.terms=[soft]"], "no term 'soft'"),
        ([*COMPRESS, "--epochs", "0", "--set", "train.lr=1"], "no key and no step 'train'"),
        ([*COMPRESS, "--seed", "1", "--set", "seed=2"], "--set seed says again what seed says already"),
        ([*COMPRESS, "--set", "seed=2", "--set", "seed=3"], "--set seed is given twice"),
        ([*COMPRESS, "--set", "target.thread=2"], "Did you mean 'threads'"),
        (["list", "jacobean"], "Did you mean 'jacobian'"),
        (["list", "zzz"], "The kinds are criteria, allocators"),
        (["run", "nothing.yaml", "--set", "x"], "must be key=value"),
        (["resume", "nowhere"], "nowhere holds no unfinished run."),
    ],
)
def test_bad_input_is_one_sentence(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run(*args)
    assert done.exit_code == 2, (done.output, done.exception)
    assert message in done.stderr and "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_error_of_our_own_is_neither_a_missed_budget_nor_wrong_input(monkeypatch):
    def broken(*args):
        raise KeyError("here")

    monkeypatch.setattr(penjing.api, "inspect", broken)
    done = run("inspect", "resnet20", "--input", "3,32,32")
    assert done.exit_code == 3 and "KeyError: 'here'" in done.stderr and "report it" in done.stderr
    monkeypatch.setenv("PENJING_TRACEBACK", "1")
    assert isinstance(run("inspect", "resnet20", "--input", "3,32,32").exception, KeyError)


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(f"{sys.executable} -m penjing.cli list | head -1; echo ${{PIPESTATUS[0]}}", shell=True,
                          executable="/bin/bash", capture_output=True, text=True)  # fmt: skip
    assert done.stdout.splitlines()[-1] == "0" and not done.stderr


def test_one_file_measured_twice_gives_two_rows(tmp_path):
    import torch

    from penjing.exporting.onnx import export_onnx

    file = export_onnx(torch.nn.Linear(4, 2).eval(), (torch.randn(2, 4),), {}, tmp_path / "a.onnx")
    done = run("bench", file, file, "--rounds", 5)
    assert done.exit_code == 0 and done.stdout.count(str(file)) == 2


# ---------------------------------------------------------------------------------------------- keys of a recipe

RECIPE = """
model: tiny:failing
data: pictures
budget: {macs: 0.5x}
weights: w.pt
seed: 9
target: {threads: 7}
steps: [prune, train, export, check]
"""


class Stop(Exception):
    """What a run would be given, instead of the run."""

    def __init__(self, *args, **options):
        self.args, self.options = args, options


@pytest.fixture
def given(monkeypatch, tmp_path):
    """Return a function that runs the shell up to where the work begins, and returns what it would be given."""
    built, read = [], []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENJING_TRACEBACK", "1")
    monkeypatch.setattr(penjing.zoo, "build", lambda *args, **_: built.append(args))
    monkeypatch.setattr(penjing.zoo, "builder_of", lambda name: name)
    monkeypatch.setattr(penjing.data, "load", lambda *args, **options: read.append((*args, options)))

    def stop(*args, **options):
        raise Stop(*args, **options)

    monkeypatch.setattr(penjing.api, "run", stop)

    def shell(*words):
        built.clear()
        read.clear()
        done = run(*words)
        assert isinstance(done.exception, Stop), (done.output, done.exception)
        ((model, weights), *teachers), ((data, options),) = built, read
        taught = dict(zip(("teacher", "teacher_weights"), teachers[0], strict=True)) if teachers else {}
        asked = done.exception.options
        target = asked.pop("target")
        on = {"target": target.name, "precision": target.precision, "frame_rate": getattr(target, "frame_rate", None)}
        return {"model": model, "weights": weights, "data": data, **options, **asked, **on, **taught}

    return shell


FLAGS = [
    ("model", "tiny:tiny", "tiny:tiny"),
    ("data", "digits:3", "digits:3"),
    ("budget", "latency=0.5x", "latency=0.5x"),
    ("weights", "other.pt", Path("other.pt")),
    ("seed", "4", 4),
    ("target", "openvino", "openvino"),
    ("precision", "int8", "int8"),
    ("threads", "2", 2),
    ("batch", "8", 8),
    ("val", "500", 500),
    ("val", "0.25", 0.25),
    ("mean", "0.5,0.25,0.125", (0.5, 0.25, 0.125)),
    ("std", "0.5", (0.5,)),
    ("side", "48", 48),
    ("teacher", "tiny:failing", "tiny:failing"),
]


def test_every_key_of_a_recipe_is_a_flag_of_run():
    assert {name for name, _, _ in FLAGS} | {"frame_rate", "teacher_weights"} == set(options.KEYS)
    settable = {f.name for f in dataclasses.fields(Recipe)} - {"steps", "penjing", "target"}
    below = {"threads", "batch", "target", "precision", "frame_rate"}
    assert settable | below == set(options.KEYS)


@pytest.mark.parametrize(("name", "text", "value"), FLAGS)
def test_a_flag_overrides_the_file(given, tmp_path, name, text, value):
    (tmp_path / "r.yaml").write_text(RECIPE)
    said = given("run", "r.yaml", f"--{name}", text)
    assert said[name] == value and type(said[name]) is type(value)
    rest = {"model": "tiny:failing", "data": "pictures", "seed": 9, "threads": 7, "batch": None}
    assert all(said[key] == rest[key] for key in rest if key != name)


def test_a_frame_rate_is_for_a_target_that_tells_power(given, tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE)
    said = given("run", "r.yaml", "--target", "eyeriss_v1", "--frame-rate", "30")
    assert (said["target"], said["frame_rate"]) == ("eyeriss_v1", 30.0)
    done = run("run", "r.yaml", "--frame-rate", "30")
    assert "tells no power" in done.stderr


def test_flags_and_set_reach_the_steps_of_compress(given):
    said = given(
        "compress", "tiny:tiny", "digits", "--budget", "macs=0.5x", "--epochs", 3, "--set", "prune.images=256",
        "--set", "train.lr=0.01", "--set", "train.terms=[soft_targets]", "--threads", 2, "--set", "target.batch=4",
    )  # fmt: skip
    prune, training = said["steps"][0], said["steps"][3]
    assert (prune.images, prune.criterion, training.epochs, training.lr) == (256, "jacobian", 3, 0.01)
    assert training.terms == ("soft_targets",) and (said["threads"], said["batch"]) == (2, 4)
    assert (said["seed"], said["val"], said["mean"], said["budget"]) == (0, 0.1, None, "macs=0.5x")


# ------------------------------------------------------------------------------------------------ finding one's way


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compres"], "Did you mean 'compress'"),
        (["run", "r.yaml", "--sede", "3"], "--seed"),
        ([*COMPRESS, "--epoch", "3"], "--epochs"),
        (["inspect", "resnet20", "--jsn"], "--json"),
        (["bench", "a.onnx", "--round", "9"], "--rounds"),
    ],
)
def test_a_verb_or_a_flag_that_is_misspelt_is_set_right(words, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = run(*words)
    assert done.exit_code == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["compress", "run", "resume", "export", "report", "inspect", "bench", "list"])
def test_every_verb_helps(verb, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = run(verb, "--help")
    assert done.exit_code == 0 and "Usage:" in done.stdout
    if verb in ("compress", "run", "resume"):
        assert "1 the budget cannot be met or is missed" in done.stdout
    assert "1 the budget" in run("--help").stdout


def test_list_shows_one_entry_in_full():
    done = run("list", "hrank")
    assert done.exit_code == 0
    assert "criterion hrank" in done.stdout and "Paper: Lin et al., HRank" in done.stdout
    assert "images: int = 512" in done.stdout
    both = run("list", "random").stdout
    assert "criterion random" in both and "reference random" in both
    assert "It takes no options." in both and "jacobian" not in both


def test_list_is_a_document_too():
    everything = json.loads(run("list", "--json").stdout)
    assert set(everything) == set(registry.PLURALS.values())
    (one,) = json.loads(run("list", "threshold", "--json").stdout)["allocators"]
    assert one["options"] == [{"name": "k", "type": "float", "default": "3.0"}] and "3-sigma" in one["doc"]
    assert set(json.loads(run("list", "cost", "--json").stdout)) == {"costs"}


# ------------------------------------------------------------------------------------------------------ for programs


def events(text):
    return [json.loads(line) for line in text.splitlines()]


def test_an_error_is_the_last_event(tmp_path):
    done = run("compress", "nowhere:net", "digits", "--budget", "macs=0.5x", "--json", "--out", tmp_path / "run")
    *_, last = events(done.stdout)
    assert done.exit_code == 2 and last["event"] == "error" and last["exit"] == 2
    assert last["text"] in done.stderr and "nowhere" in last["text"]


def test_a_listener_that_leaves_does_not_stop_the_run(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"model: tiny:tiny\ndata: {pictures(tmp_path)}\nbudget: {{macs: 0.6x}}\nsteps: [prune, recalibrate]"
    )
    command = [sys.executable, "-m", "quick", "run", recipe, "--out", tmp_path / "run", "--json"]
    here = Path(__file__).parent
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert json.loads(process.stdout.readline())["event"] == "begin"
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=300) == 0, said
    assert "Traceback" not in said and "Broken" not in said
    lines = said.splitlines()
    stages = [line.partition(":")[0] for line in lines if not line.startswith("Beware")]
    assert stages == ["evaluate", "prune", "recalibrate", "evaluate", "export the original"], "one plain line a stage"
    assert "\x1b" not in said and (tmp_path / "run" / "results.json").exists()
