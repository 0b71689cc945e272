"""Picture files to arrays of one size, through Pillow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from penjing.core.errors import DataError, reason

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset([".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"])

RATIOS = (math.log(3 / 4), math.log(4 / 3))
"""The log range of width over height of a random crop."""


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height, reading only the header.

    Raises: DataError naming a file that is no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise DataError(f"{path} cannot be read as a picture: {reason(error)}") from error


def centre(path: Path, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """Return the middle of a picture whose short side was brought to 8/7 of ``size``.

    A picture no larger than ``size`` is brought to ``size`` itself, so that a set of pictures of that very size
    is read as it is.

    Shapes: → [size, size, channels]. Raises: DataError naming a file that cannot be decoded.
    """
    from PIL.Image import Resampling

    image = _opened(path, channels)
    short, long = min(image.size), max(image.size)
    target = size if short <= size else round(size * 8 / 7)
    if short != target:
        other = int(target * long / short)
        shape = (target, other) if image.width <= image.height else (other, target)
        image = image.resize(shape, Resampling.BILINEAR)
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return _array(image.crop((left, top, left + size, top + size)), channels)


def random_crop(
    path: Path, size: int, channels: int, scale: tuple[float, float], draws: npt.NDArray[np.float64]
) -> npt.NDArray[np.uint8]:
    """Return a random part of a picture, stretched to ``size`` and mirrored half of the time.

    ``draws`` are five numbers from [0, 1): area within ``scale`` of the whole, shape, left, top, mirror.

    Shapes: → [size, size, channels]. Raises: DataError naming a file that cannot be decoded.
    Paper: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6.
    Differs: a part that does not fit is clipped to the picture instead of drawn again.
    """
    from PIL.Image import Resampling, Transpose

    image = _opened(path, channels)
    area = image.width * image.height * (scale[0] + (scale[1] - scale[0]) * draws[0])
    ratio = math.exp(RATIOS[0] + (RATIOS[1] - RATIOS[0]) * draws[1])
    width = max(1, min(image.width, round(math.sqrt(area * ratio))))
    height = max(1, min(image.height, round(math.sqrt(area / ratio))))
    left = int(draws[2] * (image.width - width + 1))
    top = int(draws[3] * (image.height - height + 1))
    image = image.resize((size, size), Resampling.BILINEAR, box=(left, top, left + width, top + height))
    if draws[4] < 0.5:
        image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
    return _array(image, channels)


def _opened(path: Path, channels: int) -> Image:
    """Return the decoded picture with one or three channels."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            image = file.copy()
            if image.mode.startswith(("I", "F")):
                # Pillow would clip these to 255, which turns most of the picture white without a word.
                raise DataError(f"{path} has more than 8 bits a channel ({image.mode}); convert it to 8 bits.")
            if image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")
            return image.convert("L" if channels == 1 else "RGB")
    except DataError:
        raise
    except Exception as error:  # each format's decoder fails in its own way
        raise DataError(f"{path} cannot be read as a picture: {reason(error)}") from error


def _array(image: Image, channels: int) -> npt.NDArray[np.uint8]:
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)
