"""The shell's manners: one sentence, the right exit code, no traceback."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import penjing.api
from penjing.cli import app

PENJING = [sys.executable, "-m", "penjing.cli"]


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
