"""IR-Net: balanced filters, powers of two, and the annealed gradient."""

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.quantizers.irnet import Libra, irnet

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.6]])


def test_known_answers() -> None:
    found = irnet().weights((1, 8), 1)(VECTOR)
    expected = torch.tensor([[1.0, -1, 1, -1, -1, -1, 1, 1]])  # the fifth is below the mean, 0.1
    assert torch.equal(found, expected)
    assert torch.equal(irnet().weights((1, 8), 1)(7 * VECTOR - 3), found)  # whatever the scale and the mean


def test_scales_are_powers_of_two_next_to_the_mean_size() -> None:
    weight = torch.randn(16, 9, generator=torch.Generator().manual_seed(0))
    weight[0] = torch.eye(9)[0]  # one weight stands out: a mean size of 0.59
    weight[1:3, 1:] = 0
    scale = irnet().weights((16, 9), 1).levels(weight).scale
    balanced = (weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)
    assert torch.equal(scale, 2 ** balanced.abs().mean(1).log2().round())
    assert torch.equal(torch.frexp(scale).mantissa, torch.full((16,), 0.5))
    assert scale[0] == 0.5


def test_t_and_k_follow_the_training() -> None:
    module, reads = irnet().weights((1, 8), 1), irnet().reads(1, 1)
    assert isinstance(module, Libra) and reads is not None
    expected = [(0.0, 1e-3, 1000.0), (0.5, 0.1, 10.0), (0.75, 1.0, 1.0), (1.0, 10.0, 1.0), (1.5, 10.0, 1.0)]
    assert (float(module.estimate.t), float(module.estimate.k)) == pytest.approx((1e-3, 1000.0))
    for progress, t, k in expected:
        module.after_step(nn.Parameter(VECTOR), progress)
        reads.after_step(progress)
        for estimate in (module.estimate, reads.estimate):
            assert (float(estimate.t), float(estimate.k)) == pytest.approx((t, k))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_gradients_are_those_of_k_tanh_of_the_balanced_weight(progress: float) -> None:
    module, pull = irnet().weights((1, 8), 1), torch.arange(8.0)[None]
    module.after_step(nn.Parameter(VECTOR), progress)
    found, expected = VECTOR.clone().requires_grad_(), VECTOR.clone().requires_grad_()
    (module(found) * pull).sum().backward()
    t = 1e-3 * 1e4**progress
    balanced = (expected - expected.mean()) / expected.std()
    (max(1 / t, 1) * torch.tanh(t * balanced) * pull).sum().backward()  # the scale is 1
    assert found.grad is not None and expected.grad is not None
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_the_gradient_of_what_is_read() -> None:
    reads = irnet().reads(1, 1)
    assert reads is not None
    reads.after_step(1.0)
    x = torch.tensor([-0.1, 0.0, 0.3], requires_grad=True)
    reads(x).sum().backward()
    torch.testing.assert_close(x.grad, 10 * (1 - torch.tanh(10 * x.detach()) ** 2))


def test_a_filter_of_one_weight_keeps_its_sign_and_a_constant_one_is_nothing() -> None:
    one = irnet().weights((3, 1, 1, 1), 1)(torch.tensor([0.3, -0.3, 0.0]).view(3, 1, 1, 1))
    assert one.flatten().tolist() == [0.25, -0.25, 0.0]
    latent = torch.full((1, 9), 0.1, requires_grad=True)  # its mean is another number by rounding
    found = irnet().weights((1, 9), 1)(latent)
    assert float(found.detach().abs().max()) < 1e-6
    found.sum().backward()
    assert latent.grad is not None and float(latent.grad.abs().max()) < 1e-3


def test_options_that_cannot_be() -> None:
    assert irnet(activations=False).reads(4, 1) is None
    with pytest.raises(PlanError, match="t_max"):
        irnet(t_min=1.0, t_max=0.5)


def test_t_stays_a_number() -> None:
    with pytest.raises(PlanError, match="t grows from t_min"):
        irnet(t_max=float("inf"))
