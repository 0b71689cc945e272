from pathlib import Path

import pytest
import torch
from torch import nn

from penjing.core.errors import PenjingError
from penjing.exporting.evaluate_file import FileModule
from penjing.exporting.onnx import export_onnx
from penjing.training.evaluate import evaluate

from .nets import Plain, images


class Heads(nn.Module):
    """A map, and logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        made = self.conv(x)
        return {"map": made, "logits": made.mean((2, 3))}


class Labelled:
    """Pictures with labels."""

    labels = torch.arange(10).numpy() % 5

    def __len__(self) -> int:
        return 10

    def batches(self, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(images(7), torch.arange(7) % 5), (images(3, seed=1), torch.arange(7, 10) % 5)]


def test_what_judges_a_network_judges_its_file(plain: tuple[Plain, Path]) -> None:
    model, path = plain
    ours, theirs = evaluate(FileModule(path), Labelled()), evaluate(model, Labelled())  # type: ignore[arg-type]
    assert (ours.correct, ours.count) == (theirs.correct, theirs.count)
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)


def test_a_fixed_batch_and_several_outputs(fixed: tuple[nn.Module, Path, list[str]], tmp_path: Path) -> None:
    assert len(FileModule(fixed[1])(images(7))) == 7
    path = export_onnx(Heads().eval(), (images(2),), {}, tmp_path / "several.onnx", quick=True)
    outputs = FileModule(path)(images(4))
    assert {name: list(tensor.shape) for name, tensor in outputs.items()} == {"map": [4, 5, 8, 8], "logits": [4, 5]}


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PenjingError, match="not a model ONNX Runtime can open"):
        FileModule(tmp_path / "none.onnx")
