"""What a shell asks for while somebody types, through typer's protocol of environment variables."""

import os
import subprocess
import sys
import time

import pytest

from penjing import zoo
from penjing.core import registry


def completed(words, *, shell="bash"):
    """Return what completes the last word, as the shell's own function would be told."""
    words = ["penjing", *words]
    asked = {
        "bash": {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(words)},
    }[shell]
    environment = {**os.environ, **asked, "_PENJING_COMPLETE": f"complete_{shell}"}
    command = [sys.executable, "-X", "importtime", "-m", "penjing.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-500:]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "penjing" in imported and not imported & {"torch", "numpy", "onnx", "onnxruntime", "scipy"}
    return done.stdout.split() if shell == "bash" else done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["comp"], ["compress"]),
        (["run", "r.yaml", "--see"], ["--seed"]),
        (["inspect", "resnet1"], ["resnet18", "resnet101", "resnet110", "resnet152"]),
        (["compress", "resnet2"], ["resnet20"]),
        (["compress", "'resnet20(num_classes=100)'", "dig"], ["digits"]),
        (["compress", "resnet20("], []),
        (["compress", "resnet20", "digits", "--criterion", "ja"], ["jacobian"]),
        (["compress", "resnet20", "digits", "--allocator", "g"], ["global", "greedy"]),
        (["compress", "resnet20", "digits", "--budget", "lat"], ["latency="]),
        (["compress", "resnet20", "digits", "--budget", "macs=0.5x,par"], ["macs=0.5x,params="]),
        (["run", "r.yaml", "--budget", "me"], ["memory="]),
        (["run", "r.yaml", "--model", "vgg16"], ["vgg16", "vgg16_bn", "vgg16_bn_wide"]),
        (["run", "r.yaml", "--reference", ""], ["random", "scratch"]),
        (["list", "al"], ["allocators"]),
        (["list", "soft"], ["soft_targets"]),
        (["compress", "resnet20", ""], []),
    ],
)
def test_words_complete_without_torch(words, found):
    assert completed(words) == found


def test_what_a_word_means_stands_beside_it_in_one_line():
    said = completed(["run", "r.yaml", "--reference", ""], shell="zsh")
    assert '"random":"Keep the widths' in said and '"scratch"' in said
    lines = completed(["compress", "a", "b", "--criterion", ""], shell="zsh").splitlines()
    assert len(lines) == len(registry.entries("criterion"))


def test_completion_is_quick():
    """As much as an import of typer takes, and not the seconds of torch; the least of three, on a busy machine."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        completed(["compress", "resnet20", "digits", "--criterion", ""])
        times.append(time.perf_counter() - begun)
    assert min(times) < 2


def test_the_outline_that_is_read_from_the_source_is_the_registry():
    for kind in registry.HOMES:
        outline = registry.outline(kind)
        assert {name: entry.summary for name, entry in zip(outline, registry.describe(kind), strict=True)} == outline
    assert set(completed(["inspect", ""])) == set(zoo.BUILDERS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_be_set_up(shell, tmp_path):
    # typer looks for the shell among its parents, and under a test runner finds none.
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "penjing.cli", "--install-completion", shell]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    written = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    assert "_PENJING_COMPLETE" in written
