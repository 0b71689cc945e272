"""BinaryConnect: known answers, draws, the paper's learning rates and bounds."""

import math

import pytest
import torch
from torch import nn

from penjing.quantizers.binaryconnect import binaryconnect, glorot_bound


def test_known_answers() -> None:
    weight = torch.tensor([[-2.0, -0.3, 0.0, 0.3]])
    assert torch.equal(binaryconnect(glorot=False).weights((1, 4), 1)(weight), torch.tensor([[-1.0, -1, 1, 1]]))
    height = math.sqrt(1.5 / 5)
    found = binaryconnect().weights((1, 4), 1)(weight)
    torch.testing.assert_close(found, height * torch.tensor([[-1.0, -1, 1, 1]]))
    assert glorot_bound((8, 4, 3, 3)) == pytest.approx(math.sqrt(1.5 / (36 + 72)))


def test_draws_are_as_often_one_as_the_latent_weight_says() -> None:
    torch.manual_seed(0)
    module = binaryconnect(stochastic=True, glorot=False).weights((100, 1000), 1)
    latent = torch.full((100, 1000), 0.5 * module.bound)
    assert float(module(latent).mean()) == pytest.approx(0.5, abs=0.02)
    assert set(module(-2 * latent.sign()).unique().tolist()) == {-1.0}  # which is out of bounds
    assert torch.equal(module.eval()(latent), torch.ones(100, 1000))


def test_the_gradient_of_glorots_weights_passes_unchanged() -> None:
    latent = torch.randn(3, 4, requires_grad=True)
    (binaryconnect().weights((3, 4), 1)(latent) * torch.arange(12.0).view(3, 4)).sum().backward()
    assert latent.grad is not None
    assert torch.equal(latent.grad, torch.arange(12.0).view(3, 4))


@pytest.mark.parametrize(("kind", "power"), [(torch.optim.SGD, 2), (torch.optim.Adam, 1)])
def test_steps_are_the_papers_with_its_factors_on_learning_rates(kind: type, power: int) -> None:
    torch.manual_seed(0)
    module, pull = binaryconnect(glorot=False).weights((3, 4), 1), torch.randn(3, 4)
    ours, theirs = nn.Parameter(torch.randn(3, 4) * 0.1), nn.Parameter(torch.zeros(3, 4))
    factor = 1 / module.bound
    theirs.data = ours.detach() * factor  # the paper's latent weight, within -1 and 1
    steps = kind([ours], lr=1e-3), kind([theirs], lr=1e-3 * factor**power)
    for _ in range(3):
        (module(ours) * pull).sum().backward()
        theirs.grad = pull.clone()  # of the binary weight, and passed straight through
        for step in steps:
            step.step()
            step.zero_grad()
    torch.testing.assert_close(ours.detach() * factor, theirs.detach(), atol=1e-5, rtol=1e-5)


def test_the_latent_weight_stays_within_its_bounds() -> None:
    module = binaryconnect().weights((2, 2), 1)
    latent = nn.Parameter(torch.tensor([[-3.0, 0.1], [0.2, 3.0]]))
    module.after_step(latent, 0.5)
    torch.testing.assert_close(latent.detach(), torch.tensor([[-module.bound, 0.1], [0.2, module.bound]]))


def test_a_trained_weight_fills_half_of_the_bounds_and_keeps_its_signs() -> None:
    weight = torch.rand(8, 5, generator=torch.Generator().manual_seed(0)) - 0.5
    module = binaryconnect().weights((8, 5), 1)
    latent = module.start(weight)
    assert float(latent.abs().mean()) == pytest.approx(module.bound / 2, rel=0.01)
    assert torch.equal(latent.sign(), weight.sign())
    assert torch.equal(module.start(torch.zeros(8, 5)), torch.zeros(8, 5))
