"""Masks: open they change nothing, what is learned is exact, and a training that was killed ends the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.data import load
from penjing.data.data import Data
from penjing.graph.trace import trace
from penjing.terms.adversary import Adversary
from penjing.terms.masks import Masks
from penjing.training.checkpoint import Checkpoint
from penjing.training.loop import fit
from penjing.training.options import Options
from tiny import pictures, tiny

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def masks(model: nn.Module, **options: Any) -> Masks:
    site = trace(model, (X,)).site("conv1")
    told = {"lr": 0.3, "penalty": 0.3, "every": 2, "steps": 18}
    return Masks(trace(model, (X,)), {site.name: site.size}, {}, **{**told, **options})


def test_open_masks_change_nothing() -> None:
    model = tiny().eval()
    with torch.no_grad():
        plain = model(X)
        term = masks(model)
        term.attach(model)
        assert torch.equal(model(X), plain)
        term._at["conv1"].data.zero_()
        assert not torch.equal(model(X), plain)
        term.detach()
        assert torch.equal(model(X), plain)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return load(pictures(tmp_path_factory.mktemp("data")), seed=0)


class Killed(Exception):
    """What stops a training."""


class Killer:
    """A term that ends the process after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def attach(self, model: nn.Module) -> list[nn.Parameter]:
        return []

    def __call__(self, x: Tensor, outputs: Any, y: Tensor | None) -> Tensor:
        return x.new_zeros(())

    def after_step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed

    def detach(self) -> None:
        pass


def halved(found: Any, done: float) -> dict[str, Tensor]:
    """Close the first channels, more and more of them."""
    mask = found["conv1"].clone()
    mask[: int(16 * done)] = 0
    return {"conv1": mask}


def learned(data: Data, checkpoint: Checkpoint, steps: int) -> dict[str, Tensor]:
    model, recipe = tiny(), Options(epochs=3, lr=0.01, batch=18, precision="32-true")
    term = masks(model, pace=halved)
    terms = [term, Adversary(3, 1.0, 0.1, 0.01), Killer(steps)]
    fit(model, data.train, None, recipe, terms=terms, seed=1, teacher=tiny(), checkpoint=checkpoint)
    return term.learned() | {name: p.detach() for name, p in model.named_parameters()}


def test_a_training_that_was_killed_ends_the_same(data: Data, tmp_path: Path) -> None:
    expected = learned(data, Checkpoint(tmp_path / "whole", 1), 1000)
    with pytest.raises(Killed):
        learned(data, Checkpoint(tmp_path / "killed", 1), 13)
    found = learned(data, Checkpoint(tmp_path / "killed", 1), 1000)
    assert bool((expected["conv1"][:15] == 0).all()) and bool((expected["conv1"] > 0).any())
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
