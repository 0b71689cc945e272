import hashlib
import importlib
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import penjing.data
from penjing.core.errors import DataError
from penjing.data import as_data, cifar10, digits, from_parts, load
from penjing.data.splits import ArraySplit


def test_digits_have_the_documented_sizes():
    data = load("digits")
    assert (len(data.train), len(data.val), len(data.test)) == (1437 - 144, 144, 360)
    assert data.shape == (1, 8, 8)
    assert data.num_classes == 10
    assert (data.train.mean, data.train.std) == (data.test.split.mean, data.test.split.std) == ((0.305,), (0.376,))
    assert data.test_reads == 0


def marks(data):
    """A digest of the pictures of each split, in their order."""
    splits = (data.train, data.val, data.test.split)
    return [hashlib.sha256(np.ascontiguousarray(split.images)).hexdigest()[:16] for split in splits]


@pytest.mark.parametrize(
    ("split", "digests"),
    [
        (0, ["754a4a1fff2d1080", "2a383fecb2d31c61", "ff0c343e2e3de6f2"]),
        (1, ["c01501279a5caeb8", "041ba99f8c139b48", "22cb9263f838ff21"]),
        (2, ["7bc9ac9b9b45731f", "476c6eca74fdc220", "341de50b6a0770c6"]),
    ],
)
def test_the_digits_splits_never_move(split, digests):
    # Weights and published rows belong to these very divisions.
    data = digits(split=split)
    assert marks(data) == digests
    assert data.name == ("digits" if split == 0 else f"digits:{split}")
    assert marks(load(f"digits:{split}", seed=7)) == digests


def test_no_seed_shows_the_embedded_weights_their_own_training_pictures():
    trained_on = set(map(bytes, load("digits").train.images))
    for seed in (0, 1, 2):
        data = load("digits", seed=seed)
        assert marks(data)[2] == "ff0c343e2e3de6f2"
        assert not trained_on & {*map(bytes, data.val.images), *map(bytes, data.test.split.images)}
    moved = set(map(bytes, load("digits:1").test.split.images))
    assert len(trained_on & moved) > 200, "the check above would see a leak"


@pytest.mark.parametrize("split", [-1, 1.5, "1", True])
def test_digits_splits_are_numbered_from_0(split):
    with pytest.raises(DataError, match=r"numbered from 0\.$"):
        digits(split=split)


@pytest.mark.parametrize("spec", ["digits:", "digits:-1", "digits:1.5"])
def test_what_is_no_split_of_the_digits(spec):
    with pytest.raises(DataError, match="is no split of the digits; write digits, or digits:3"):
        load(spec)


def test_validation_is_cut_from_train_balanced_and_disjoint(npz_folder):
    data = load(npz_folder, val=0.1)
    assert np.bincount(data.val.labels).tolist() == [4, 4, 4]
    assert np.bincount(data.train.labels).tolist() == [36, 36, 36]
    with np.load(npz_folder / "train.npz") as file:
        whole = sorted(map(bytes, file["x"]))
    assert sorted([*map(bytes, data.train.images), *map(bytes, data.val.images)]) == whole
    assert np.bincount(load(npz_folder, val=30).val.labels).tolist() == [10, 10, 10]
    other = load(npz_folder, val=0.1, seed=1)
    assert not np.array_equal(other.val.images, data.val.images)
    assert np.array_equal(other.test.split.images, data.test.split.images)


def test_statistics_are_measured_on_train_alone(npz_folder, pictures):
    data = load(npz_folder)
    floats = data.train.images / 255
    np.testing.assert_allclose(data.train.mean, floats.mean((0, 1, 2)))
    np.testing.assert_allclose(data.train.std, floats.std((0, 1, 2)))
    for split in (data.val, data.test.split):
        assert (split.mean, split.std) == (data.train.mean, data.train.std)
    x = torch.cat([x for x, _ in data.train.batches(50)])
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3)) - 1).abs().max() < 1e-3


def test_given_statistics_are_used(npz_folder):
    data = load(npz_folder, mean=[0.1, 0.2, 0.3], std=[1, 1, 1])
    assert data.val.mean == data.test.split.mean == (0.1, 0.2, 0.3)
    assert data.train.std == (1.0, 1.0, 1.0)


def test_a_val_of_its_own_is_kept_and_train_stays_whole(npz_folder, pictures):
    np.savez(npz_folder / "val.npz", x=pictures(9, seed=5), y=np.arange(9) % 3)
    data = load(npz_folder)
    assert (len(data.train), len(data.val)) == (120, 9)
    assert np.array_equal(data.val.images, pictures(9, seed=5))


def test_picture_folders_take_imagenet_statistics_or_grey_ones(tmp_path, class_folders):
    class_folders(tmp_path / "pets", {"cat": 10, "dog": 10})
    data = load(str(tmp_path / "pets"), val=2)
    assert (len(data.train), len(data.val), len(data.test)) == (14, 2, 4)
    assert data.classes == ("cat", "dog")
    assert data.train.mean == (0.485, 0.456, 0.406)
    assert data.example().shape == (2, *data.shape) == (2, 3, 8, 8)
    grey = load(tmp_path / "pets", mean=[0.5], std=[0.5])
    assert grey.example().shape == (2, *grey.shape) == (2, 1, 8, 8)


def test_cifar10_is_the_folder_with_imagenet_statistics(npz_folder):
    data = cifar10(npz_folder, val=12)
    assert len(data.val) == 12
    assert (data.train.mean, data.train.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert cifar10(npz_folder, mean=(0.5,) * 3, std=(0.2,) * 3).train.mean == (0.5,) * 3


def test_folders_are_found_below_root_and_in_the_working_folder(npz_folder, monkeypatch):
    assert load("shapes", root=npz_folder.parent).name == "shapes"
    monkeypatch.chdir(npz_folder.parent)
    assert load("shapes").name == "shapes"
    monkeypatch.setenv("HOME", str(npz_folder.parent))
    assert load("~/shapes").name == "shapes"
    monkeypatch.chdir(npz_folder)
    assert load(".").name == "shapes"


@pytest.fixture
def source(monkeypatch):
    module = types.ModuleType("tests_data")
    monkeypatch.setitem(sys.modules, "tests_data", module)
    return module


def pairs(n, classes=3):
    return TensorDataset(torch.arange(float(n)).view(n, 1, 1, 1).expand(-1, 1, 4, 5), torch.arange(n) % classes)


def test_a_function_is_taken_as_it_is(source):
    source.make = lambda: (pairs(30), pairs(9))
    data = load("tests_data:make", val=6)
    assert (len(data.train), len(data.val), len(data.test)) == (24, 6, 9)
    assert data.shape == (1, 4, 5)
    train, val = ({int(v) for x, _ in split.batches(7) for v in x[:, 0, 0, 0]} for split in (data.train, data.val))
    assert not train & val
    assert train | val == set(range(30))
    assert len(torch.cat(data.calibration(9, seed=0))) == 9
    with pytest.raises(DataError, match="gives finished tensors: normalise there"):
        load("tests_data:make", mean=[0.5], std=[0.5])


def test_a_functions_own_splits_keep_their_statistics(source, pictures):
    split = ArraySplit(pictures(30), np.arange(30) % 3, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    source.make = lambda: (split, split)
    assert load("tests_data:make").train.mean == (0.1, 0.2, 0.3)


def test_a_module_named_digits_is_still_the_users(monkeypatch):
    module = types.ModuleType("digits")
    module.make = lambda: (pairs(30), pairs(9))
    monkeypatch.setitem(sys.modules, "digits", module)
    assert load("digits:make", val=6).shape == (1, 4, 5)


def values(split):
    return {int(v) for x, _ in split.batches(7) for v in x[:, 0, 0, 0]}


@pytest.mark.parametrize("kind", [tuple, list, lambda two: dict(zip(("train", "test"), two, strict=True))])
def test_datasets_and_loaders_from_python(kind):
    found = kind([DataLoader(pairs(30), 4, shuffle=True), pairs(9)])
    data = as_data(found, val=6, seed=3)
    assert (data.name, data.shape, data.num_classes) == ("loaders", (1, 4, 5), 3)
    assert (len(data.train), len(data.val), len(data.test)) == (24, 6, 9)
    assert values(data.train) | values(data.val) == set(range(30))
    assert values(from_parts(found, val=6, seed=3).val) == values(data.val) != values(as_data(found, val=6).val)
    assert data.test_reads == 0


def test_a_validation_of_their_own_is_kept():
    data = from_parts((pairs(30), pairs(3), pairs(9)), "mine")
    assert (data.name, len(data.train), len(data.val)) == ("mine", 30, 3)
    assert len(as_data({"train": pairs(30), "val": None, "test": pairs(9)}, val=6).val) == 6


def test_data_and_names_pass_through_as_data(npz_folder):
    data = load("digits")
    assert as_data(data, seed=5) is data
    assert len(as_data(npz_folder, val=12).val) == len(as_data(str(npz_folder), val=12).val) == 12


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (DataLoader(pairs(30), 4), r"loaders: a single DataLoader of labelled pictures; give \(train, test\)"),
        (pairs(30), r"loaders: a single TensorDataset of labelled pictures; give \(train, test\)"),
        (torch.zeros(3), r"loaders has Tensor; give \(train, test\)"),
        (3, "data is int; give a folder, a name"),
        (None, "data is NoneType"),
        ((pairs(3),), r"loaders has tuple of 1; give \(train, test\)"),
        ({"train": pairs(3), "tset": pairs(3)}, "loaders has the key 'tset'. Did you mean 'test'"),
        ((torch.zeros(9, 1, 2, 2), torch.zeros(9)), r"loaders, train is tensors or arrays; wrap them: .*TensorDataset"),
        (((np.zeros(9), np.zeros(9)), pairs(3)), "loaders, train is tensors or arrays"),
        ((pairs(30), pairs(9, classes=4)), "loaders, test, has the label 3, outside 0 to 2"),
    ],
)
def test_what_is_no_data_is_one_sentence(found, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        as_data(found)
    assert "\n" not in str(caught.value)


def test_functions_are_checked_like_files(source):
    source.make = lambda: (pairs(30), pairs(9, classes=4))
    with pytest.raises(DataError, match=r"tests_data:make, test, has the label 3, outside 0 to 2"):
        load("tests_data:make")
    source.make = lambda: (pairs(30, classes=1), pairs(9, classes=1))
    with pytest.raises(DataError, match="has one class only"):
        load("tests_data:make")


def test_test_classes_missing_from_train_are_named(npz_folder, pictures):
    np.savez(npz_folder / "test.npz", x=pictures(4), y=np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match=r"shapes: 1 classes of train do not occur in test \('2'\)"):
        load(npz_folder)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"val": 118}, "shapes, val = 118: 118 pictures are asked of 120, which give at most 117"),
        ({"val": 0.99}, r"shapes, val = 0\.99: 119 pictures are asked"),
        ({"val": 0}, "val = 0 is not right"),
        ({"val": 1.5}, r"val = 1\.5 is not right"),
        ({"mean": [0.5] * 3}, "Only mean is given; give mean and std together"),
        ({"std": [0.5] * 3}, "Only std is given"),
        ({"mean": [0.5], "std": [0.5]}, "mean has 1 and std 1 numbers; the pictures have 3 channels"),
        ({"mean": 0.5, "std": 0.5}, "are not right: give a list of numbers each"),
        ({"mean": ["a"], "std": [1]}, "are not right: give a list of numbers each"),
        ({"mean": [0.5] * 3, "std": [0, 1, 1]}, "std above 0"),
    ],
)
def test_wrong_options_are_one_sentence(npz_folder, options, sentence):
    with pytest.raises(DataError, match=sentence):
        load(npz_folder, **options)


def test_unknown_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        DataError, match=r"no data set 'digit': no folder .*digit, .*not installed. Did you mean 'digits'"
    ):
        load("digit")
    with pytest.raises(DataError, match=r"data folder .*no/such does not exist"):
        load("no/such")
    with pytest.raises(DataError, match="CIFAR10 needs torchvision"):
        load("torchvision:CIFAR10")


def test_bare_torchvision_names(tmp_path, monkeypatch, pictures):
    class Small:
        def __init__(self, root, train=True):
            assert root == str(tmp_path)
            self.data, self.targets = pictures(20), [i % 2 for i in range(20)]

    library = types.ModuleType("torchvision")
    library.datasets = types.ModuleType("torchvision.datasets")
    library.datasets.__all__, library.datasets.Small = ["Small"], Small
    monkeypatch.setitem(sys.modules, "torchvision", library)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", library.datasets)
    for spec in ("Small", "torchvision:Small"):
        assert len(load(spec, root=tmp_path).train) == 18
    with pytest.raises(DataError, match=r"no such name in penjing or torchvision. Did you mean 'Small'"):
        load("Smalls", root=tmp_path)


def test_the_function_is_not_hidden_by_the_file_of_its_name():
    importlib.import_module("penjing.data.load")
    assert callable(penjing.data.load)
    code = (
        "import sys, penjing.data; assert 'torch' not in sys.modules; "
        "import penjing.data.load, penjing.data.data; assert callable(penjing.data.load); "
        "from penjing.data import Data; assert Data.__name__ == 'Data'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_is_sorted_and_resolves():
    assert penjing.data.__all__ == sorted(penjing.data.__all__)
    assert all(getattr(penjing.data, name).__name__ == name for name in penjing.data.__all__)
    with pytest.raises(AttributeError, match="cifar11"):
        penjing.data.cifar11  # noqa: B018
