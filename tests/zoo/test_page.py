"""The page of the zoo tells of every network what the code says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from penjing import zoo

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
ROWS = re.findall(r"^\| `(\w+)` \|.*$", PAGE.read_text(encoding="utf-8"), re.M)


def test_the_page_has_every_network_once_in_order() -> None:
    assert list(zoo.BUILDERS) == ROWS


@pytest.mark.parametrize("name", zoo.BUILDERS)
def test_the_row_tells_pictures_parameters_and_macs(name: str, macs: Callable[[nn.Module, Tensor], int]) -> None:
    with torch.device("meta"):
        model, x = getattr(zoo, name)(), torch.empty(1, *zoo.picture(name))
    size = " x ".join(map(str, zoo.picture(name)))
    row = f"| `{name}` | {size} | {sum(p.numel() for p in model.parameters()):,} | {macs(model, x):,} |"
    assert row in PAGE.read_text(encoding="utf-8"), f"in its place, with the paper as last column: {row}"
