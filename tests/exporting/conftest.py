from pathlib import Path

import pytest
from torch import nn

from penjing.exporting.onnx import export_onnx

from .nets import FixedBatch, Plain, images, ready


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plain, Path]:
    """A small model and its file, open batch."""
    model = ready(Plain())
    return model, export_onnx(model, (images(1),), None, tmp_path_factory.mktemp("plain") / "plain.onnx")


@pytest.fixture(scope="session")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path, list[str]]:
    """A model that works at a batch of 3 only, its file, and the notes of its export."""
    notes: list[str] = []
    path = tmp_path_factory.mktemp("fixed") / "fixed.onnx"
    return FixedBatch(3), export_onnx(FixedBatch(3), (images(3),), {}, path, notes=notes), notes
