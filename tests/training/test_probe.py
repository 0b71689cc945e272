"""What cannot work is told before any work, in one sentence."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from penjing.core.errors import PenjingError
from penjing.data.load import as_data
from penjing.training.probe import probe


def net(channels=3, classes=4):
    body = nn.Sequential(nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(body, nn.Flatten(), nn.Linear(8, classes))


def data(value=None):
    torch.manual_seed(0)
    x = torch.randn(24, 3, 8, 8)
    if value is not None:
        x[:] = value
    part = TensorDataset(x, torch.arange(24) % 4)
    return as_data((part, part), val=4)


class Named(nn.Module):
    def __init__(self, **widths) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: net(3, width) for name, width in widths.items()})

    def forward(self, x):
        return {name: head(x) for name, head in self.heads.items()}


class Odd(nn.Module):
    def __init__(self, what) -> None:
        super().__init__()
        self.what, self.net = what, net()

    def forward(self, x):
        return self.what(self.net(x))


def with_nan():
    model = net()
    model[2].bias.data[0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (net(channels=1), "channel"),
        (net().double(), "float64"),
        (net().bfloat16(), "bfloat16"),
        (net().to("meta"), "meta"),
        (with_nan(), "2.bias"),
        (net(classes=3), "3 outputs"),
        (Odd(lambda y: y[:, :, None]), "shape"),
        (Odd(lambda y: y / 0), "NaN or infinity"),
        (Odd(lambda y: "text"), "without a tensor"),
        (Odd(lambda y: 1 / 0), "ZeroDivisionError"),
        (Named(features=512, scores=10), "features"),
    ],
)
def test_what_does_not_fit_is_named(model, message):
    with pytest.raises(PenjingError) as caught:
        probe(model, data())
    assert message in str(caught.value)


def test_what_fits_passes_and_is_left_as_it_was():
    model = net().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)
    probe(model, data())
    probe(model, (torch.randn(2, 3, 8, 8),))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    probe(Named(features=512, logits=4), data())


def test_pictures_that_are_not_numbers_are_refused():
    with pytest.raises(PenjingError, match="NaN or infinity"):
        probe(net(), data(float("nan")))
