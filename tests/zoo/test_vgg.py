import itertools

import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.graph.trace import trace
from penjing.zoo.vgg import Vgg

PUBLISHED = [
    ("vgg11", 132_863_336, 7_609_090_048),
    ("vgg13", 133_047_848, 11_308_466_176),
    ("vgg16", 138_357_544, 15_346_630_656 + 25088 * 4096 + 4096 * 4096 + 4096 * 1000),
    ("vgg19", 143_667_240, 19_632_062_464),
    ("vgg11_bn", 9_228_362, 152_769_536),
    ("vgg13_bn", 9_413_066, 228_267_008),
    ("vgg16_bn", 14_724_042, 313_201_664),
    ("vgg19_bn", 20_035_018, 398_136_320),
]


@pytest.mark.parametrize(("name", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(), torch.empty(1, *zoo.picture(name))
    assert sum(p.numel() for p in model.parameters()) == params
    assert macs(model, x) == count
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules()) == (
        int(name.removeprefix("vgg")) if "_" not in name else int(name[3:5]) - 2
    )


def test_the_published_form_has_the_published_layers():
    with torch.device("meta"):
        model = zoo.vgg16()
    kinds = [type(layer) for layer in model.features[:6]]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.ReLU, nn.MaxPool2d, nn.Conv2d]
    assert {"features.0.bias", "features.28.weight", "classifier.6.bias"} <= set(model.state_dict())


def test_the_published_form_traces_with_every_channel_free():
    graph = trace(Vgg(nn.Linear(512, 2), norm=False), (torch.rand(2, 3, 32, 32),))
    assert len(graph.layers) == 14
    assert graph.share_free == 1


def test_the_wide_head_adds_two_4096_layers(macs):
    with torch.device("meta"):
        model, x = zoo.vgg16_bn_wide(num_classes=10), torch.empty(1, 3, 32, 32)
    head = (512 * 4096 + 4096) + (4096 * 4096 + 4096) + (4096 * 10 + 10)
    assert sum(p.numel() for p in model.classifier.parameters()) == head
    assert sum(p.numel() for p in model.parameters()) == 14_724_042 - 5_130 + head
    assert macs(model, x) == 313_201_664 - 5_120 + 512 * 4096 + 4096 * 4096 + 4096 * 10
    kinds = [type(layer) for layer in model.classifier]
    assert kinds == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]


def test_half_of_both_widths_leaves_the_head_its_share(macs):
    with torch.device("meta"):
        model, x = zoo.vgg16_bn_wide(width=0.5, head=2048), torch.empty(1, 3, 32, 32)
    head = (256 * 2048 + 2048) + (2048 * 2048 + 2048) + (2048 * 10 + 10)
    widths = [3, 32, 32, 64, 64, 128, 128, 128, *[256] * 6]
    convolutions = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(widths))
    assert sum(p.numel() for p in model.parameters()) == convolutions + head == 8_425_450
    assert macs(model, x) == 78_741_504 + 256 * 2048 + 2048 * 2048 + 2048 * 10


def test_half_the_width_with_one_linear_layer():
    with torch.device("meta"):
        model = zoo.vgg16_bn(width=0.5)
        assert zoo.vgg11_bn(width=0.5).classifier.in_features == 256
    assert sum(p.numel() for p in model.parameters()) == 3_684_842
    assert model.classifier.in_features == 256


@pytest.mark.parametrize(("width", "head", "says"), [(0.001, 8, r"width .* at 0\.001"), (1.0, 0, r"head .* got 0")])
def test_a_width_without_units_is_refused(width, head, says):
    with pytest.raises(RecipeError, match=says):
        zoo.vgg16_bn_wide(width=width, head=head)


def test_pools_follow_convolutions_2_4_7_10_and_13():
    with torch.device("meta"):
        model = zoo.vgg16_bn()
    seen, pooled = 0, []
    for layer in model.features:
        seen += isinstance(layer, nn.Conv2d)
        if isinstance(layer, nn.MaxPool2d):
            pooled.append(seen)
    assert pooled == [2, 4, 7, 10, 13]


def test_names_are_those_of_a_plain_sequence():
    with torch.device("meta"):
        names = list(zoo.vgg16_bn().state_dict())
    assert names[:2] == ["features.0.weight", "features.1.weight"]
    assert "features.40.weight" in names  # the last of 13 convolutions, after 12 triples and 4 pools
    assert names[-2:] == ["classifier.weight", "classifier.bias"]
    assert len(names) == 13 * 6 + 2


def test_both_heads_train():
    for build in (zoo.vgg16_bn, zoo.vgg16_bn_wide):
        model = build(num_classes=3)
        y = model(torch.randn(2, 3, 32, 32))
        assert y.shape == (2, 3)
        y.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
