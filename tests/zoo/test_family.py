"""Families: which members differ, what they are called, and what is no family."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.core.errors import RecipeError
from penjing.zoo.family import WIDTHS, Family, families


def narrow(width: float = 1.0) -> nn.Module:
    """Have ten channels at width 1, and none below a tenth; it takes no number of classes."""
    if 10 * width < 1:
        raise RecipeError("no channel is left")
    return nn.Conv2d(3, int(10 * width), 1)


DEVICES: set[str] = set()


def even(width: float = 1.0) -> nn.Module:
    """Have 32 channels at width 1; where they lie is noted."""
    found = nn.Conv2d(3, round(32 * width), 1)
    DEVICES.add(found.weight.device.type)
    return found


def test_of_equal_members_the_roundest_width_stays() -> None:
    assert Family.of("zoo.test_family:narrow").widths([1.04, 1.0, 1.09, 0.31, 0.3, 0.11]) == [0.11, 0.3, 1.0]


def test_widths_that_leave_a_layer_without_channels_are_left_out() -> None:
    found = Family.of("zoo.test_family:narrow").widths()
    assert len(found) == 20 and min(found) == 0.1 and max(found) == WIDTHS[-1]
    with pytest.raises(RecipeError, match=r"no channel is left"):
        Family.of("zoo.test_family:narrow").widths([0.05, 1.0])


def test_counts_keep_to_four_where_those_at_width_one_do() -> None:
    found = Family.of("zoo.test_family:even").widths()
    assert found == [n / 8 for n in range(1, 17)] and all(32 * width % 4 == 0 for width in found)


def test_no_member_weighs_anything_while_widths_are_sought() -> None:
    DEVICES.clear()
    Family.of("zoo.test_family:even").widths([0.5, 1.0])
    assert {"meta"} == DEVICES


@pytest.mark.parametrize("name", families())
def test_every_family_of_the_zoo_is_named_by_its_members(name: str) -> None:
    family = Family.of(name, 7)
    with torch.device("meta"):
        model = zoo.build(family.member(0.5))
    assert family.picture == zoo.picture(name)
    last = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    assert last.weight.shape[0] == 7


@pytest.mark.parametrize(
    "name", ["densenet121", "densenet_cifar", "shiftnet56_cifar", "squeezenet1_0", "squeezenet1_1_cifar"]
)
def test_a_width_multiplies_the_channels_of_every_layer_but_the_last(name: str) -> None:
    with torch.device("meta"):
        whole, half = (
            [module.weight.shape[0] for module in zoo.build(f"{name}(width={width})").modules()
             if isinstance(module, nn.Linear | nn.Conv2d)]
            for width in (1.0, 0.5)
        )  # fmt: skip
    assert half == [*(n // 2 for n in whole[:-1]), whole[-1]]


@pytest.mark.parametrize(
    ("arch", "classes", "told"),
    [
        ("mobilnet_v2", None, r"no network 'mobilnet_v2'.*mean 'mobilenet_v2'"),
        ("resnet18", None, r"resnet18 takes no width.*mobilenet_v2"),
        ("mobilenet_v2(width=0.5)", None, r"has its width already"),
        ("mobilenet_v2(num_classes=5)", 7, r"says its number of classes itself"),
        ("vgg11_bn", 0, r"whole number, 1 or more; got 0"),
        ("zoo.test_family:narrow", 7, r"takes no num_classes"),
        ("zoo.test_family:nothing", None, r"no builder 'nothing'"),
    ],
)
def test_what_is_no_family_is_told(arch: str, classes: int | None, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        Family.of(arch, classes)
