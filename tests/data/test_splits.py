import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from penjing.core.errors import DataError
from penjing.data.augment import normalise
from penjing.data.splits import ArraySplit, DatasetSplit, FolderSplit, LoaderSplit, order

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


class Plain(Dataset):
    """Pictures whose pixels all hold the picture's number."""

    def __init__(self, n=11):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        if i >= self.n:
            raise IndexError(i)
        return torch.full((1, 2, 2), float(i)), i % 3


class Batches:
    """A loader of batches of four, as a user may write it."""

    def __init__(self, n=11, shuffled=False):
        self.n, self.shuffled, self.passes = n, shuffled, 0

    def __iter__(self):
        self.passes += 1
        at = np.arange(self.n)
        if self.shuffled:
            at = np.random.default_rng(self.passes).permutation(at)
        for start in range(0, self.n, 4):
            part = torch.from_numpy(at[start : start + 4])
            yield part.double().view(-1, 1, 1, 1).expand(-1, 1, 2, 2), part.to(torch.int32) % 3


@pytest.fixture(params=["array", "folder", "dataset", "loader"])
def split(request, tmp_path, save_png):
    """Eleven pictures whose pixels tell their number, in every kind of split."""
    labels = np.arange(11) % 3
    images = np.broadcast_to(np.arange(11, dtype=np.uint8)[:, None, None, None], (11, 8, 8, 1)).copy()
    if request.param == "array":
        return ArraySplit(images, labels, (0.0,), (1 / 255,))
    if request.param == "folder":
        paths = tuple(save_png(tmp_path / f"{i}.png", image[..., 0]) for i, image in enumerate(images))
        return FolderSplit(paths, labels, 8, (0.0,), (1 / 255,))
    return DatasetSplit(Plain()) if request.param == "dataset" else LoaderSplit(Batches())


def numbers(split, *args, **options):
    """Return the numbers of the pictures by batch, having checked shapes, types and labels."""
    result = []
    for x, y in split.batches(*args, **options):
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.shape == (len(y), 1, *x.shape[2:])
        result.append(x[:, 0, 1, 1].round().int().tolist())
        assert y.tolist() == [i % 3 for i in result[-1]]
    return result


def test_without_a_seed_the_order_is_fixed_and_complete(split):
    assert len(split) == 11
    assert split.labels.dtype == np.int64
    assert split.labels.tolist() == [i % 3 for i in range(11)]
    for _ in range(2):
        assert numbers(split, 5) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10]]
    assert numbers(split, 100) == [list(range(11))]


def test_a_subset_has_the_pictures_asked_for_in_that_order(split):
    part = split.subset([7, 2, 9, 2])
    assert len(part) == 4
    assert part.labels.tolist() == [1, 2, 0, 2]
    assert numbers(part, 3) == [[7, 2, 9], [2]]
    assert numbers(part.subset(np.array([3, 0])), 5) == [[2, 7]]
    assert len(split.subset([])) == 0
    assert numbers(split.subset([]), 5) == []


def test_with_a_seed_the_order_is_a_function_of_seed_and_epoch(split):
    if isinstance(split, LoaderSplit):
        assert numbers(split, 4, seed=1) == numbers(split, 4)  # a loader's order is its own
        return
    first = numbers(split, 4, seed=1, epoch=0)
    assert sorted(i for part in first for i in part) == list(range(11))
    assert first != [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert numbers(split, 4, seed=1, epoch=0) == first
    assert numbers(split, 4, seed=1, epoch=1) != first
    assert numbers(split, 4, seed=2, epoch=0) != first


def test_a_last_training_batch_of_one_is_dropped(split):
    assert [len(part) for part in numbers(split, 5, seed=1)] == [5, 5]
    assert [len(part) for part in numbers(split, 1, seed=1)] == [1] * 11
    assert [len(part) for part in numbers(split.subset([4]), 5, seed=1)] == [1]


def test_a_batch_of_none_is_refused(split):
    with pytest.raises(DataError, match="A batch of 0 pictures is not possible"):
        next(split.batches(0))


def test_reading_leaves_the_global_generators_alone(split):
    torch.manual_seed(0)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    numbers(split, 4, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)


def test_order_covers_everything_once():
    assert sorted(np.concatenate(order(100, 7, 3, 2)).tolist()) == list(range(100))
    assert order(0, 4, 1, 0) == []


def test_array_batches_are_the_normalised_pictures(pictures):
    images = pictures(10, side=8)
    split = ArraySplit(images, np.zeros(10, np.int64), MEAN, STD, padding=2, flip=True)
    x = torch.cat([x for x, _ in split.batches(4)])
    assert torch.equal(x, normalise(images, MEAN, STD))
    assert split.shape == (3, 8, 8)


def augmented(split, size, **options):
    return torch.cat([x for x, _ in split.batches(size, augment=True, **options)])


def test_augmentation_shifts_within_the_padding_and_mirrors_half():
    n, side, padding = 400, 6, 2
    images = np.zeros((n, side, side, 1), np.uint8)
    images[:, 2, 2], images[:, 2, 3] = 100, 200  # the brighter pixel lies right unless mirrored
    split = ArraySplit(images, np.zeros(n, np.int64), (0.0,), (1 / 255,), padding, flip=True)
    x = augmented(split, 64).round().int()[:, 0]
    places, mirrored = set(), 0
    for picture in x:
        bright, dark = (picture == 200).nonzero()[0].tolist(), (picture == 100).nonzero()[0].tolist()
        is_mirrored = bright[1] < dark[1]
        mirrored += is_mirrored
        places.add((dark[0], 5 - dark[1] if is_mirrored else dark[1]))
    assert places == {(row, column) for row in range(5) for column in range(5)}
    assert 150 < mirrored < 250
    plain = ArraySplit(images, np.zeros(n, np.int64), (0.0,), (1 / 255,), padding, flip=False)
    for picture in augmented(plain, 64).round().int()[:, 0]:
        assert (picture == 200).nonzero()[0][1] == (picture == 100).nonzero()[0][1] + 1


def test_augmentation_is_a_function_of_seed_and_epoch_not_of_the_batch_size(pictures):
    split = ArraySplit(pictures(20, side=8), np.zeros(20, np.int64), MEAN, STD, padding=2, flip=True)
    first = augmented(split, 4, seed=1, epoch=0)
    assert torch.equal(augmented(split, 5, seed=1, epoch=0), first)
    assert not torch.equal(augmented(split, 4, seed=1, epoch=1), first)
    assert not torch.equal(augmented(split, 4, seed=2, epoch=0), first)
    fixed = augmented(split, 4)
    assert torch.equal(augmented(split, 5), fixed)
    assert not torch.equal(fixed, torch.cat([x for x, _ in split.batches(4)]))


def test_a_subset_keeps_statistics_and_augmentation(pictures):
    split = ArraySplit(pictures(4), np.zeros(4, np.int64), MEAN, STD, padding=2, flip=True)
    part = split.subset([1, 3])
    assert (part.mean, part.std, part.padding, part.flip) == (MEAN, STD, 2, True)
    assert not np.shares_memory(part.images, split.images)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": np.zeros((3, 4, 4, 1))}, r"float64 \[3, 4, 4, 1\]; penjing wants uint8"),
        ({"images": np.zeros((3, 4, 4), np.uint8)}, r"uint8 \[3, 4, 4\]; penjing wants uint8 \[n, h, w, c\]"),
        ({"labels": np.zeros(2, np.int64)}, r"Labels are int64 \[2\]; 3 pictures need integers \[3\]"),
        ({"labels": np.zeros(3)}, r"Labels are float64 \[3\]"),
        ({"mean": (0.5, 0.5)}, "mean has 2 and std 1 numbers; the pictures have 1 channels, so give 1 of each"),
        ({"std": (0.0,)}, "std above 0"),
        ({"mean": (float("nan"),)}, "must be finite"),
    ],
)
def test_arrays_that_do_not_agree_are_refused(change, sentence):
    given = {"images": np.zeros((3, 4, 4, 1), np.uint8), "labels": np.zeros(3, np.int64), "mean": (0.5,), "std": (0.5,)}
    with pytest.raises(DataError, match=sentence):
        ArraySplit(**(given | change))


@pytest.fixture
def files(tmp_path, pictures, save_png):
    paths = tuple(save_png(tmp_path / f"{i}.png", p) for i, p in enumerate(pictures(30, side=16)))
    return FolderSplit(paths, np.zeros(30, np.int64), 16, MEAN, STD)


def test_files_keep_their_order_through_the_threads(files, pictures):
    x = torch.cat([x for x, _ in files.batches(7)])
    assert torch.equal(x, normalise(pictures(30, side=16), MEAN, STD))
    assert files.shape == (3, 16, 16)


def test_augmented_files_repeat_for_seed_and_epoch(files):
    first = augmented(files, 8, seed=1, epoch=0)
    assert torch.equal(augmented(files, 5, seed=1, epoch=0), first)
    assert not torch.equal(augmented(files, 8, seed=1, epoch=1), first)


def test_leaving_early_stops_the_threads(files, monkeypatch):
    import threading

    before = threading.active_count()
    batches = files.batches(4)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_a_corrupt_file_stops_reading_and_is_named(files):
    files.paths[9].write_bytes(b"no picture")
    batches = files.batches(4)
    next(batches), next(batches)
    with pytest.raises(DataError, match=r"9\.png cannot be read"):
        next(batches)


def test_a_datasets_own_list_of_labels_is_believed_without_reading():
    class Listed(Plain):
        targets = torch.arange(11) % 3

        def __getitem__(self, i):
            raise AssertionError("read")

    assert DatasetSplit(Listed()).labels.tolist() == [i % 3 for i in range(11)]
    inner = torch.utils.data.Subset(Listed(), [4, 5])
    assert DatasetSplit(inner).labels.tolist() == [1, 2]
    assert DatasetSplit(inner, np.array([1])).labels.tolist() == [2]


def test_a_list_of_labels_that_a_transform_changes_is_not_believed():
    class Changed(Plain):
        targets = [9] * 11
        target_transform = abs

    assert DatasetSplit(Changed()).labels.tolist() == [i % 3 for i in range(11)]


def test_workers_give_the_same_batches():
    assert numbers(DatasetSplit(Plain(), workers=1), 4, seed=1) == numbers(DatasetSplit(Plain()), 4, seed=1)


def test_a_shuffling_loader_cannot_be_cut():
    with pytest.raises(DataError, match="Batches changes its order from pass to pass"):
        LoaderSplit(Batches(n=40, shuffled=True)).subset([0, 1])


def test_an_iterator_is_refused():
    with pytest.raises(DataError, match="generator can be read only once"):
        LoaderSplit(x for x in [])


PICTURE = torch.zeros(2, 1, 4, 4)


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        ({"image": PICTURE}, r"list gives dict; penjing wants pairs \(x, y\), or x alone"),
        ((PICTURE, torch.zeros(2), 1), "list gives tuple of 3; penjing wants pairs"),
        ((PICTURE.byte(), torch.zeros(2).long()), r"pictures as torch\.uint8 \[2, 1, 4, 4\]; penjing wants float"),
        ((PICTURE[0], torch.zeros(2).long()), r"pictures as torch\.float32 \[1, 4, 4\]"),
        (([[1.0]], torch.zeros(2).long()), "pictures as list"),
        ((PICTURE, torch.zeros(2)), r"labels as torch\.float32 \[2\]; 2 pictures need integers \[2\]"),
        ((PICTURE, torch.zeros(3).long()), r"labels as torch\.int64 \[3\]; 2 pictures"),
        ((PICTURE, ["cat", "dog"]), "list failed while it was read with "),
    ],
)
def test_a_users_batch_that_is_not_one_is_described(item, sentence):
    with pytest.raises(DataError, match=sentence):
        next(LoaderSplit([item]).batches(2))


def test_a_users_own_failure_is_one_sentence_with_its_cause():
    class Failing(Plain):
        def __getitem__(self, i):
            raise ValueError("no such file\nand more")

    with pytest.raises(DataError, match=r"Failing failed while it was read with ValueError: no such file\.$") as caught:
        next(DatasetSplit(Failing()).batches(2))
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_tensor_dataset_needs_no_more():
    split = DatasetSplit(TensorDataset(torch.arange(5.0).view(5, 1, 1, 1).expand(-1, 1, 2, 2), torch.arange(5) % 3))
    assert numbers(split, 3) == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
@pytest.mark.parametrize("kind", [DatasetSplit, lambda pairs: LoaderSplit(DataLoader(pairs, 4))])
def test_broken_pictures_are_counted(kind, value):
    x = torch.zeros(8, 1, 2, 2, dtype=torch.float64)
    x[5, 0, 1, 1] = x[6, 0, 0, 0] = value
    split = kind(TensorDataset(x, torch.arange(8) % 2))
    batches = split.batches(4)
    next(batches)
    with pytest.raises(DataError, match=r"NaN or infinity in 2 of 4 pictures of a batch") as caught:
        next(batches)
    assert "\n" not in str(caught.value)


def test_large_finite_pictures_pass():
    x = torch.full((4, 1, 2, 2), 3e38)  # their sum is not finite
    assert len(list(DatasetSplit(TensorDataset(x, torch.arange(4))).batches(4))) == 1
