"""Maps are led from the constant that they begin as to the share of zeros asked for, and priced by their zeros."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from penjing.graph.collaborative import Partner, attach, collaborators
from penjing.terms.map_zeros import MapZeros
from tiny import tiny

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def collaborative() -> nn.Module:
    model = tiny()
    attach(model, {"conv1": Partner("shared", "bn1")})
    return model


def test_scale_and_shift_are_led_step_by_step_and_one_that_is_beyond_is_left() -> None:
    model = collaborative()
    norm = collaborators(model)["conv1"].map.norm
    term = MapZeros(["conv1"], 0.0, zeros=0.8, until=4)
    term.attach(model)
    seen = []
    for _ in range(5):
        term.after_step()
        seen.append((norm.weight.item(), norm.bias.item()))
    quantile = 0.8416212  # of 0.8, of the normal distribution
    assert seen == [pytest.approx((a, 1 - a - quantile * a), abs=1e-5) for a in (0.25, 0.5, 0.75, 1.0, 1.0)]
    with torch.no_grad():
        norm.weight.fill_(2)
        norm.bias.fill_(-3)
    term.after_step()
    assert (norm.weight.item(), norm.bias.item()) == (2, -3)
    term.detach()


def test_without_a_share_nothing_is_led() -> None:
    model = collaborative()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    term = MapZeros(["conv1"], 0.0)
    term.attach(model)
    term.after_step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_the_price_is_the_root_of_what_is_not_zero_whatever_the_size(share: float) -> None:
    model = collaborative().train()
    term = MapZeros(["conv1"], 3.0)
    term.attach(model)
    values = torch.ones(4, 1, 8, 8, requires_grad=True) * 5
    values = torch.where(torch.arange(64).view(8, 8) < share * 64, 0.0, values)
    layer = collaborators(model)["conv1"].map
    layer.forward = lambda x: values  # type: ignore[method-assign]
    y = model(X)
    assert term(X, y, None).item() == pytest.approx(3 * math.sqrt(1 - share), abs=1e-5)
    assert term(X, y, None).item() == 0  # each forward is priced once
    values = values.detach()
    model(X)
    assert term(X, y, None).item() == 0  # values of validation pictures, had they been kept, would pile up
    term.detach()
    assert not layer._forward_hooks


def test_more_zeros_are_cheaper_by_the_gradient() -> None:
    model = collaborative().train()
    norm = collaborators(model)["conv1"].map.norm
    with torch.no_grad():
        norm.weight.fill_(1)
        norm.bias.fill_(0.5)
        collaborators(model)["conv1"].map.conv.weight.normal_(generator=torch.Generator().manual_seed(1))
    term = MapZeros(["conv1"], 1.0)
    term.attach(model)
    y: Tensor = model(X)
    term(X, y, None).backward()
    assert norm.bias.grad is not None and float(norm.bias.grad) > 0  # a step down makes more of the map zero
    term.detach()
