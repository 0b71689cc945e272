"""A group lasso finds the groups that matter; its gradient is that of the penalty."""

from __future__ import annotations

import torch
from torch import nn

from penjing.graph.groups import Groups
from penjing.terms.group_lasso import GroupLasso


def test_it_recovers_which_three_of_ten_groups_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 40, generator=generator)
    true = torch.zeros(10, 4)
    true[[1, 4, 8]] = torch.randn(3, 4, generator=generator)
    y = x @ true.flatten() + 0.05 * torch.randn(400, generator=generator)
    model = nn.Linear(40, 1, bias=False)
    nn.init.normal_(model.weight, generator=generator)
    term = GroupLasso([Groups("channels", "w", (("weight", torch.arange(40).view(10, 4)),))], 0.1, lambda _: 0.05)
    term.attach(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (0.5 * (model(x).squeeze(1) - y).square().mean() + term(x, None, None)).backward()
        optimizer.step()
        term.after_step()
    norms = model.weight.detach().view(10, 4).norm(dim=1)
    assert norms.nonzero().flatten().tolist() == [1, 4, 8]


def test_a_step_of_a_small_rate_is_a_step_down_the_penalty() -> None:
    model = nn.Linear(6, 1, bias=False)
    groups = Groups("channels", "w", (("weight", torch.arange(6).view(2, 3)),))
    term = GroupLasso([groups], 2.0, lambda _: 1e-3, sized=True)
    term.attach(model)
    before = model.weight.detach().clone().requires_grad_()
    (2.0 * 3**0.5 * before.view(2, 3).norm(dim=1).sum()).backward()
    term.after_step()
    assert before.grad is not None
    assert torch.allclose(model.weight, before - 1e-3 * before.grad, atol=1e-6)


def test_its_pace_is_asked_fifty_times() -> None:
    asked: list[float] = []
    model = nn.Linear(6, 1, bias=False)
    groups = Groups("channels", "w", (("weight", torch.arange(6).view(2, 3)),))
    term = GroupLasso([groups], 0.0, lambda _: 0.0, steps=200, pace=lambda _, done: asked.append(done))
    term.attach(model)
    for _ in range(200):
        term.after_step()
    assert len(asked) == 50 and asked[-1] == 1.0
