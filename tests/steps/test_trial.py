"""Searches whose trials train or refit what they judge, alone and on workers."""

from __future__ import annotations

import pytest

from penjing.data import load
from penjing.graph.trace import plain
from penjing.steps.prune import prune
from penjing.steps.state import Run, State
from penjing.workers import Workers
from tiny import pictures, skilled


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


@pytest.fixture(scope="module")
def model():
    return plain(skilled())


def searched(model, data, folder, judge, workers=0):
    bees = {"abcpruner": {"sources": 3, "cycles": 1}}
    run = Run(folder, {"macs": "0.2x"}, workers=Workers(workers))
    state = State(model, model, data, ((data.example(2),), {}))
    (plan,) = prune(criterion="random", allocator=bees, measure=judge, step=1)(state, run).plans
    return plan.key, run.noted("trials"), run.noted("searches")[0]["trials"]


@pytest.mark.parametrize(
    "judge",
    [
        {"tuned_error": {"epochs": 2, "lr": 0.05, "train_batch": 16, "terms": ["soft_targets"]}},
        {"error": {"reconstruct": 64}},
    ],
    ids=lambda judge: next(iter(judge)),
)
def test_workers_find_the_same_where_trials_train_or_refit(model, data, tmp_path, judge):
    alone = searched(model, data, tmp_path, judge)
    assert searched(model, data, tmp_path, judge, workers=2) == alone
    _, trials, asked = alone
    assert len(trials) <= asked == 9
    _, untouched, _ = searched(model, data, tmp_path, "error")
    name = next(iter(judge))
    assert trials[0]["plan"] == untouched[0]["plan"] and trials[0]["costs"][name] < untouched[0]["costs"]["error"]
    assert data.test_reads == 0
