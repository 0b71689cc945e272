"""The names people write: each is there in a fresh process, whatever was imported before."""

import subprocess
import sys

import pytest

import penjing


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
