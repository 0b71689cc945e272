"""Two learned scales: the known sets, and the gradients of scales and of each set."""

import torch

from penjing.quantizers.ttq import ttq

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.02]])
SIGNS = torch.tensor([[1.0, -1, 1, -1, 1, -1, 1, 0]])


def test_known_answers() -> None:
    module = ttq().weights((1, 8), 2)
    weight = VECTOR.clone().requires_grad_()
    assert torch.equal(module(weight).detach(), SIGNS)
    positive, negative = module.parameters()
    with torch.no_grad():
        positive.fill_(0.5)
        negative.fill_(3.0)
    grad = torch.arange(1.0, 9.0)[None]
    (module(weight) * grad).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, grad * torch.tensor([[0.5, 3, 0.5, 3, 0.5, 3, 0.5, 1]]))
    for scale, total in ((positive, 1 + 3 + 5 + 7), (negative, -(2 + 4 + 6))):
        torch.testing.assert_close(scale.grad, torch.tensor(total / 8**0.5))


def test_it_begins_near_the_trained_weight() -> None:
    module = ttq(delta=0.3).weights((1, 8), 2)
    latent = module.start(VECTOR * 0.01)
    torch.testing.assert_close(module(latent).detach(), torch.tensor([[0.006, 0, 0.006, -0.00575, 0, -0.00575, 0, 0]]))
