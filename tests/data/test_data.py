import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch

from penjing.core.errors import DataError
from penjing.data import Data
from penjing.data.augment import normalise
from penjing.data.splits import ArraySplit


def make(pictures, n=60):
    images, labels = pictures(n), np.repeat([0, 1, 2], n // 3)
    split = ArraySplit(images, labels, (0.5,) * 3, (0.25,) * 3, padding=1, flip=True)
    return Data("set", split, split.subset(range(6)), split.subset(range(9)), ("a", "b", "c"), split.shape)


def test_num_classes_counts_the_names(pictures):
    assert make(pictures).num_classes == 3


def test_reading_test_is_counted_once_for_each_pass(pictures):
    data = make(pictures)
    assert data.test_reads == 0
    assert len(data.test) == 9
    assert data.test.labels.tolist() == [0] * 9
    batches = data.test.batches(4)
    assert data.test_reads == 0  # nothing was asked for yet
    next(batches)
    assert data.test_reads == 1
    list(batches)
    assert data.test_reads == 1
    list(data.test.batches(4))
    assert data.test_reads == 2
    list(data.test.subset([1, 2]).batches(4))
    assert data.test_reads == 3
    list(data.train.batches(4)), list(data.val.batches(4))
    assert data.test_reads == 3


def test_counted_batches_are_the_splits_own(pictures):
    data = make(pictures)
    plain = data.test.split
    for options in ({}, {"seed": 1, "epoch": 2, "augment": True}):
        for (x, y), (want_x, want_y) in zip(data.test.batches(4, **options), plain.batches(4, **options), strict=True):
            assert torch.equal(x, want_x)
            assert torch.equal(y, want_y)


def test_a_changed_copy_shares_the_count(pictures):
    data = make(pictures)
    other = dataclasses.replace(data, name="other")
    list(other.test.batches(4))
    assert data.test_reads == other.test_reads == 1


def test_the_record_travels_to_other_processes(pictures):
    data = pickle.loads(pickle.dumps(make(pictures)))
    assert len(list(data.test.batches(4))) == 3
    assert data.test_reads == 1
    assert len(copy.deepcopy(data).train) == 60


def test_the_example_is_train_as_evaluation_sees_it(pictures):
    data = make(pictures)
    assert torch.equal(data.example(3), normalise(pictures(60)[:3], (0.5,) * 3, (0.25,) * 3))
    assert data.example().shape == (2, 3, 6, 6)
    assert data.test_reads == 0


def test_calibration_is_balanced_shuffled_and_from_train(pictures):
    data = make(pictures)
    batches = data.calibration(30, seed=1, size=8)
    assert [len(x) for x in batches] == [8, 8, 8, 6]
    train = next(data.train.batches(60))[0]
    at = [next(i for i, picture in enumerate(train) if torch.equal(picture, x)) for x in torch.cat(batches)]
    assert len(set(at)) == 30
    labels = data.train.labels[at]
    assert np.bincount(labels).tolist() == [10, 10, 10]
    assert len(set(labels[:8].tolist())) > 1


def test_labelled_calibration_is_calibration_with_its_labels(pictures):
    data = make(pictures)
    pairs = data.calibration_labelled(30, seed=1, size=8)
    for (x, y), plain in zip(pairs, data.calibration(30, seed=1, size=8), strict=True):
        assert torch.equal(x, plain)
        assert y.shape == (len(x),)
    train = next(data.train.batches(60))[0]
    for x, y in pairs:
        at = [next(i for i, picture in enumerate(train) if torch.equal(picture, one)) for one in x]
        assert y.tolist() == data.train.labels[at].tolist()
    with pytest.raises(DataError, match="Calibration on 0 pictures"):
        data.calibration_labelled(0, seed=1)


def test_calibration_without_labels_has_none(pictures):
    class Unlabelled:
        labels = np.repeat([0, 1], 5)

        def __len__(self):
            return 10

        def subset(self, indices):
            return self

        def batches(self, size):
            yield torch.zeros(10, 1, 2, 2), None

    data = dataclasses.replace(make(pictures), train=Unlabelled())
    assert [y for _, y in data.calibration_labelled(4, seed=0)] == [None]


def test_calibration_repeats_for_a_seed(pictures):
    data = make(pictures)
    first = torch.cat(data.calibration(12, seed=1))
    assert torch.equal(first, torch.cat(data.calibration(12, seed=1, size=5)))
    assert not torch.equal(first, torch.cat(data.calibration(12, seed=2)))


def test_calibration_gives_what_there_is_but_never_nothing(pictures):
    data = make(pictures)
    assert len(torch.cat(data.calibration(1000, seed=1))) == 60
    with pytest.raises(DataError, match="Calibration on 0 pictures"):
        data.calibration(0, seed=1)
