"""What holds for every method of one bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor, nn

from penjing.core.registry import build, entries
from penjing.quantizers.base import Quantizer, Weights
from penjing.quantizers.binary import Binary

METHODS: list[Any] = sorted(name for name, entry in entries("quantizer").items() if issubclass(entry, Binary))
FORMS: list[Any] = [
    *METHODS,
    {"binaryconnect": {"stochastic": True}}, {"binaryconnect": {"glorot": False}},
    {"xnor": {"by_count": False, "gain": True}}, {"xnor": {"activations": False}},
    {"irnet": {"activations": False}}, {"lab": {"per_filter": True}},
]  # fmt: skip
SHAPES = [(6, 4, 3, 3), (5, 1, 3, 3), (4, 1, 1, 1), (3, 7, 1, 1), (8, 10), (3, 1), (1, 2, 5, 5)]
KINDS = ["normal", "zero filter", "zeros", "constant", "huge", "tiny"]


def drawn(shape: tuple[int, ...], kind: str, seed: int) -> Tensor:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3
    if kind == "zero filter":
        weight[0] = 0
    if kind == "constant":
        weight[:] = 0.1
    return weight * {"zeros": 0.0, "huge": 1e6, "tiny": 1e-12}.get(kind, 1.0)


def made(form: Any, shape: tuple[int, ...]) -> Weights:
    quantizer = build("quantizer", form)
    assert isinstance(quantizer, Quantizer)
    return quantizer.weights(shape, 1)


def trained(module: Weights, weight: Tensor, steps: int = 2) -> nn.Parameter:
    """Return the latent weight after a few steps of training."""
    latent = nn.Parameter(module.start(weight))
    optimizer = torch.optim.Adam([latent], lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        rounded = module(latent)
        (rounded * torch.linspace(-1, 1, rounded.numel()).view_as(rounded)).sum().backward()
        assert latent.grad is not None and latent.grad.isfinite().all()
        optimizer.step()
        module.after_step(latent, (step + 1) / steps)
    return latent


@pytest.mark.parametrize("form", FORMS, ids=str)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=st.sampled_from(SHAPES), kind=st.sampled_from(KINDS), seed=st.integers(0, 3), steps=st.integers(0, 2))
def test_what_is_stored_is_what_is_computed_with(
    form: Any, shape: tuple[int, ...], kind: str, seed: int, steps: int
) -> None:
    module = made(form, shape)
    latent = trained(module, drawn(shape, kind, seed), steps)
    levels, found = module.eval().levels(latent), module(latent)
    assert torch.equal(levels.values(), found)
    assert found.isfinite().all() and found.dtype == torch.float32
    assert levels.bits == 1 and torch.equal(levels.table, torch.tensor([-1.0, 1.0]))
    assert levels.scale.shape in {(), shape[:1]} and (levels.scale >= 0).all()


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_held_comes_back_from_a_file(form: Any) -> None:
    shape = (6, 4, 3, 3)
    module = made(form, shape)
    latent = trained(module, drawn(shape, "normal", 0))
    other = made(form, shape)
    other.load_state_dict(load(save(module.state_dict())) if module.state_dict() else {})
    assert torch.equal(other.eval()(latent), module.eval()(latent))
    again = copy.deepcopy(latent)
    for each, weight in ((module, latent), (other, again)):
        weight.grad = None
        each(weight).square().sum().backward()
    assert latent.grad is not None and again.grad is not None
    assert torch.equal(latent.grad, again.grad)


@pytest.mark.parametrize("name", METHODS)
def test_what_layers_read_becomes_signs(name: str) -> None:
    quantizer = build("quantizer", name)
    reads = quantizer.reads(2, 1)
    assert (reads is not None) == quantizer.signed
    if reads is None:
        return
    assert quantizer.pad == -1
    x = torch.tensor([[-3.0, -0.0, 0.0, 1e-30, torch.inf]], requires_grad=True)
    found = reads(x)
    assert torch.equal(found, torch.tensor([[-1.0, 1, 1, 1, 1]]))
    found.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad[0, 1] > 0
    with torch.no_grad():
        assert torch.equal(reads(x), found)


def test_a_binary_layer_is_exported_as_comparisons() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reads = build("quantizer", "irnet").reads(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.reads(x)
            return found

    with torch.no_grad():
        program = torch.export.export(Read().eval(), (torch.randn(2, 3),))
    calls = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.ge.Scalar" in calls and not any("tanh" in call for call in calls)
