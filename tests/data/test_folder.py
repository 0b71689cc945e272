import numpy as np
import pytest

from penjing.core.errors import DataError
from penjing.data.folder import read_folder


@pytest.fixture
def layout(tmp_path, class_folders):
    class_folders(tmp_path / "train", {"bee": 4, "ant": 3})
    class_folders(tmp_path / "test", {"ant": 2, "bee": 2})
    return tmp_path


def test_train_and_test_folders(layout):
    parts = read_folder(layout)
    assert parts.classes == ("ant", "bee")
    assert [path.parent.name for path in parts.train.paths] == ["ant"] * 3 + ["bee"] * 4
    assert parts.train.labels.tolist() == [0] * 3 + [1] * 4
    assert parts.test.labels.tolist() == [0, 0, 1, 1]
    assert parts.train.shape == parts.test.shape == (3, 8, 8)
    assert parts.val is None


def test_val_is_the_test_where_there_is_no_other(layout):
    (layout / "test").rename(layout / "val")
    parts = read_folder(layout)
    assert len(parts.test) == 4
    assert parts.val is None


def test_val_beside_test_is_val(layout, class_folders):
    class_folders(layout / "val", {"ant": 1, "bee": 1})
    parts = read_folder(layout)
    assert (len(parts.test), len(parts.val)) == (4, 2)


def test_class_folders_alone_give_a_fifth_to_test(tmp_path, class_folders):
    class_folders(tmp_path, {"ant": 10, "bee": 20, ".cache": 3})
    parts = read_folder(tmp_path)
    assert parts.classes == ("ant", "bee")
    assert np.bincount(parts.test.labels).tolist() == [2, 4]
    assert np.bincount(parts.train.labels).tolist() == [8, 16]
    assert not set(parts.train.paths) & set(parts.test.paths)
    assert read_folder(tmp_path).test.paths == parts.test.paths


@pytest.mark.parametrize("counts", [{"ant": 12, "bee": 1}, {"ant": 1, "bee": 1}])
def test_a_class_of_one_picture_cannot_be_tested(tmp_path, class_folders, counts):
    class_folders(tmp_path, counts)
    name = min(counts, key=counts.get)
    with pytest.raises(DataError, match=rf"class folder .*/{name} has 1 picture, too few .* train/ and test/\.$"):
        read_folder(tmp_path)


def test_a_class_too_small_for_the_draw_is_named(tmp_path, class_folders):
    class_folders(tmp_path, {"ant": 40, "bee": 2})
    with pytest.raises(DataError, match=r"class folder .*/bee has 2 pictures, too few"):
        read_folder(tmp_path)


def test_deeper_pictures_count_and_other_files_do_not(layout, save_png, pictures):
    save_png(layout / "train/ant/more/deep.PNG", pictures(1, 8)[0])
    (layout / "train/ant/._0.png").write_bytes(b"resource fork")
    (layout / "train/ant/Thumbs.db").touch()
    parts = read_folder(layout)
    assert np.bincount(parts.train.labels).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("shape", "size", "scale"), [((300, 260), 224, 0.08), ((40, 30), 30, 0.6), ((100, 120), 100, 0.08)]
)
def test_size_is_224_or_less(tmp_path, save_png, shape, size, scale):
    for part in ("train", "test"):
        save_png(tmp_path / part / "a/0.png", np.zeros((300, 300), np.uint8))
        save_png(tmp_path / part / "b/0.png", np.zeros(shape, np.uint8))
    parts = read_folder(tmp_path)
    assert parts.train.size == parts.test.size == size
    assert parts.train.scale == (scale, 1.0)


def test_absent_folders_and_files_are_told_apart(tmp_path):
    with pytest.raises(DataError, match=r"data folder .*absent does not exist"):
        read_folder(tmp_path / "absent")
    (tmp_path / "train.npz").touch()
    with pytest.raises(DataError, match=r"train\.npz is a file; give the folder"):
        read_folder(tmp_path / "train.npz")


def test_an_unknown_layout_says_what_was_looked_for_and_found(tmp_path):
    with pytest.raises(DataError, match=r"holds nothing; looked for train\.npz .* train/ .* each class"):
        read_folder(tmp_path)
    for name in ("a.csv", "b.csv", "c.csv", "d.csv"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"holds a\.csv, b\.csv, c\.csv, \.\.\.; looked for"):
        read_folder(tmp_path)


def test_train_alone_is_told(layout):
    (layout / "test").rename(layout / "extra")
    with pytest.raises(DataError, match=r"has train/ but neither test/ nor val/"):
        read_folder(layout)


def test_an_empty_class_folder_is_named(layout):
    (layout / "train/cow").mkdir()
    (layout / "train/cow/notes.txt").touch()
    with pytest.raises(DataError, match=r"class folder .*train/cow has no pictures"):
        read_folder(layout)


def test_pictures_without_class_folders_are_told(tmp_path, save_png, pictures):
    for part in ("train", "test"):
        save_png(tmp_path / part / "0.png", pictures(1)[0])
    with pytest.raises(DataError, match=r"train has no folders; put the pictures of each class"):
        read_folder(tmp_path)


def test_different_class_folders_are_named(layout, class_folders):
    class_folders(layout / "test", {"cow": 1})
    with pytest.raises(
        DataError, match=r"train/ and test/ have different .* 1 are in one only \(first: 'cow', in test/\)"
    ):
        read_folder(layout)


def test_a_corrupt_first_picture_is_named_at_once(layout):
    (layout / "train/ant/0.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"train/ant/0\.png cannot be read as a picture"):
        read_folder(layout)


def test_npz_files_win(npz_folder, class_folders):
    class_folders(npz_folder / "train", {"a": 1})
    assert len(read_folder(npz_folder).train) == 120
