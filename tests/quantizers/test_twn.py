"""Ternary weights: the known answers, no weight at all, and what is stored."""

import pytest
import torch

from penjing.core.errors import PlanError
from penjing.quantizers.twn import twn

VECTOR = torch.tensor([[0.9, -0.1, 0.3, -0.7, 0.05, -0.45, 0.2, 0.6]])


def rounded(weight: torch.Tensor, **options: object) -> torch.Tensor:
    return twn(**options).weights(tuple(weight.shape), 2)(weight)  # type: ignore[arg-type]


def test_known_answers() -> None:
    found = rounded(VECTOR)
    torch.testing.assert_close(found, 0.59 * torch.tensor([[1.0, 0, 1, -1, 0, -1, 0, 1]]))
    assert float(((found - VECTOR) ** 2).sum()) == pytest.approx(0.2645)
    best = rounded(VECTOR, exact=True)
    torch.testing.assert_close(best.abs().max(), torch.tensor(0.6625))
    assert float(((best - VECTOR) ** 2).sum()) == pytest.approx(0.249375)


@pytest.mark.parametrize("options", [{}, {"per_filter": True}, {"exact": True}, {"exact": True, "per_filter": True}])
def test_what_is_stored_is_what_is_computed_with(options: dict[str, object]) -> None:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.arange(6).view(6, 1, 1, 1)
    module = twn(**options).weights(tuple(weight.shape), 2)  # type: ignore[arg-type]
    assert torch.equal(module.levels(weight).values(), module(weight))  # whose first filter is all zeros


def test_gradients_reach_the_latent_weight_unchanged() -> None:
    weight = VECTOR.clone().requires_grad_()
    (rounded(weight) * torch.arange(8.0)).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.arange(8.0)[None])


def test_a_threshold_that_cannot_be() -> None:
    with pytest.raises(PlanError, match="delta"):
        twn(delta=0)
