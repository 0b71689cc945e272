"""Loss-aware binarisation: the known answer, and what is gathered."""

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.quantizers.lab import LossAware, lab

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.02]])
CURVE = torch.tensor([[1.0, 2, 1, 4, 1, 1, 1, 1]])


def scale(module: LossAware, weight: torch.Tensor = VECTOR) -> float:
    return float(module.eval().levels(weight).scale)


def test_known_answers() -> None:
    module = lab().weights((1, 8), 1)
    assert scale(module) == pytest.approx(float(VECTOR.abs().mean()))
    module.second.copy_(CURVE.square())
    module.passes.fill_(10**6)
    assert scale(module) == pytest.approx(0.41)
    module.second.fill_(0.04)
    assert scale(module) == pytest.approx(float(VECTOR.abs().mean()))


def test_the_scale_is_the_best_by_the_curvature() -> None:
    module = lab().weights((1, 8), 1)
    module.second.copy_(CURVE.square())
    found = module(VECTOR).detach()
    least = (CURVE * (VECTOR - found).square()).sum()
    for factor in (0.99, 1.01):
        assert (CURVE * (VECTOR - factor * found).square()).sum() > least


def test_what_is_gathered_is_adams_second_moment() -> None:
    torch.manual_seed(0)
    module, latent = lab(beta2=0.9).weights((3, 4), 1), nn.Parameter(torch.randn(3, 4))
    adam = torch.optim.Adam([latent], lr=0.01, betas=(0.9, 0.9))
    for _ in range(4):
        adam.zero_grad()
        (module(latent) * torch.randn(3, 4)).sum().backward()
        adam.step()
    torch.testing.assert_close(module.second, adam.state[latent]["exp_avg_sq"])
    assert int(module.passes) == 4
    module.eval()(latent).sum().backward()
    assert int(module.passes) == 4  # a gradient in evaluation, as a criterion asks for, is none of the training


def test_gradients_reach_the_latent_weight_unchanged() -> None:
    latent = VECTOR.clone().requires_grad_()
    (lab().weights((1, 8), 1)(latent) * CURVE).sum().backward()
    assert torch.equal(latent.grad, CURVE)  # type: ignore[arg-type]


def test_a_scale_a_filter_is_of_that_filter() -> None:
    weight = torch.cat([VECTOR, 2 * VECTOR])
    found = lab(per_filter=True).weights((2, 8), 1).levels(weight).scale
    torch.testing.assert_close(found, weight.abs().mean(1))


def test_a_memory_that_cannot_be() -> None:
    with pytest.raises(PlanError, match="beta2"):
        lab(beta2=1.0)


def test_a_pass_that_overflows_is_not_gathered() -> None:
    module, weight = lab().weights((1, 8), 1).train(), VECTOR.clone().requires_grad_()
    module(weight).sum().backward()
    before = module.second.clone()
    (module(weight) * torch.inf).sum().backward()
    assert torch.equal(module.second, before) and int(module.passes) == 1
    assert bool(module(weight).isfinite().all())
