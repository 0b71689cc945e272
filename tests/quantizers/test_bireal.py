"""Bi-Real Net: the derivative of ApproxSign, and weights whose gradient has no scale."""

import torch

from penjing.quantizers.bireal import bireal


def test_gradients_of_what_is_read_are_those_of_approx_sign() -> None:
    x = torch.tensor([-1.5, -0.5, 0.0, 0.5, 1.5], requires_grad=True)
    found = bireal().reads(1, 1)(x)
    assert torch.equal(found, torch.tensor([-1.0, -1, 1, 1, 1]))
    found.sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 1, 2, 1, 0]))  # type: ignore[arg-type]


def test_weights_have_their_mean_size_and_gradients_pass_within_one() -> None:
    latent = torch.tensor([[0.5, -1.0, 1.2, -0.3]], requires_grad=True)
    found = bireal().weights((1, 4), 1)(latent)
    torch.testing.assert_close(found, torch.tensor([[0.75, -0.75, 0.75, -0.75]]))
    (found * torch.arange(1.0, 5)).sum().backward()
    assert torch.equal(latent.grad, torch.tensor([[1.0, 2, 0, 4]]))  # type: ignore[arg-type]
