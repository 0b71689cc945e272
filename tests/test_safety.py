"""What is never done: nobody is called, nothing is unpickled, nothing is left outside the run's folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import penjing
from tiny import pictures

WATCHED = """
import sys
from pathlib import Path

CALLS = ("socket.", "pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "urllib.", "http.", "ftplib.")

def hook(event, args, heard=Path(sys.argv.pop())):
    if event.startswith(CALLS):
        with heard.open("a") as file:
            file.write(f"{event} {args!r:.300}\\n")

sys.addaudithook(hook)
from penjing.cli import main
from penjing.steps import spending
spending.SECONDS = 0.1
main()
"""


@pytest.fixture
def watched(tmp_path):
    """Return a function that runs the shell and returns what was heard of it, and what lies in the home folder."""
    for name in ("home", "tmp", "desk"):
        (tmp_path / name).mkdir()
    places = (Path(__file__).parent, Path(penjing.__file__).parents[1])
    environment = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "MPLCONFIGDIR")}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, places))}
    environment = {k: v for k, v in environment.items() if not k.startswith("XDG_")}

    def run(*words):
        heard = tmp_path / "heard.txt"
        command = [sys.executable, "-c", WATCHED, *map(str, words), str(heard)]
        done = subprocess.run(
            command, cwd=tmp_path / "desk", env=environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        home = [str(p.relative_to(tmp_path / "home")) for p in (tmp_path / "home").rglob("*") if p.is_file()]
        left = [path.name for path in (tmp_path / "tmp").iterdir()]
        return heard.read_text() if heard.exists() else "", home, left

    return run


def test_a_whole_run_calls_nobody_and_leaves_nothing_elsewhere(watched, tmp_path):
    data = tmp_path / "pictures"
    data.mkdir()
    pictures(data, per_class=10)
    heard, home, left = watched(
        "compress", "tiny:tiny", data, "--budget", "macs=0.6x", "--epochs", "1", "--reference", "random", "--out", "run"
    )
    assert not heard
    assert all(".cache/matplotlib" in name or ".config/matplotlib" in name for name in home), "its list of fonts alone"
    assert all(name.startswith("torchinductor_") for name in left), "an empty folder of torch's"
    assert [path.name for path in (tmp_path / "desk").iterdir()] == ["run"]


def test_the_runtime_is_told_not_to_report():
    code = "import penjing, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, want in ((None, "1"), ("0", "0")):
        environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        environment |= {"PYTHONPATH": str(Path(penjing.__file__).parents[1])}
        environment |= {"ORT_DISABLE_TELEMETRY": given} if given else {}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == want, done.stderr
