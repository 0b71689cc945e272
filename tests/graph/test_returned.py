"""What modules are said to return is what they return, channel by channel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nets.hostile import HOSTILE
from penjing.graph.returned import channels_returned
from penjing.zoo import build

from .checks import Network, blind, half, hostile


def heard(model: nn.Module, net: Network) -> dict[str, Tensor]:
    """Return what every module returns that returns a tensor, the last time it runs."""
    found: dict[str, Tensor] = {}

    def hear(name: str) -> None:
        def hook(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                found[name] = output.clone()

        model.get_submodule(name).register_forward_hook(hook)

    for name, _ in model.named_modules():
        if name:
            hear(name)
    with torch.no_grad():
        model.eval()(*net.args, **net.kwargs)
    return found


def disagreements(net: Network, seed: int) -> tuple[int, list[str]]:
    """Cut half of a network; return how many modules lost channels, and which of them return other ones than told."""
    kept = half(net.graph, seed)
    zeroed = blind(net, kept)
    if zeroed is None:
        return 0, []
    gone, whole, small = net.graph.gone(kept), heard(zeroed, net), heard(net.small(kept), net)
    lost, wrong = 0, []
    for name, units in channels_returned(net.graph).items():
        if name not in whole or whole[name].ndim < 3 or whole[name].shape[1] != len(units):
            continue
        left = torch.from_numpy(~((units >= 0) & gone[units]))
        lost += int(not left.all())
        if whole[name][:, left].shape != small[name].shape or not torch.allclose(
            whole[name][:, left], small[name], rtol=1e-3, atol=1e-4
        ):
            wrong.append(name)
    return lost, wrong


def test_hostile_networks_return_what_is_left_of_their_channels() -> None:
    lost = 0
    for name in HOSTILE:
        count, wrong = disagreements(hostile(name), 0)
        assert not wrong, f"{name}: {wrong}"
        lost += count
    assert lost > 50


@pytest.mark.parametrize("name", ["resnet20", "squeezenet1_1_cifar"])
def test_networks_of_the_zoo_do(name: str) -> None:
    net = Network(
        name, build(name).eval(), (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),), {}
    )
    lost, wrong = disagreements(net, 0)
    assert lost > 10 and not wrong
