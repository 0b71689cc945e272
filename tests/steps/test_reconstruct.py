"""Chains that order their channels, as Denton's do, refitted: in the order that the norm and the sum behind have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.core.errors import TrainError
from penjing.core.registry import build
from penjing.data import Data, load
from penjing.steps.state import Run, State
from tiny import pictures, tiny

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


def normed() -> nn.Module:
    """Return a network whose norms do something to each channel of their own."""
    model: Any = tiny()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for norm in (model.bn0, model.bn1, model.bn2):
            norm.running_mean.normal_(generator=generator)
            for tensor in (norm.running_var, norm.weight):
                tensor.uniform_(0.5, 2, generator=generator)
            norm.bias.normal_(generator=generator)
    return model.eval()


def through(state: State, run: Run, *steps: Any) -> State:
    for step in steps:
        state = build("step", step)(state, run)
    return state


@torch.no_grad()
def apart(state: State) -> float:
    wanted = state.original(X)
    return float((state.model(X) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("layer", ["conv1", "conv2"])  # behind the second is a sum
def test_a_spoilt_last_stage_is_found_again(data: Data, tmp_path: Path, layer: str) -> None:
    model, run = normed(), Run(tmp_path)
    state = State(model, model, data, ((X,), {}))
    state = through(state, run, {"factorize": {"rewrite": "bicluster", "ranks": "full", "include": [layer]}})
    assert apart(state) < 1e-4
    chain: Any = state.model.get_submodule(layer)
    assert chain.restore.index.tolist() != list(range(len(chain.restore.index)))
    with torch.no_grad():
        chain.last.weight.add_(torch.randn(chain.last.weight.shape, generator=torch.Generator().manual_seed(3)))
    assert apart(state) > 0.1
    assert apart(through(state, run, {"reconstruct": {"images": 96, "ridge": 1e-7}})) < 1e-2


def test_colours_of_a_narrower_layer_are_refitted_and_what_cannot_be_told_is_refused(
    data: Data, tmp_path: Path
) -> None:
    model = normed()
    run, state = Run(tmp_path, {"macs": "0.8x"}), State(model, model, data, ((X,), {}))
    colours = {"factorize": {"rewrite": "monochromatic", "ranks": 4, "include": ["stem"]}}
    cut = {"prune": {"criterion": "l2", "step": 4, "include": ["stem*"]}}
    chained = through(state, run, cut, colours)
    assert 4 < len(chained.model.stem.order.index) < 16  # type: ignore[union-attr, arg-type]
    assert apart(through(chained, run, {"reconstruct": {"images": 96}})) < 0.7 * apart(chained)
    other_way = through(state, run, colours, cut | {"prune": cut["prune"] | {"step": 1}})
    with pytest.raises(TrainError, match=r"stem.* cut together with ranks of a chain. Reconstruct before"):
        through(other_way, run, "reconstruct")
