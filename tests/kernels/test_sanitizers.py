"""The C reads and writes no byte that is not its own, and its threads do not race: random shapes under sanitizers.

A ``driver_NAME.c`` beside this file includes NAME.c, and checks what it computes.
"""

import os
import subprocess
from pathlib import Path

import pytest

from penjing.kernels import build

DRIVERS = sorted(Path(__file__).parent.glob("driver_*.c"))
SANITIZERS = {"address": "-fsanitize=address,undefined", "thread": "-fsanitize=thread"}
SHAPES = 25


def run(*command):
    alone = {"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=alone)


@pytest.fixture(params=SANITIZERS)
def compiler(request, tmp_path):
    try:
        found = build._compiler()
    except build.Unbuilt as error:
        pytest.skip(str(error))
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }")
    flag = SANITIZERS[request.param]
    made = run(*found, flag, str(tmp_path / "empty.c"), "-o", str(tmp_path / "empty"))
    if made.returncode or run(str(tmp_path / "empty")).returncode:
        pytest.skip(f"what {found[0]} makes with {flag} does not run here")
    return [*found, flag, "-fno-sanitize-recover=all"]


@pytest.mark.parametrize("driver", DRIVERS, ids=lambda path: path.stem)
def test_random_shapes(driver, compiler, tmp_path):
    flags = [flag for flag in build.FLAGS if flag not in ("-O3", "-shared")]
    made = run(*compiler, *flags, "-O1", f"-I{build.SOURCES}", str(driver), "-o", str(tmp_path / "driver"), "-lm")
    assert made.returncode == 0, made.stderr
    done = run(str(tmp_path / "driver"), str(SHAPES), "7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
