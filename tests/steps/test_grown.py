"""A network from new weights is trained, then cut: what training made of it is the original of all that follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import penjing
from penjing.data import load
from penjing.data.data import Data
from penjing.graph import form
from penjing.steps.grown import TOLD
from penjing.steps.state import Run, State
from penjing.steps.train import train
from tiny import pictures, skilled, tiny

LESSON = train(epochs=6, batch=16, lr=0.05)
STEPS: list[Any] = [LESSON, "prune", "evaluate", "reconstruct", "evaluate", train(epochs=1, batch=16, lr=1e-3)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


@pytest.fixture(scope="module")
def whole(data: Data) -> Any:
    return penjing.run(tiny(), data, [*STEPS, "export", "check"], "macs=0.6x", threads=1, references=["random"])


def test_a_cut_is_refitted_to_and_taught_by_what_was_trained(whole: Any) -> None:
    original, ours, random = whole.results["rows"]
    assert original["accuracy"] > 90 and ours["accuracy"] > 90
    assert TOLD in whole.results["remarks"]
    first, second = whole.results["trained"]
    assert first["terms"] == [] and [term.partition("(")[0] for term in second["terms"]] == ["soft_targets", "hints"]
    assert whole.results["validation"]["before"] > 90
    assert random["macs"] == ours["macs"]


class Killed(BaseException):
    """What nothing catches."""


@pytest.mark.parametrize("at", [2, 4, 6])
def test_a_run_that_goes_on_has_the_same_original(
    data: Data, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    def run() -> Any:
        return penjing.run(tiny(), data, [*STEPS, "export", "check"], "macs=0.6x", folder=tmp_path, threads=1)

    keep, count = penjing.api.keep, iter(range(1, 20))

    def killed(state: State, book: Run) -> None:
        keep(state, book)
        if next(count) == at:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(penjing.api, "keep", killed)
        with pytest.raises(Killed):
            run()
    result = run()
    for name, tensor in form.tensors(whole.model).items():
        assert torch.equal(form.tensors(result.model)[name], tensor), name
    assert [row["accuracy"] for row in result.results["rows"]] == [r["accuracy"] for r in whole.results["rows"][:2]]
    assert result.results["validation"] == whole.results["validation"]


@pytest.mark.parametrize(
    ("network", "steps"),
    [
        (skilled, [LESSON, "prune"]),
        (tiny, ["prune", LESSON, "reconstruct"]),
        (tiny, [train(epochs=1, batch=16, lr=1e-9), "prune"]),
        (tiny, [LESSON, LESSON]),
    ],
    ids=["it came trained", "it was cut first", "training taught nothing", "nothing was cut"],
)
def test_the_original_is_what_came(data: Data, network: Any, steps: list[Any]) -> None:
    model = network()
    found = penjing.run(model, data, [*steps, "export"], "macs=0.8x", threads=1)
    assert TOLD not in found.results["remarks"]


def test_a_step_that_extends_training_and_changes_the_form_counts_as_a_cut(data: Data) -> None:
    found = penjing.run(tiny(), data, [LESSON, {"lccl": {"epochs": 1, "batch": 16}}, "export"], threads=1)
    assert TOLD in found.results["remarks"] and found.results["rows"][0]["accuracy"] > 90


def test_whoever_trains_twice_is_not_taught_by_the_first(data: Data) -> None:
    found = penjing.run(tiny(), data, [LESSON, LESSON, "prune", "export"], "macs=0.8x", threads=1)
    assert [one["terms"] for one in found.results["trained"]] == [[], []] and TOLD in found.results["remarks"]


def test_the_time_of_what_was_trained_is_not_that_of_what_came(data: Data, tmp_path: Path) -> None:
    """Or a process that goes on would hold later steps against the first of the two."""
    penjing.run(
        tiny(), data, ["export", LESSON, "prune", "export", "check"], "latency=0.9x", threads=1, folder=tmp_path
    )
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    measured = [
        line["name"] for line in lines if line["event"] == "found" and line["name"].startswith("latency of the")
    ]
    assert "latency of the grown original" in measured and not any("#" in name for name in measured)
