from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from penjing.core.errors import RecipeError
from penjing.core.registry import build
from penjing.costs.error import error

from .drafts import FakeDraft


class Points:
    """Vectors of which the largest entry is the label, all shifted."""

    def __init__(self, count: int, shift: float = 0.0) -> None:
        self.x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0)) + shift
        self.labels = self.x.argmax(1)
        self.read = 0

    def __len__(self) -> int:
        return len(self.x)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in zip(self.x.split(size), self.labels.split(size), strict=True):
            self.read += 1
            yield x, y


def test_without_a_split_it_says_what_is_missing() -> None:
    with pytest.raises(RecipeError, match="needs validation data"):
        build("cost", "error")(FakeDraft(net=nn.Identity()))


def test_the_error_is_a_percentage() -> None:
    split = Points(40)
    assert error(split)(FakeDraft(net=nn.Identity())) == 0.0
    split.labels[:10] = (split.labels[:10] + 1) % 4
    assert error(split)(FakeDraft(net=nn.Identity())) == 25.0


def test_recalibration_refreshes_batch_norm_first() -> None:
    split, training = Points(40, shift=3.0), Points(40, shift=5.0)
    norm = nn.BatchNorm1d(4)
    error(split)(FakeDraft(net=norm))
    assert norm.running_mean is not None and norm.running_mean.abs().max() == 0
    error(split, recalibrate=2, batch=10)(FakeDraft(net=norm))
    torch.testing.assert_close(norm.running_mean, split.x[:20].mean(0))
    error(split, recalibrate=3, calibration=training, batch=10)(FakeDraft(net=norm))
    torch.testing.assert_close(norm.running_mean, training.x[:30].mean(0))
    assert training.read == 3
