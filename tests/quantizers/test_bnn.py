"""BNN: the gradient of what layers read."""

import torch

from penjing.quantizers.bnn import bnn


def test_gradients_are_those_of_a_hard_tanh() -> None:
    reads = bnn().reads(1, 1)
    x = torch.tensor([-1.5, -1.0, -0.5, 0.0, 1.0, 1.1], requires_grad=True)
    (reads(x) * torch.arange(1.0, 7)).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.tensor([0.0, 2, 3, 4, 5, 0]))


def test_weights_are_of_one_size() -> None:
    weight = torch.tensor([[-2.0, -0.3, 0.0, 0.3]])
    assert torch.equal(bnn(glorot=False).weights((1, 4), 1)(weight), torch.tensor([[-1.0, -1, 1, 1]]))
    torch.testing.assert_close(bnn().weights((1, 4), 1)(weight).abs(), torch.full((1, 4), 0.3**0.5))
