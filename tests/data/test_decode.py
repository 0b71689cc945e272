import numpy as np
import pytest
from PIL import Image

from penjing.core.errors import DataError
from penjing.data.decode import centre, random_crop, size_of


def test_a_picture_of_the_right_size_is_read_as_it_is(tmp_path, pictures, save_png):
    x = pictures(1, side=8)[0]
    assert np.array_equal(centre(save_png(tmp_path / "a.png", x), 8, 3), x)


def test_a_large_picture_is_brought_to_eight_sevenths_and_cut(tmp_path, save_png):
    # Each pixel holds its own column, so that the cut can be read off.
    columns = np.tile(np.arange(0, 240, dtype=np.uint8), (64, 1))
    y = centre(save_png(tmp_path / "a.png", columns), 28, 1)[..., 0]
    assert y.shape == (28, 28)
    # 64 x 240 becomes 32 x 120, halved; the middle 28 columns start at 46 and stand for 2 pixels each.
    np.testing.assert_allclose(y[14], 2 * np.arange(46, 74) + 0.5, atol=1)


def test_an_upright_picture_is_cut_in_the_middle_of_its_height(tmp_path, save_png):
    rows = np.tile(np.arange(0, 240, dtype=np.uint8)[:, None], (1, 64))
    y = centre(save_png(tmp_path / "a.png", rows), 28, 1)[..., 0]
    np.testing.assert_allclose(y[:, 14], 2 * np.arange(46, 74) + 0.5, atol=1)


def test_a_small_picture_is_enlarged(tmp_path, save_png):
    y = centre(save_png(tmp_path / "a.png", np.full((5, 9), 77, np.uint8)), 16, 3)
    assert y.shape == (16, 16, 3)
    assert (y == 77).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_8_bit_mode_becomes_colour_or_grey(tmp_path, mode):
    path = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new(mode, (6, 6)).save(path)
    assert centre(path, 6, 3).shape == (6, 6, 3)
    assert centre(path, 6, 1).shape == (6, 6, 1)


def test_a_palette_with_transparency_raises_no_warning(tmp_path):
    Image.new("P", (6, 6)).save(tmp_path / "a.png", transparency=b"\x00\x10")
    assert centre(tmp_path / "a.png", 6, 3).shape == (6, 6, 3)


def test_16_bits_are_refused_instead_of_clipped(tmp_path):
    Image.fromarray(np.full((6, 6), 1000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits a channel"):
        centre(tmp_path / "deep.png", 6, 3)


def test_a_random_crop_of_everything_is_the_picture(tmp_path, pictures, save_png):
    x = pictures(1, side=8)[0]
    path = save_png(tmp_path / "a.png", x)
    # Area 1 and ratio 1 (draw one half of a symmetric log range); 0.9 does not mirror, 0.1 does.
    assert np.array_equal(random_crop(path, 8, 3, (1.0, 1.0), np.array([0, 0.5, 0, 0, 0.9])), x)
    assert np.array_equal(random_crop(path, 8, 3, (1.0, 1.0), np.array([0, 0.5, 0, 0, 0.1])), x[:, ::-1])


def test_a_random_crop_lies_where_the_draws_say(tmp_path, save_png):
    x = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    path = save_png(tmp_path / "a.png", x)
    # A quarter of the area is 8 x 8; 0.5 of the 9 free places starts it at 4, 0.99 at 8.
    y = random_crop(path, 8, 1, (0.25, 0.25), np.array([0, 0.5, 0.5, 0.99, 0.9]))
    assert np.array_equal(y[..., 0], x[8:16, 4:12])


def test_crops_of_extreme_pictures_stay_inside(tmp_path, save_png):
    path = save_png(tmp_path / "a.png", np.full((1, 50), 9, np.uint8))
    for draws in np.random.default_rng(0).random((50, 5)):
        assert (random_crop(path, 4, 1, (0.08, 1.0), draws) == 9).all()


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_corrupt_picture_is_named(tmp_path, pictures, save_png, content):
    path = save_png(tmp_path / "bad.png", pictures(1, side=32)[0])
    path.write_bytes(path.read_bytes()[:200] if content is None else content)
    for read in (lambda: centre(path, 8, 3), lambda: random_crop(path, 8, 3, (0.1, 1), np.full(5, 0.5))):
        with pytest.raises(DataError, match=r"bad\.png cannot be read as a picture"):
            read()


def test_size_of_is_width_and_height(tmp_path, save_png):
    assert size_of(save_png(tmp_path / "a.png", np.zeros((3, 7), np.uint8))) == (7, 3)
    (tmp_path / "b.png").touch()
    with pytest.raises(DataError, match=r"b\.png cannot be read as a picture"):
        size_of(tmp_path / "b.png")
