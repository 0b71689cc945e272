"""DoReFa: the known answers, gradients through tanh, and the noise of rounded gradients."""

import pytest
import torch

from penjing.core.errors import PlanError
from penjing.quantizers.dorefa import NoisyGradient, dorefa, rounded_gradient

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.6]])
KNOWN = {
    1: [0.4125, -0.4125, 0.4125, -0.4125, 0.4125, -0.4125, 0.4125, 0.4125],
    2: [1, -0.3333333, 0.3333333, -1, 0.3333333, -0.3333333, 0.3333333, 1],
    3: [1, -0.1428571, 0.4285714, -0.7142857, 0.1428571, -0.7142857, 0.1428571, 0.7142857],
    4: [1, -0.2, 0.4666667, -0.8666667, 0.0666667, -0.6, 0.3333333, 0.7333333],
}
GRADIENT = torch.tensor([[0.4, -0.1, 0.05, -0.8]])


@pytest.mark.parametrize("bits", KNOWN)
def test_known_weights(bits: int) -> None:
    module = dorefa().weights((1, 8), bits)
    torch.testing.assert_close(module(VECTOR), torch.tensor([KNOWN[bits]]))


def test_known_activations() -> None:
    module = dorefa(clip=1.0).reads(1, 1)
    assert module is not None
    x = torch.tensor([-0.2, 0.1, 0.2, 0.4, 0.5, 0.7, 0.9, 1.3], requires_grad=True)
    found = module(x)
    torch.testing.assert_close(found.detach() * 3, torch.tensor([0.0, 0, 1, 1, 2, 2, 3, 3]))
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 1, 0]


def test_gradients_pass_the_tanh_and_its_largest() -> None:
    grads = []
    for rounds in (True, False):
        weight = VECTOR.clone().requires_grad_()
        squashed = weight.tanh()
        found = dorefa().weights((1, 8), 3)(weight) if rounds else squashed / squashed.abs().max()
        (found * torch.arange(8.0)).sum().backward()
        grads.append(weight.grad)
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize(
    ("bits", "known"), [(2, [0.8 / 3, -0.8 / 3, 0.8 / 3, -0.8]), (4, [0.3733, -0.0533, 0.0533, -0.8])]
)
def test_known_gradients_without_noise(bits: int, known: list[float]) -> None:
    torch.testing.assert_close(rounded_gradient(GRADIENT, 2**bits - 1, 0.0), torch.tensor([known]), atol=1e-4, rtol=0)


def test_gradients_with_noise_are_right_on_average_and_fresh() -> None:
    module = NoisyGradient(2)
    torch.manual_seed(0)  # the noise is torch's own, as that of a dropout is
    y = GRADIENT.expand(20_000, 4).clone().requires_grad_()
    (module(y) * GRADIENT).sum().backward()
    assert y.grad is not None
    torch.testing.assert_close(y.grad.mean(0), GRADIENT[0], atol=0.01, rtol=0)
    assert len(y.grad.unique(dim=0)) > 4
    assert float(y.grad.abs().max()) == pytest.approx(0.8)


def test_gradients_are_left_alone_in_evaluation_and_where_there_are_none() -> None:
    module = NoisyGradient(2)
    y = torch.zeros(2, 4, requires_grad=True)
    module(y)[0].sum().mul(0.3).backward()  # nothing reaches the second picture
    assert y.grad is not None
    assert torch.equal(y.grad[1], torch.zeros(4))
    assert dorefa().writes(2) is None
    y = GRADIENT.clone().requires_grad_()
    (module.eval()(y) * GRADIENT).sum().backward()
    assert y.grad is not None
    assert torch.equal(y.grad, GRADIENT)


def test_a_picture_is_rounded_by_its_own_largest() -> None:
    both = torch.cat([GRADIENT, GRADIENT / 1000])
    torch.testing.assert_close(rounded_gradient(both, 15, 0.0)[1], rounded_gradient(GRADIENT, 15, 0.0)[0] / 1000)


def test_a_clip_is_a_number() -> None:
    with pytest.raises(PlanError, match="clip is the largest number that a layer reads; got inf"):
        dorefa(clip=float("inf"))
