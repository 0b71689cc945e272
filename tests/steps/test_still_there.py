"""What is left of an original after cuts of all kinds, one after the other, is told by its own modules."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

import penjing
from penjing.data import load
from penjing.steps.order import ordered
from penjing.steps.state import Run, State
from penjing.steps.still_there import channels_left, relate
from penjing.terms.hints import hints
from tiny import pictures, skilled

CUT = {"prune": {"budget": "macs=0.6x", "criterion": "l1", "allocator": "uniform"}}
AGAIN = {"prune": {"budget": "macs=0.4x", "criterion": "l1", "allocator": "uniform"}}
RANKS = {"factorize": {"rewrite": "svd_spatial", "ranks": {"energy": 0.95}}}


def after(folder: Path, *steps: object) -> State:
    """Take the network through the steps."""
    original, data = skilled().eval(), load(pictures(folder), seed=0)
    state = State(copy.deepcopy(original), original, data, ((data.example(2),), {}))
    run = Run(folder, {})
    for step in ordered(list(steps)) if steps else ():
        state = step(state, run)
    run.close()
    return state


@pytest.mark.parametrize("steps", [(CUT,), (CUT, AGAIN), (RANKS, CUT), (CUT, RANKS, "merge")])
def test_modules_write_as_many_channels_as_are_left(tmp_path: Path, steps: tuple[object, ...]) -> None:
    state = after(tmp_path, *steps)
    left = channels_left(state)
    assert {"stem", "bn0", "conv1", "bn1", "conv2", "bn2"} <= set(left)
    sizes: dict[str, int] = {}
    for name, module in state.model.named_modules():
        module.register_forward_hook(lambda _, __, y, name=name: sizes.__setitem__(name, y.shape[1]))
    with torch.no_grad():
        state.model(*state.example[0])
    for name, there in left.items():
        assert int(there.sum()) == sizes[name] < len(there), name


def test_terms_are_told_where_the_original_teaches_and_something_is_gone(tmp_path: Path) -> None:
    state = after(tmp_path, CUT)
    terms = [hints() for _ in range(3)]
    relate(terms[:1], state)
    relate(terms[1:2], after(tmp_path))
    relate(terms[2:], State(state.model, state.original, state.data, state.example, state.plans, tutor=skilled()))
    assert [bool(term._between.left) for term in terms] == [True, False, False]


def test_a_network_all_of_whose_layers_are_narrower_is_taught_by_hints(tmp_path: Path, capsys) -> None:
    folder = pictures(tmp_path)
    steps = [CUT, {"train": {"epochs": 1, "batch": 16, "lr": 0.005, "terms": ["hints"]}}]
    penjing.run(skilled(), load(folder, seed=0), steps, seed=0, threads=1)
    assert "adds nothing" not in capsys.readouterr().err
