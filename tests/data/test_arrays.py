import hashlib
import sys
import types

import numpy as np
import pytest
from sklearn.datasets import load_digits

from penjing.core.errors import DataError
from penjing.data.arrays import DIGITS_MEAN, DIGITS_STD, read_digits, read_npz, read_torchvision


def test_digits_are_the_whole_set_divided_by_the_splits_number():
    parts = read_digits(0)
    assert (len(parts.train), len(parts.test)) == (1437, 360)
    images = np.concatenate([parts.train.images, parts.test.images])[..., 0]
    bunch = load_digits()
    ours = sorted(map(bytes, np.round(images / 255 * 16).astype(np.uint8)))
    assert ours == sorted(map(bytes, bunch.images.astype(np.uint8)))
    share = np.bincount(bunch.target) * 360 / 1797
    assert (np.abs(np.bincount(parts.test.labels) - share) < 1).all()
    assert not np.array_equal(parts.test.images, read_digits(1).test.images)
    assert np.array_equal(parts.test.images, read_digits(0).test.images)


def test_split_0_never_moves():
    # The embedded weights were trained on its train part: another division would let them see test pictures.
    digest = hashlib.sha256(np.ascontiguousarray(read_digits(0).test.images)).hexdigest()
    assert digest[:16] == "ff0c343e2e3de6f2"


def test_digits_statistics_are_those_of_the_set():
    images = np.rint(load_digits().images * (255 / 16)) / 255
    assert pytest.approx(images.mean(), abs=6e-4) == DIGITS_MEAN[0]
    assert pytest.approx(images.std(), abs=6e-4) == DIGITS_STD[0]


def test_digits_shift_by_one_pixel_and_never_mirror():
    split = read_digits(0).train
    assert (split.padding, split.flip, split.shape) == (1, False, (1, 8, 8))


def test_npz_is_read_as_it_is(npz_folder):
    parts = read_npz(npz_folder)
    with np.load(npz_folder / "train.npz") as file:
        assert np.array_equal(parts.train.images, file["x"])
        assert np.array_equal(parts.train.labels, file["y"])
    assert len(parts.test) == 30
    assert parts.classes == ("0", "1", "2")
    assert parts.val is None
    assert parts.name == "shapes"


@pytest.mark.parametrize(
    ("shape", "padding", "flip"),
    [((6, 32, 32, 3), 4, True), ((6, 28, 28), 4, False), ((6, 64, 64, 1), 8, False), ((6, 3, 3, 3), 1, True)],
)
def test_augmentation_follows_size_and_colour(npz_folder, shape, padding, flip):
    for part in ("train", "test"):
        np.savez(npz_folder / f"{part}.npz", x=np.zeros(shape, np.uint8), y=np.arange(6) % 3)
    split = read_npz(npz_folder).train
    assert (split.padding, split.flip) == (padding, flip)
    assert split.shape == (shape[3] if len(shape) == 4 else 1, *shape[1:3])


def test_a_val_file_and_class_names_are_taken(npz_folder, pictures):
    np.savez(npz_folder / "val.npz", x=pictures(9, seed=5), y=np.arange(9) % 3)
    (npz_folder / "classes.txt").write_text("ant\nbee\n\n cat \n")
    parts = read_npz(npz_folder)
    assert len(parts.val) == 9
    assert parts.classes == ("ant", "bee", "cat")


X, Y = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6) % 3


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": X}, "has no 'y'; it holds x"),
        ({"images": X, "labels": Y}, "has no 'x'; it holds images, labels"),
        ({}, "has no 'x'; it holds nothing"),
        ({"x": X.astype(np.float32), "y": Y}, "x is float32; penjing wants uint8"),
        ({"x": X[0], "y": Y}, r"y is int64 \[6\]; 4 pictures need integers \[4\]"),
        ({"x": X[..., None], "y": Y}, r"x is \[6, 4, 4, 3, 1\]; penjing wants \[n, h, w, c\]"),
        ({"x": X[:, :0], "y": Y}, r"x is \[6, 0, 4, 3\]"),
        ({"x": np.zeros((6, 3, 8, 8), np.uint8), "y": Y}, r"x is \[6, 3, 8, 8\], channels first"),
        ({"x": X, "y": Y[:5]}, r"y is int64 \[5\]; 6 pictures"),
        ({"x": X, "y": Y[:, None]}, r"y is int64 \[6, 1\]"),
        ({"x": X, "y": Y / 2}, "y is float64"),
        ({"x": X[:0], "y": Y[:0]}, "has no pictures"),
        ({"x": X, "y": Y - 1}, "has the label -1, outside 0 to 2"),
        ({"x": X, "y": Y * 2}, r"labels reach 4, but 2 below it never occur \(first: 1\)"),
        ({"x": X, "y": np.array([None] * 6)}, "holds Python objects, which could run code"),
        ({"x": np.array([object()] * 6), "y": Y}, "holds Python objects, which could run code"),
    ],
)
def test_a_train_file_that_is_not_right_is_named(npz_folder, arrays, sentence):
    np.savez(npz_folder / "train.npz", **arrays)
    with pytest.raises(DataError, match=rf"train\.npz:? {sentence}") as caught:
        read_npz(npz_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x80\x04]."])
def test_a_damaged_file_is_named(npz_folder, content):
    (npz_folder / "test.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"test\.npz (cannot be read as \.npz|holds Python objects)"):
        read_npz(npz_folder)


def test_a_truncated_file_is_named(npz_folder):
    whole = (npz_folder / "train.npz").read_bytes()
    (npz_folder / "train.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train\.npz cannot be read as \.npz"):
        read_npz(npz_folder)


def test_a_single_array_under_the_wrong_name_is_named(npz_folder):
    with (npz_folder / "train.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"train\.npz is a single array"):
        read_npz(npz_folder)


def test_one_file_of_two_is_not_enough(npz_folder):
    (npz_folder / "test.npz").unlink()
    with pytest.raises(DataError, match=r"has no test\.npz; both"):
        read_npz(npz_folder)


def test_parts_must_have_one_shape(npz_folder, pictures):
    np.savez(npz_folder / "test.npz", x=pictures(30, side=7), y=np.arange(30) % 3)
    with pytest.raises(DataError, match=r"test\.npz has pictures \(3, 7, 7\), train\.npz \(3, 6, 6\)"):
        read_npz(npz_folder)


def test_class_names_must_cover_the_labels_once(npz_folder):
    (npz_folder / "classes.txt").write_text("ant\nbee")
    with pytest.raises(DataError, match=r"train\.npz has the label 2, outside 0 to 1 \(2 classes\)"):
        read_npz(npz_folder)
    (npz_folder / "classes.txt").write_text("ant\nbee\nant")
    with pytest.raises(DataError, match=r"classes\.txt names 'ant' twice"):
        read_npz(npz_folder)
    (npz_folder / "classes.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"classes\.txt is not UTF-8"):
        read_npz(npz_folder)


@pytest.fixture
def torchvision(monkeypatch, pictures):
    """A stand-in with the constructors of the real library's three kinds of data sets."""

    class Cifar:
        classes = ("cat", "dog")

        def __init__(self, root, train=True, transform=None, download=False):
            assert not download
            if "empty" in root:
                raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it\nmore")
            self.data, self.targets = (
                pictures(20 if train else 10, seed=train),
                [i % 2 for i in range(20)][: 20 if train else 10],
            )

    class Svhn:
        def __init__(self, root, split="train", download=False):
            self.data = pictures(20, seed=split == "train").transpose(0, 3, 1, 2)
            self.labels = np.arange(20) % 2

    class Files:
        def __init__(self, root, split="train"):
            self._paths = []

    class Whole:
        def __init__(self, root):
            self.data = None

    library = types.ModuleType("torchvision")
    library.datasets = types.ModuleType("torchvision.datasets")
    library.datasets.__all__ = ["CIFAR10", "SVHN", "Files", "Whole", "helper"]
    library.datasets.CIFAR10, library.datasets.SVHN, library.datasets.Files = Cifar, Svhn, Files
    library.datasets.Whole, library.datasets.helper = Whole, print
    monkeypatch.setitem(sys.modules, "torchvision", library)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", library.datasets)


@pytest.mark.usefixtures("torchvision")
def test_torchvision_sets_in_memory_are_read(tmp_path, pictures):
    parts = read_torchvision("CIFAR10", tmp_path)
    assert np.array_equal(parts.train.images, pictures(20, seed=1))
    assert (len(parts.test), parts.classes, parts.name) == (10, ("cat", "dog"), "CIFAR10")
    parts = read_torchvision("SVHN", tmp_path)
    assert np.array_equal(parts.train.images, pictures(20, seed=1))
    assert parts.classes == ("0", "1")


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize(
    ("name", "folder", "sentence"),
    [
        ("CIFAR11", "x", "torchvision has no data set 'CIFAR11'. Did you mean 'CIFAR10'"),
        ("helper", "x", "torchvision has no data set 'helper'"),
        (
            "CIFAR10",
            "empty",
            r"cannot read CIFAR10 from empty, RuntimeError: Dataset not found .* penjing downloads nothing",
        ),
        ("Files", "x", "Files does not keep its pictures in memory"),
        ("Whole", "x", "Whole has no train and test parts"),
    ],
)
def test_what_torchvision_cannot_give_is_one_sentence(name, folder, sentence):
    from pathlib import Path

    with pytest.raises(DataError, match=sentence) as caught:
        read_torchvision(name, Path(folder))
    assert "\n" not in str(caught.value)


def test_without_torchvision_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataError, match=r"CIFAR10 needs torchvision, .*pip install torchvision"):
        read_torchvision("CIFAR10", tmp_path)
