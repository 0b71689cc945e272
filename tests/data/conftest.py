from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    def make(n: int, side: int = 6, channels: int = 3, seed: int = 0) -> np.ndarray:
        shape = (n, side, side, channels)
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make


@pytest.fixture
def npz_folder(tmp_path, pictures) -> Path:
    """120 train and 30 test pictures of three classes, sorted by class."""
    folder = tmp_path / "shapes"
    folder.mkdir()
    np.savez(folder / "train.npz", x=pictures(120), y=np.repeat([0, 1, 2], 40))
    np.savez(folder / "test.npz", x=pictures(30, seed=1), y=np.repeat([0, 1, 2], 10))
    return folder


@pytest.fixture
def save_png() -> Callable[..., Path]:
    def save(path: Path, array: np.ndarray) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        return path

    return save


@pytest.fixture
def class_folders(pictures, save_png) -> Callable[..., Path]:
    def make(folder: Path, counts: dict[str, int], side: int = 8) -> Path:
        for c, (name, count) in enumerate(counts.items()):
            for i, picture in enumerate(pictures(count, side, seed=c)):
                save_png(folder / name / f"{i}.png", picture)
        return folder

    return make
