"""Steps that learn keep bounds that only the exported file decides."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from penjing.core.errors import Infeasible
from penjing.data import load
from penjing.data.data import Data
from penjing.steps.gal import gal
from penjing.steps.price import Pricer
from penjing.steps.rbp import rbp
from penjing.steps.ssl import ssl
from penjing.steps.state import Run, State
from tiny import pictures, skilled

STEPS = [
    gal(epochs=1, batch=16, images=64, structures="channels"), ssl(epochs=1, batch=16, images=64),
    rbp(epochs=0.5, batch=16, images=64),
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return skilled()


def file_of(model: nn.Module) -> float:
    """A file that is larger than any prediction says."""
    return 9000 + 4.4 * sum(p.numel() for p in model.parameters())


def taken(step: Any, model: nn.Module, data: Data, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[State, Run]:
    monkeypatch.setattr(Pricer, "measure", lambda self, small: {"size": file_of(small)})
    state = State(copy.deepcopy(model), copy.deepcopy(model), data, ((data.example(2),), {}))
    run = Run(folder, {"size": "0.6x"})
    return step(state, run), run


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.called)
def test_a_file_that_is_larger_than_foretold_is_cut_again(
    step: Any, model: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, run = taken(step, model, data, tmp_path, monkeypatch)
    rounds = run.noted("rounds")
    limit = 0.6 * run.made["original"].cost("size")
    first, last = (one["measured"]["size"] for one in (rounds[0], rounds[-1]))
    assert file_of(state.model) == last <= limit < first
    assert all(certificate["ok"] for certificate in run.noted("certificates"))


def test_a_file_that_cannot_keep_the_bound_is_told(
    model: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ssl(epochs=1, batch=16, images=64, rounds=1)
    with pytest.raises(
        Infeasible, match=r"The exported file misses the budget after 1 round: size 0\.6x is .*measured"
    ):
        taken(step, model, data, tmp_path, monkeypatch)
