import math

import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.zoo.resnet import ZeroPadShortcut

PUBLISHED = [
    ("resnet20", {}, 32, 269_722, 40_551_040),
    ("resnet32", {}, 32, 464_154, 68_862_592),
    ("resnet44", {}, 32, 658_586, 97_174_144),
    ("resnet56", {}, 32, 853_018, 125_485_696),
    ("resnet110", {}, 32, 1_727_962, 252_887_680),
    ("resnet56", {"shortcut": "B"}, 32, 855_770, 125_747_840),
    ("resnet56", {"num_classes": 100}, 32, 858_868, 125_491_456),
    ("resnet56", {"width": 0.5}, 32, 214_546, 31_482_176),
    ("resnet18", {}, 224, 11_689_512, 1_814_073_344),
    ("resnet34", {}, 224, 21_797_672, 3_663_761_408),
    ("resnet50", {}, 224, 25_557_032, 4_089_184_256),
    ("resnet101", {}, 224, 44_549_160, 7_801_405_440),
    ("resnet152", {}, 224, 60_192_808, 11_513_626_624),
]


@pytest.mark.parametrize(("name", "options", "side", "params", "count"), PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name, options, side, params, count, macs):
    with torch.device("meta"):  # shapes are all a count needs
        model = getattr(zoo, name)(**options)
        x = torch.empty(1, 3, side, side)
    assert sum(p.numel() for p in model.parameters()) == params
    assert macs(model, x) == count


def test_option_a_drops_every_other_pixel_and_pads_both_sides_of_the_channels():
    x = torch.randn(2, 16, 5, 6)
    y = ZeroPadShortcut(32)(x)
    assert y.shape == (2, 32, 3, 3)
    for channel in range(32):
        for row in range(3):
            for column in range(3):
                inside = 8 <= channel < 24
                want = x[:, channel - 8, 2 * row, 2 * column] if inside else torch.zeros(2)
                assert torch.equal(y[:, channel, row, column], want)


def batch_norm(prefix: str) -> set[str]:
    return {f"{prefix}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def test_names_of_the_cifar_form():
    names = {"conv1.weight", "linear.weight", "linear.bias"} | batch_norm("bn1")
    for stage in (1, 2, 3):
        for i in range(3):
            for k in (1, 2):
                names |= {f"layer{stage}.{i}.conv{k}.weight"} | batch_norm(f"layer{stage}.{i}.bn{k}")
    assert set(zoo.resnet20().state_dict()) == names
    for stage in (2, 3):
        names |= {f"layer{stage}.0.shortcut.0.weight"} | batch_norm(f"layer{stage}.0.shortcut.1")
    assert set(zoo.resnet20(shortcut="B").state_dict()) == names


@pytest.mark.parametrize(
    ("name", "blocks", "convs", "projected"),
    [
        ("resnet18", (2, 2, 2, 2), 2, (2, 3, 4)),
        ("resnet34", (3, 4, 6, 3), 2, (2, 3, 4)),
        ("resnet50", (3, 4, 6, 3), 3, (1, 2, 3, 4)),
        ("resnet101", (3, 4, 23, 3), 3, (1, 2, 3, 4)),
        ("resnet152", (3, 8, 36, 3), 3, (1, 2, 3, 4)),
    ],
)
def test_names_of_the_imagenet_form_are_torchvisions(name, blocks, convs, projected):
    names = {"conv1.weight", "fc.weight", "fc.bias"} | batch_norm("bn1")
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            for k in range(1, convs + 1):
                names |= {f"layer{stage}.{i}.conv{k}.weight"} | batch_norm(f"layer{stage}.{i}.bn{k}")
        if stage in projected:
            names |= {f"layer{stage}.0.downsample.0.weight"} | batch_norm(f"layer{stage}.0.downsample.1")
    with torch.device("meta"):
        assert set(getattr(zoo, name)().state_dict()) == names


def test_a_bottleneck_strides_in_its_3x3():
    with torch.device("meta"):
        model = zoo.resnet50()
    for stage in (model.layer2, model.layer3, model.layer4):
        assert stage[0].conv1.stride == (1, 1)
        assert stage[0].conv2.stride == (2, 2)
        assert stage[0].downsample[0].stride == (2, 2)


def test_the_block_is_what_the_paper_draws():
    model = zoo.resnet20().eval()
    block = model.layer1[1]
    x = torch.randn(2, 16, 4, 4)
    with torch.no_grad():
        inner = torch.relu(block.bn1(block.conv1(x)))
        assert torch.equal(block(x), torch.relu(x + block.bn2(block.conv2(inner))))


def test_convolutions_start_he_normal_by_fan_out():
    torch.manual_seed(0)
    model = zoo.resnet56()
    for layer in (model.layer2[0].conv1, model.layer3[0].conv1, model.layer3[8].conv2):
        w = layer.weight
        assert isinstance(layer, nn.Conv2d)
        assert w.std().item() == pytest.approx(math.sqrt(2 / (9 * layer.out_channels)), rel=0.05)
        assert abs(w.mean().item()) < 4 * w.std().item() / math.sqrt(w.numel())
        # Nothing of a uniform draw: a normal one leaves 4.6 % beyond two deviations.
        assert (w.abs() > 2 * w.std()).float().mean().item() == pytest.approx(0.0455, abs=0.01)
    assert torch.count_nonzero(model.linear.bias) == 0


@pytest.mark.parametrize(("name", "side"), [("resnet20", 32), ("resnet20", 40), ("resnet18", 64), ("resnet50", 64)])
def test_a_training_step_reaches_every_parameter(name, side):
    model = getattr(zoo, name)(num_classes=7)
    y = model(torch.randn(2, 3, side, side))
    assert y.shape == (2, 7)
    y.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(RecipeError, match=r"shortcut = 'C' is not right: choose 'A' .* or 'B'"):
        zoo.resnet20(shortcut="C")


@pytest.mark.parametrize("width", [0.1, 0.3, 0.7, 1.4])
def test_any_width_fits_both_shortcuts(width):
    for shortcut in "AB":
        assert zoo.resnet20(shortcut=shortcut, width=width).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(RecipeError, match="width multiplies the channels"):
        zoo.resnet20(width=0.01)
