import pytest
import torch
import torch.nn.functional as F

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.zoo.mobilenetv1 import SeparableBlock

PUBLISHED = [
    ("mobilenet_v1", 1.0, 4_231_976, 568_740_352),
    ("mobilenet_v1", 0.75, 2_585_560, 325_400_448),
    ("mobilenet_v1", 0.5, 1_331_592, 149_497_088),
    ("mobilenet_v1", 0.25, 470_072, 41_030_272),
    ("mobilenet_v1_cifar", 1.0, 3_217_226, 46_354_432),
]


@pytest.mark.parametrize(("name", "width", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, width, params, count, macs):
    with torch.device("meta"):
        model, x = getattr(zoo, name)(width=width), torch.empty(1, *zoo.picture(name))
    assert sum(p.numel() for p in model.parameters()) == params
    assert macs(model, x) == count


def test_names_are_timms():
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["conv_stem.weight", *(f"bn1.{leaf}" for leaf in bn)]
    for stage, count in enumerate((1, 2, 2, 6, 2)):
        for i in range(count):
            for conv, norm in (("conv_dw", "bn1"), ("conv_pw", "bn2")):
                names += [f"blocks.{stage}.{i}.{conv}.weight", *(f"blocks.{stage}.{i}.{norm}.{leaf}" for leaf in bn)]
    with torch.device("meta"):
        assert list(zoo.mobilenet_v1().state_dict()) == [*names, "classifier.weight", "classifier.bias"]


def test_a_block_filters_each_channel_alone_and_then_mixes():
    block, x = SeparableBlock(3, 5, 2).eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        alone = torch.cat([F.conv2d(x[:, i : i + 1], block.conv_dw.weight[i : i + 1], None, 2, 1) for i in range(3)], 1)
        mixed = F.conv2d(F.relu6(block.bn1(alone)), block.conv_pw.weight)
        torch.testing.assert_close(block(x), F.relu6(block.bn2(mixed)))


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
def test_a_width_without_channels_is_refused(width):
    for build in (zoo.mobilenet_v1, zoo.mobilenet_v2_cifar):
        with pytest.raises(RecipeError, match="width multiplies the channels of every convolution, so it is above 0"):
            build(width=width)
