"""The names people write: each is there in a fresh process, whatever was imported before."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import penjing

README = Path(__file__).parent.parent / "README.md"


def fresh(code: str) -> str:
    """Run code in a new interpreter and return what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("first", ["", "import penjing.api", "penjing.compress, penjing.data, penjing.zoo"])
def test_public_names_are_what_they_say(first):
    """A sub-package of the same name would take a function's place as soon as it is imported."""
    told = fresh(f"import penjing\n{first}\nprint(*(type(getattr(penjing, n)).__name__ for n in penjing.__all__))")
    kinds = dict(zip(penjing.__all__, told.split(), strict=True))
    assert {name for name, kind in kinds.items() if kind == "module"} == {"data", "zoo"}
    for step in ("check", "export", "prune", "recalibrate", "reconstruct", "train"):
        assert kinds[step] == "type"


def test_the_long_form_of_the_readme_runs_as_written():
    (steps,) = re.findall(r"^steps = \[.*?^\]$", README.read_text(), re.M | re.S)
    code = f"""
import torch, penjing
penjing.compress, penjing.run, penjing.inspect
import penjing.api
{steps.replace("epochs=12", "epochs=1")}
small = penjing.run(penjing.zoo.digits_net(pretrained=True), penjing.data.digits(), steps, budget="macs=0.5x")
print(small.results["rows"][1]["macs"] / small.results["rows"][0]["macs"])
"""
    assert 0.49 < float(fresh(code)) <= 0.5
