import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from penjing.core.errors import TrainError
from penjing.core.registry import build
from penjing.data import load
from penjing.data.splits import ArraySplit, DatasetSplit
from penjing.training.loop import Options, fit
from penjing.training.remembered import Remembered
from tiny import pictures, skilled, tiny


class Counting(nn.Module):
    """Counts the pictures that it is asked about."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.seen = inner, 0

    def forward(self, x):
        self.seen += len(x)
        return self.inner(x)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return load(pictures(tmp_path_factory.mktemp("pictures")), seed=0)


@pytest.fixture(scope="module")
def split(data):
    plain = data.train
    return ArraySplit(plain.images, plain.labels, plain.mean, plain.std, padding=1, flip=True)


def test_views_come_again_in_another_order(split):
    def epoch(number, view):
        batches = split.batches(16, seed=3, epoch=number, augment=True, view=view)
        return torch.cat([x for x, _ in batches])

    def rows(x):
        return np.unique(x.flatten(1).numpy(), axis=0)

    assert not torch.equal(epoch(0, 1), epoch(2, 1))
    assert np.array_equal(rows(epoch(0, 1)), rows(epoch(2, 1)))
    assert not np.array_equal(rows(epoch(0, 0)), rows(epoch(0, 1)))
    assert torch.equal(epoch(1, None), epoch(1, 1))  # without a view it is the epoch's own


def test_what_was_written_down_is_what_the_teacher_says(split, tmp_path):
    teacher = Counting(skilled()).eval()
    cache = Remembered(teacher)
    cache.fill(split, 2, 7, tmp_path)
    assert teacher.seen == 2 * len(split)
    cache = pickle.loads(pickle.dumps(cache))  # as a process that is spawned gets it
    with torch.no_grad():
        for epoch in range(4):
            for x, _ in split.batches(16, seed=7, epoch=epoch, augment=True, view=epoch % 2):
                said = cache(x.contiguous(memory_format=torch.channels_last))
                assert torch.allclose(said, teacher.inner(x), atol=1e-5)
        assert cache.network.seen == 2 * len(split)
        mixed = torch.cat([torch.randn(3, 3, 8, 8), x])
        assert torch.allclose(cache(mixed), teacher.inner(mixed), atol=1e-5)  # what was never shown is asked
        assert cache.network.seen == 2 * len(split) + 3


def test_a_file_is_used_again_by_whom_it_belongs_to_alone(split, tmp_path):
    def asked(teacher, views, seed, of=split):
        counting = Counting(teacher).eval()
        Remembered(counting).fill(of, views, seed, tmp_path)
        return counting.seen

    n = len(split)
    assert [asked(skilled(), 1, 0), asked(skilled(), 1, 0)] == [n, 0]
    others = [asked(tiny(), 1, 0), asked(skilled(), 2, 0), asked(skilled(), 1, 1)]
    assert others == [n, 2 * n, n]
    assert asked(skilled(), 1, 0, split.subset(range(50))) == 50
    assert len(list(tmp_path.iterdir())) == 5 and not list(tmp_path.glob(".*"))


def trained(split, teacher, terms, **options):
    torch.manual_seed(0)
    student = tiny()
    recipe = Options(epochs=4, lr=0.05, batch=32, precision="32-true", **options)
    history = fit(student, split, None, recipe, terms=[build("term", term) for term in terms], seed=1, teacher=teacher)
    return student, history


def test_training_on_views_asks_the_teacher_once_each(split, monkeypatch):
    teacher = Counting(skilled()).train()
    terms = ["soft_targets", "dkd", {"dist": {"beta": 1.0}}, "outputs"]
    student, history = trained(split, teacher, terms, views=2)
    assert teacher.seen == 2 * len(split)
    assert teacher.training and teacher.inner.bn0.training
    monkeypatch.setattr(Remembered, "forward", lambda self, x: self.network(x))
    again, others = trained(split, teacher, terms, views=2)
    assert [row["loss"] for row in history.rows] == pytest.approx([row["loss"] for row in others.rows], rel=1e-4)
    assert torch.allclose(student.linear.weight, again.linear.weight, atol=1e-4)


@pytest.mark.parametrize("term", ["hints", "attention_transfer", "fitnets"])
def test_who_listens_on_the_way_is_refused(split, term):
    with pytest.raises(TrainError, match=f"{term} listens to what the teacher computes on the way.*leave views out"):
        trained(split, Counting(skilled()), [term], views=1)


def test_what_no_view_can_be(split):
    with pytest.raises(TrainError, match="mixup blends anew each time"):
        trained(split, None, [], views=1, mixup=0.2)
    with pytest.raises(TrainError, match="views counts the augmentations of a picture"):
        trained(split, None, [], views=-1)

    class Noisy(TensorDataset):
        def __getitem__(self, i):
            x, y = super().__getitem__(i)
            return x + torch.randn_like(x), y

    noisy = DatasetSplit(Noisy(torch.randn(32, 3, 8, 8), torch.arange(32) % 3))
    with pytest.raises(TrainError, match="The pictures change each time they are read"):
        trained(noisy, skilled(), ["soft_targets"], views=1)

    class Two(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)), x

    with pytest.raises(TrainError, match="The teacher returns 2 tensors"):
        trained(split, Two(), ["soft_targets"], views=1)


def test_processes_read_one_file(split):
    teacher = skilled()
    one, _ = trained(split, teacher, ["soft_targets"], views=1)
    two, _ = trained(split, teacher, ["soft_targets"], views=1, devices=2)
    assert one.linear.weight.shape == two.linear.weight.shape and bool(two.linear.weight.isfinite().all())
