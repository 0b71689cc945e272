"""What every registered quantizer keeps, those of other packages among them."""

import pytest
import torch
from torch import nn

from penjing.core.registry import build, entries
from penjing.packing import stored

CHANCE = torch.Generator().manual_seed(0)
WEIGHTS = {
    "usual": 0.1 * torch.randn(8, 6, 3, 3, generator=CHANCE),
    "linear": torch.randn(5, 12, generator=CHANCE),
    "depthwise": torch.randn(6, 1, 3, 3, generator=CHANCE),
    "zeros": torch.zeros(4, 3),
    "constant": torch.full((4, 3, 1, 1), -0.3),
    "one": torch.tensor([[0.7]]),
}


@pytest.fixture(params=sorted(entries("quantizer")))
def quantizer(request):
    return build("quantizer", request.param)


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_is_stored_is_what_is_computed_with(quantizer, name):
    weight = WEIGHTS[name]
    for bits in quantizer.widths:
        rounding = quantizer.weights(tuple(weight.shape), bits)
        latent = nn.Parameter(rounding.start(weight))
        assert latent.shape == weight.shape
        found = rounding.train()(latent)
        found.square().sum().backward()
        moved = [latent] if rounding.latent else list(rounding.parameters())
        assert moved and all(one.grad is not None and bool(one.grad.isfinite().all()) for one in moved)
        rounding.after_step(latent, 0.5)
        computed = rounding.eval()(latent).detach()
        levels = rounding.levels(latent.detach())
        assert computed.shape == weight.shape and bool(computed.isfinite().all())
        assert torch.equal(levels.values(), computed)
        again = stored.unpack("conv", (one := stored.pack("conv", levels)).facts, one.tensors, tuple(weight.shape))
        assert torch.equal(again.values(), computed)


def test_a_state_fills_a_new_module(quantizer):
    weight, bits = WEIGHTS["usual"], quantizer.widths[-1]
    old, new = (quantizer.weights(tuple(weight.shape), bits) for _ in range(2))
    latent = old.start(weight)
    new.load_state_dict(old.state_dict())
    assert torch.equal(new.eval()(latent), old.eval()(latent))


def test_it_says_how_many_bits_are_stored(quantizer):
    shape = tuple(WEIGHTS["usual"].shape)
    sizes = [quantizer.stored(shape, bits) for bits in quantizer.widths]
    assert sizes == sorted(sizes) and sizes[0] > 0 and sizes[-1] < 32 * WEIGHTS["usual"].numel()
    assert quantizer.usual in (0, *quantizer.widths)
