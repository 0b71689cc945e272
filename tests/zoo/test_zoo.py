import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from penjing import zoo
from penjing.core.errors import RecipeError


def numbered(name: str) -> list[int | str]:
    """The linter's order: digits inside a name count as numbers."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def test_all_is_sorted_and_complete():
    assert zoo.__all__ == sorted({*zoo.BUILDERS, "build", "builder_of", "load_weights", "picture"}, key=numbered)
    assert list(zoo.BUILDERS) == sorted(zoo.BUILDERS, key=numbered)
    assert set(zoo.__all__) <= set(dir(zoo))


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_name_resolves_to_the_object_of_that_name(name):
    assert getattr(zoo, name).__name__ == name


@pytest.mark.parametrize("name", zoo.BUILDERS)
def test_every_builder_needs_no_arguments_and_takes_a_class_count(name):
    with torch.device("meta"):
        assert isinstance(getattr(zoo, name)(), nn.Module)
        model = getattr(zoo, name)(num_classes=5)
    assert list(model.parameters())[-1].shape == (5,)


@pytest.mark.parametrize("name", zoo.BUILDERS)
def test_every_network_takes_the_pictures_it_is_made_for(name):
    with torch.device("meta"):
        assert getattr(zoo, name)(num_classes=3).eval()(torch.empty(2, *zoo.picture(name))).shape == (2, 3)


def test_pictures_of_no_network_are_refused():
    with pytest.raises(RecipeError, match=r"no network 'mobilenet_v3' in the zoo\. Did you mean 'mobilenet_v"):
        zoo.picture("mobilenet_v3")


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="resnet57"):
        zoo.resnet57  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, penjing.zoo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
