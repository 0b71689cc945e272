import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.zoo.mobilenetv2 import InvertedResidual

PUBLISHED = [
    ("mobilenet_v2", 1.4, 6_108_776, 582_195_824),
    ("mobilenet_v2", 1.0, 3_504_872, 300_774_272),
    ("mobilenet_v2", 0.75, 2_636_424, 209_069_792),
    ("mobilenet_v2", 0.5, 1_968_680, 97_131_840),
    ("mobilenet_v2", 0.35, 1_677_128, 59_285_808),
    ("mobilenet_v2_cifar", 1.0, 2_236_682, 87_976_448),
    ("mobilenet_v2_cifar", 0.5, 700_490, 27_969_024),
]


@pytest.mark.parametrize(("name", "width", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, width, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(width=width), torch.empty(1, *zoo.picture(name))
    assert sum(p.numel() for p in model.parameters()) == params
    assert macs(model, x) == count


def test_names_are_torchvisions():
    layers = [("features.0.0", "features.0.1"), ("features.1.conv.0.0", "features.1.conv.0.1")]
    layers.append(("features.1.conv.1", "features.1.conv.2"))
    for i in range(2, 18):
        at = f"features.{i}.conv"
        layers += [(f"{at}.0.0", f"{at}.0.1"), (f"{at}.1.0", f"{at}.1.1"), (f"{at}.2", f"{at}.3")]
    layers.append(("features.18.0", "features.18.1"))
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = [name for conv, norm in layers for name in (f"{conv}.weight", *(f"{norm}.{leaf}" for leaf in bn))]
    with torch.device("meta"):
        assert list(zoo.mobilenet_v2().state_dict()) == [*names, "classifier.1.weight", "classifier.1.bias"]


@pytest.mark.parametrize(("outputs", "stride", "added"), [(4, 1, True), (4, 2, False), (6, 1, False)])
def test_the_input_is_added_where_shapes_allow_and_the_narrow_end_has_no_activation(outputs, stride, added):
    block, x = InvertedResidual(4, outputs, stride, wider=3).eval(), torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        y = block(x)
        assert torch.equal(y, x + block.conv(x) if added else block.conv(x))
    assert y.min() < 0
    assert isinstance(block.conv[-1], nn.BatchNorm2d)


def test_the_small_form_halves_three_times():
    sides = []
    with torch.device("meta"):
        model = zoo.mobilenet_v2_cifar().eval()
        for layer in model.features:
            layer.register_forward_hook(lambda _, __, y: sides.append(y.shape[-1]))
        model(torch.empty(1, 3, 32, 32))
    assert sides == [32] * 4 + [16] * 3 + [8] * 7 + [4] * 5
