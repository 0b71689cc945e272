import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from penjing.core.errors import BudgetError, DataError
from penjing.data import user
from penjing.data.splits import ArraySplit, DatasetSplit, LoaderSplit
from penjing.data.user import as_split, read_function


def pairs(n=12):
    return TensorDataset(torch.arange(float(n)).view(n, 1, 1, 1).expand(-1, 1, 2, 2), torch.arange(n) % 3)


def held(split):
    return sorted(int(v) for x, _ in split.batches(5) for v in x[:, 0, 0, 0])


class Streaming:
    """A loader with nothing but __iter__."""

    def __iter__(self):
        yield torch.zeros(3, 1, 2, 2), torch.arange(3)


@pytest.fixture
def function(monkeypatch):
    """Make ``tests_source:make`` return what the test wants."""
    import sys
    import types

    module = types.ModuleType("tests_source")
    monkeypatch.setitem(sys.modules, "tests_source", module)

    def returning(value):
        module.make = lambda: value
        return "tests_source:make"

    returning.module = module
    return returning


def test_a_pair_a_triple_and_a_dict(function):
    parts = read_function(function((pairs(12), pairs(6))))
    assert (len(parts.train), len(parts.test), parts.val) == (12, 6, None)
    assert parts.classes == ("0", "1", "2")
    assert parts.finished
    parts = read_function(function((pairs(12), pairs(3), pairs(6))))
    assert (len(parts.train), len(parts.val), len(parts.test)) == (12, 3, 6)
    parts = read_function(function({"test": pairs(6), "train": DataLoader(pairs(12), 4)}))
    assert (len(parts.train), len(parts.test), parts.val) == (12, 6, None)


def test_class_names_come_from_the_dataset(function):
    class Named(Dataset):
        classes = ["ant", "bee", "cow"]  # noqa: RUF012
        targets = [0, 1, 2]  # noqa: RUF012

        def __len__(self):
            return 3

    assert read_function(function((Named(), pairs(3)))).classes == ("ant", "bee", "cow")
    assert read_function(function((Subset(Named(), [0, 1, 2]), pairs(3)))).classes == ("ant", "bee", "cow")
    Named.classes = ["ant"]  # fewer names than labels: not the labels' names
    assert read_function(function((Named(), pairs(3)))).classes == ("0", "1", "2")


def test_a_plain_loader_gives_its_dataset_so_that_parts_can_be_cut():
    for loader in (DataLoader(pairs(), 4), DataLoader(pairs(), 4, shuffle=True, drop_last=True)):
        split = as_split(loader, "x")
        assert isinstance(split, DatasetSplit)
        assert held(split) == list(range(12))


def test_pictures_a_sampler_leaves_out_stay_out():
    split = as_split(DataLoader(pairs(), 4, sampler=SubsetRandomSampler([1, 4, 9])), "x")
    assert isinstance(split, DatasetSplit)
    assert held(split) == [1, 4, 9]
    assert sorted(split.labels.tolist()) == [0, 1, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": WeightedRandomSampler([1.0] * 12, 5)},
        {"sampler": RandomSampler(range(12), replacement=True)},
        {"sampler": RandomSampler(range(12), num_samples=5)},
        {"batch_sampler": [[0, 1], [2, 3]]},
    ],
)
def test_a_loader_with_a_will_of_its_own_is_kept(options):
    assert isinstance(as_split(DataLoader(pairs(), **options), "x"), LoaderSplit)


def test_collation_stays_the_users():
    def doubled(items):
        x, y = torch.utils.data.default_collate(items)
        return 2 * x, y

    assert held(as_split(DataLoader(pairs(3), 4, collate_fn=doubled), "x")) == [0, 2, 4]


def test_lists_of_batches_and_of_pictures_are_told_apart():
    assert isinstance(as_split([(torch.zeros(2, 1, 4, 4), torch.zeros(2).long())], "x"), LoaderSplit)
    assert isinstance(as_split([(torch.zeros(1, 4, 4), 0), (torch.zeros(1, 4, 4), 1)], "x"), DatasetSplit)
    assert isinstance(as_split(Streaming(), "x"), LoaderSplit)


def test_a_ready_split_passes(pictures, function):
    split = ArraySplit(pictures(6), np.arange(6) % 3, (0.5,) * 3, (0.1,) * 3)
    assert as_split(split, "x") is split


def test_a_stream_needs_its_own_validation(function):
    with pytest.raises(DataError, match="train loader from which no validation can be cut"):
        read_function(function((Streaming(), Streaming())))
    parts = read_function(function((Streaming(), Streaming(), Streaming())))
    assert len(parts.val) == 3


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(torch.zeros(1, 2, 2), 0)])


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "returned NoneType; return"),
        ((1,), "returned tuple of 1; return"),
        ({"train": [], "tset": []}, "returned the key 'tset'. Did you mean 'test'"),
        ({"train": []}, "returned no 'test'"),
        ((3, 4), "make, train is int; penjing wants a dataset"),
        (([], []), "make, train has no pictures"),
        (("train", "test"), "make, train is str|train failed|penjing wants"),
        ((Stream(), Stream()), "yields single pictures; wrap it in a DataLoader"),
        ((pairs(3), iter([])), "can be read only once"),
    ],
)
def test_what_a_function_must_not_return(function, value, sentence):
    with pytest.raises(DataError, match=sentence):
        read_function(function(value))


def test_functions_that_cannot_be_called(function, tmp_path, monkeypatch):
    spec = function(None)
    (tmp_path / "needy_source.py").write_text("import surely_not_installed")
    (tmp_path / "broken_source.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)
    for wrong, sentence in [
        ("tests_sauce:make", r"There is no module 'tests_sauce'"),
        ("tests_source:mak", r"tests_source has no function 'mak'. Did you mean 'make'"),
        ("tests_source:__name__", r"tests_source:__name__ is str, which cannot be called"),
        ("needy_source:make", r"needy_source cannot be imported: it needs 'surely_not_installed'"),
        ("broken_source:make", r"broken_source cannot be imported: SyntaxError"),
    ]:
        with pytest.raises(DataError, match=sentence):
            read_function(wrong)
    function.module.make = lambda root: root
    with pytest.raises(DataError, match=r"cannot be called without 'root'"):
        read_function(spec)

    def failing():
        raise OSError("disk gone\nmore")

    function.module.make = failing
    with pytest.raises(DataError, match=r"failed with OSError: disk gone\.$"):
        read_function(spec)

    def ours():
        raise BudgetError("our own sentence")

    function.module.make = ours
    with pytest.raises(BudgetError, match=r"^our own sentence$"):
        read_function(spec)


def test_keys_are_the_three_splits():
    assert user.KEYS == ("train", "val", "test")
