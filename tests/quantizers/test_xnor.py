"""XNOR-Net: known answers, its gradient, centring, and K."""

import pytest
import torch
from torch import nn

from penjing.quantizers.xnor import Gained, xnor

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.6]])


def test_known_answers() -> None:
    found = xnor().weights((1, 8), 1)(VECTOR)
    torch.testing.assert_close(found, 0.4125 * VECTOR.sign())
    assert float(((found - VECTOR) ** 2).sum()) == pytest.approx(0.64375)


def test_no_other_scale_of_the_signs_is_nearer() -> None:
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    found = xnor().weights((4, 3, 3, 3), 1)(weight)
    least = (weight - found).square().sum()
    for factor in (0.99, 1.01):
        assert (weight - factor * found).square().sum() > least


@pytest.mark.parametrize(("by_count", "times"), [(False, 1), (True, 4)])
def test_the_gradient_is_the_papers(by_count: bool, times: int) -> None:
    latent = torch.tensor([[0.5, -1.0, 0.2, -0.3]], requires_grad=True)  # a scale of 0.5, one weight at the bound
    (xnor(by_count=by_count).weights((1, 4), 1)(latent) * torch.tensor([[1.0, 1, -2, 3]])).sum().backward()
    assert latent.grad is not None
    torch.testing.assert_close(latent.grad, times * torch.tensor([[0.75, 0.25, -1.5, 2.25]]))


def test_latent_weights_are_centred_over_channels_then_clipped() -> None:
    module = xnor().weights((1, 2, 1, 2), 1)
    weight = torch.tensor([[[[1.0, 5.0]], [[3.0, -1.0]]]])
    settled = torch.tensor([[[[-1.0, 1.0]], [[1.0, -1.0]]]])
    latent = nn.Parameter(weight.clone())
    module.after_step(latent, 0.0)
    assert torch.equal(latent.detach(), settled)
    assert torch.equal(module.start(weight), settled) and weight[0, 0, 0, 1] == 5


def test_a_depthwise_filter_is_not_centred_away() -> None:
    weight = torch.full((3, 1, 3, 3), 0.5)
    assert torch.equal(xnor().weights((3, 1, 3, 3), 1).start(weight), weight)


def test_the_gradient_of_what_is_read_ends_before_one() -> None:
    reads = xnor().reads(1, 1)
    assert reads is not None
    x = torch.tensor([-1.0, -0.9, 0.0, 0.9, 1.0], requires_grad=True)
    reads(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.tensor([0.0, 1, 1, 1, 0]))


def test_weights_alone() -> None:
    assert xnor(activations=False).reads(4, 1) is None


def test_sizes_of_what_is_read() -> None:
    reads = xnor(gain=True).reads(1, 1)
    assert isinstance(reads, Gained)
    x = (torch.arange(1.0, 17) - 8).view(1, 1, 4, 4)
    found = reads.gain(x, nn.Conv2d(1, 5, 3, padding=1))
    assert found.shape == (1, 1, 4, 4)
    centre, corners = torch.tensor([[30.0, 27], [30, 33]]) / 9, torch.tensor([[18.0, 10], [14, 22]]) / 9
    torch.testing.assert_close(found[0, 0, 1:3, 1:3], centre)
    torch.testing.assert_close(found[0, 0, ::3, ::3], corners)
    assert torch.equal(reads.gain(x, nn.Linear(4, 3)), x.abs().mean(-1, keepdim=True))
    assert xnor().reads(1, 1).gain(x, nn.Conv2d(1, 5, 3)) is None  # type: ignore[union-attr]


def test_sizes_of_groups_are_their_own() -> None:
    reads = xnor(gain=True).reads(4, 1)
    assert isinstance(reads, Gained)
    x = torch.arange(1.0, 5).view(1, 4, 1, 1).expand(1, 4, 5, 5)
    found = reads.gain(x, nn.Conv2d(4, 6, 3, stride=2, groups=2, padding="valid"))
    assert found.shape == (1, 6, 2, 2)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor([1.5, 1.5, 1.5, 3.5, 3.5, 3.5]))


def test_the_scaled_product_is_near_the_real_one() -> None:
    generator = torch.Generator().manual_seed(0)
    x, layer = torch.randn(2, 32, 8, 8, generator=generator), nn.Conv2d(32, 8, 3, bias=False)
    method = xnor(gain=True)
    reads, weights = method.reads(32, 1), method.weights(tuple(layer.weight.shape), 1)
    assert isinstance(reads, Gained)
    with torch.no_grad():
        real = layer(x)
        found = nn.functional.conv2d(reads(x), weights(layer.weight)) * reads.gain(x, layer)
        assert (found - real).norm() < 0.85 * real.norm()
        assert torch.corrcoef(torch.stack([found.flatten(), real.flatten()]))[0, 1] > 0.55
