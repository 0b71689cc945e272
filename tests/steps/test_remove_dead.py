"""What is dead goes, with what hung on it, and the network returns what it returned before."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.steps.remove_dead import remove_dead
from penjing.steps.state import Run, State
from penjing.zoo.resnet import CifarResNet

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def lively(model: nn.Module) -> Any:
    """Give batch norms statistics, scales and shifts of their own."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            module.running_mean.normal_()
    return model.eval()


def line(padding: int = 0, bias: bool = True, norm: bool = True) -> Any:
    """Two convolutions and a linear layer, the second convolution with or without padding, bias and batch norm."""
    kernel = 1 if padding == 0 else 3
    return lively(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(),
            nn.Conv2d(8, 8, kernel, padding=padding, bias=bias), nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
        )
    )  # fmt: skip


def removed(model: nn.Module, **options: Any) -> tuple[Any, Run]:
    """Take the step, and hold what comes out against what went in, on pictures that it has not seen."""
    state = State(copy.deepcopy(model), model, None, ((X,), {}))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        small = remove_dead(**{"step": 1, **options})(state, run).model
    x = torch.randn(5, *X.shape[1:], generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
    assert all(certificate["ok"] for certificate in run.noted("certificates"))
    return small, run


@torch.no_grad()
def test_channels_that_nobody_reads_go_and_those_before_them_in_turn() -> None:
    model = line()
    model[8].weight.view(4, 8, 4)[:, 2:] = 0  # the linear layer reads two of the second convolution's channels,
    model[3].weight[:2, :5] = 0  # of which neither reads five of the first one's
    small, run = removed(model)
    assert (small[0].out_channels, small[3].out_channels, small[8].in_features) == (3, 2, 8)
    assert run.noted("dead") == [{"channels": 11, "crops": 0}]


@pytest.mark.parametrize(("bias", "norm"), [(True, True), (True, False), (False, True)])
@torch.no_grad()
def test_a_constant_moves_into_a_bias_or_a_norm(bias: bool, norm: bool) -> None:
    model = line(bias=bias, norm=norm)
    model[0].weight[:5] = 0
    model[3].weight[1] = 0  # its constant moves into the linear layer's bias, four places of it
    small, _ = removed(model)
    assert (small[0].out_channels, small[3].out_channels) == (3, 7)


@torch.no_grad()
def test_before_padding_only_what_is_zero_goes() -> None:
    model = line(padding=1)
    model[0].weight[:5] = 0
    model[0].bias[:5] = model[1].running_mean[:5]
    model[1].bias[:3] = -1.0  # silent behind the ReLU
    model[1].bias[3:5] = 1.0  # a constant of one, which a padded convolution reads as zero at its borders
    small, _ = removed(model)
    assert small[0].out_channels == 5


@torch.no_grad()
def test_without_a_bias_or_a_norm_a_constant_has_nowhere_to_go() -> None:
    model = line(bias=False, norm=False)
    model[0] = nn.Conv2d(3, 8, 3, padding=1)
    model[0].weight[:5] = 0
    model[0].bias[:3], model[0].bias[3:] = -1.0, 1.0
    small, _ = removed(model.eval())
    assert small[0].out_channels == 5


@torch.no_grad()
def test_widths_keep_to_their_step_and_a_site_keeps_a_channel() -> None:
    model = line()
    model[0].weight[:3] = 0
    assert removed(model, step=4)[0][0].out_channels == 8
    model[0].weight[:5] = 0
    assert removed(model, step=None)[0][0].out_channels == 4
    model[0].weight[:] = 0
    assert removed(model)[0][0].out_channels == 1


@torch.no_grad()
def test_empty_rims_of_kernels_go_unless_excluded() -> None:
    model = line(padding=1)
    model[0].weight[:, :, (0, 2)] = 0
    model[3].weight[:, :, :, (0, 2)] = 0
    model[3].weight[:, :, (0, 2)] = 0
    small, run = removed(model)
    assert (small[0].kernel_size, small[3].kernel_size) == ((1, 3), (1, 1))
    assert run.noted("dead") == [{"channels": 0, "crops": 3}]
    assert removed(model, exclude=("3.*",))[0][3].kernel_size == (3, 3)


class Excited(nn.Module):
    """Scales its channels by what all of them say: a constant of one becomes none."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        z: Tensor = self.last(y)
        return z


@torch.no_grad()
def test_what_only_seems_constant_stays() -> None:
    model: Any = Excited().eval()
    model.conv.weight[:4] = 0
    model.conv.bias[:4] = 1.0
    assert removed(model)[0].conv.out_channels == 8


@settings(max_examples=3, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.6, 0.9, 0.97]))
def test_whatever_is_zero_in_a_residual_network(seed: int, sparsity: float) -> None:
    model = lively(CifarResNet(1, 3, "B"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                rows = torch.rand(p.shape[:2], generator=generator) < sparsity
                p[rows] = 0
    removed(model)


def test_a_step_that_cannot_be_is_refused() -> None:
    with pytest.raises(PlanError, match=r"remove_dead: step must be a whole number, 1 or more; got 0"):
        remove_dead(step=0)
