import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.zoo.squeezenet import Fire

PUBLISHED = [
    ("squeezenet1_0", 1_248_424, 818_924_576),
    ("squeezenet1_1", 1_235_496, 349_151_936),
    ("squeezenet1_0_cifar", 732_010, 52_543_488),
    ("squeezenet1_1_cifar", 730_570, 23_511_040),
]


@pytest.mark.parametrize(("name", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(), torch.empty(1, *zoo.picture(name))
    assert sum(p.numel() for p in model.parameters()) == params
    assert macs(model, x) == count


@pytest.mark.parametrize(("name", "fires"), [("1_0", (3, 4, 5, 7, 8, 9, 10, 12)), ("1_1", (3, 4, 6, 7, 9, 10, 11, 12))])
def test_names_are_torchvisions(name, fires):
    layers = ["features.0", *(f"features.{i}.{k}" for i in fires for k in ("squeeze", "expand1x1", "expand3x3"))]
    with torch.device("meta"):
        found = list(getattr(zoo, f"squeezenet{name}")().state_dict())
    assert found == [f"{layer}.{leaf}" for layer in [*layers, "classifier.1"] for leaf in ("weight", "bias")]


def test_a_fire_module_is_what_the_paper_draws():
    fire, x = Fire(6, 2, norm=False), torch.randn(2, 6, 5, 5)
    with torch.no_grad():
        inner = torch.relu(fire.squeeze(x))
        y = fire(x)
        assert y.shape == (2, 16, 5, 5)
        assert torch.equal(y[:, :8], torch.relu(fire.expand1x1(inner)))
        assert torch.equal(y[:, 8:], torch.relu(fire.expand3x3(inner)))


def test_the_last_convolution_starts_small_and_only_published_logits_pass_a_relu():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 32, 32)
    for model, passes in ((zoo.squeezenet1_1(), True), (zoo.squeezenet1_1_cifar(), False)):
        assert model.classifier[1].weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert bool((model(x) >= 0).all()) == passes
        assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) != passes
