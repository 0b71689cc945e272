import subprocess
import sys

import pytest
import torch
from torch import nn

from penjing import zoo


def test_all_is_sorted_and_complete():
    # Sorted as the linter sorts: digits inside a name count as numbers.
    assert len(set(zoo.__all__)) == len(zoo.__all__)
    assert set(zoo.__all__) == {*zoo.BUILDERS, "build", "builder_of", "load_weights"}
    assert [name for name in zoo.__all__ if not name.startswith("resnet")] == sorted(
        name for name in zoo.__all__ if not name.startswith("resnet")
    )
    depths = [int(name.removeprefix("resnet")) for name in zoo.__all__ if name.startswith("resnet")]
    assert depths == sorted(depths)
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


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="resnet57"):
        zoo.resnet57  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, penjing.zoo; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
