"""The networks are what they promise to be; what pruning does to them is proved elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from .grammar import random_net
from .hostile import HOSTILE

SEEDS = range(30)


def leaves(output: Any) -> list[Tensor]:
    found = _pytree.tree_leaves(output)
    assert found and all(isinstance(leaf, Tensor) for leaf in found)
    return found


def prove(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Run in eval mode, train mode and the exporter; each must give live, finite numbers."""
    with torch.no_grad():
        outputs = leaves(model(*args, **kwargs))
        again = leaves(model(*args, **kwargs))
    for output, same in zip(outputs, again, strict=True):
        assert torch.equal(output, same)
        assert output.shape[0] == 2 and output.isfinite().all()
        assert output.std() > 1e-4
        # A vanished trunk would leave the biases of the head: alive, yet equal for both samples.
        assert (output[0] - output[1]).abs().max() > 1e-4

    program = torch.export.export(model, args, kwargs, strict=False)
    assert any(node.op == "call_function" for node in program.graph.nodes)

    model.train()
    torch.autograd.backward([output.square().sum() for output in leaves(model(*args, **kwargs))])
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(bool(gradient.any()) for gradient in gradients) > len(gradients) // 2


# Exporting an LSTM is announced with a complaint about its private list of weights.
@pytest.mark.filterwarnings("ignore:The tensor attributes self.lstm._flat_weights:UserWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_net_is_alive(name: str) -> None:
    case = HOSTILE[name]
    model = case.build()
    assert not model.training
    args, kwargs = case.inputs()
    prove(model, args, kwargs)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_net_is_deterministic(name: str) -> None:
    case = HOSTILE[name]
    first, second = case.build().state_dict(), case.build().state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(torch.equal(a, b) for a, b in zip(leaves(case.inputs()), leaves(case.inputs()), strict=True))


def test_hostile_nets_are_many_and_of_both_kinds() -> None:
    cases = HOSTILE.values()
    assert len(HOSTILE) >= 60
    assert any(case.named and case.constant for case in cases) and any(not case.named for case in cases)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_net_is_alive(seed: int) -> None:
    model, args = random_net(seed)
    assert not model.training
    prove(model, args, {})


def test_random_net_depends_on_its_seed_alone() -> None:
    for seed in SEEDS[:5]:
        (first, (image,)), (second, (same,)) = random_net(seed), random_net(seed)
        assert first.describe() == second.describe() and torch.equal(image, same)
        with torch.no_grad():
            assert torch.equal(first(image), second(image))
    assert len({random_net(seed)[0].describe() for seed in SEEDS}) == len(SEEDS)
