"""Learned clips: the known answer with its tie, the penalty, and inputs of both signs."""

import pytest
import torch

from penjing.core.errors import PlanError
from penjing.quantizers.pact import pact


def test_known_answers() -> None:
    module = pact(clip=2.0, decay=0.0).reads(1, 2)
    assert module is not None
    module.start(torch.tensor([[0.0, 1.0]]))
    (clip,) = module.parameters()
    x = torch.tensor([-1, 0.3, 1.0, 2.5], requires_grad=True)
    found = module(x)
    torch.testing.assert_close(found.detach(), torch.tensor([0, 0, 4 / 3, 2]))  # 1.0 lies halfway: to the even one
    for at, expected in enumerate([0.0, 0.0, 0.0, 1.0]):
        (grad,) = torch.autograd.grad(found[at], clip, retain_graph=True)
        assert float(grad) == expected
    found.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_a_number_at_the_clip_reaches_it() -> None:
    module = pact(clip=2.0, decay=0.0).reads(1, 2)
    assert module is not None
    (clip,) = module.parameters()
    (grad,) = torch.autograd.grad(module(torch.tensor([2.0])).sum(), clip)
    assert float(grad) == 1


def test_the_penalty_is_that_of_the_loss_while_it_is_trained() -> None:
    module = pact(clip=2.0, decay=0.01).reads(1, 2)
    assert module is not None
    (clip,) = module.parameters()
    for training, expected in ((True, 0.02), (False, 0.0)):
        (grad,) = torch.autograd.grad(module.train(training)(torch.tensor([0.5])).sum(), clip)
        torch.testing.assert_close(grad, torch.tensor(expected))


def test_inputs_of_both_signs_are_clipped_at_both_ends() -> None:
    module = pact(clip=2.0, decay=0.0).reads(1, 3)
    assert module is not None
    module.start(torch.tensor([[-1.0, 1.0]]))
    (clip,) = module.parameters()
    found = module(torch.tensor([-3.0, -0.7, 3.0]))
    torch.testing.assert_close(found.detach(), torch.tensor([-2, -2 / 3, 2]))
    (grad,) = torch.autograd.grad(found[0], clip)
    assert float(grad) == -1


@pytest.mark.parametrize("option", ["clip", "decay"])
def test_options_are_numbers(option: str) -> None:
    with pytest.raises(PlanError, match=rf"{option} is .* got inf"):
        pact(**{option: float("inf")})
