"""Profiles name the layers as the network does, whatever the runtime made of them."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
from torch import Tensor, nn

from penjing.core.errors import PlanError
from penjing.exporting.measure import profile
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.operators import Executed, layers_in, named

from ..nets import images, ready


class Branch(nn.Module):
    """A residual sum behind a fused pair of layers, a depthwise layer and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.deep = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.wide = nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.wide(torch.relu(self.deep(x))))
        answer: Tensor = self.head(x.mean((2, 3)))
        return answer


LAYERS = ["stem.0", "deep", "wide", "head"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(ready(Branch()), (images(1),), {}, tmp_path_factory.mktemp("branch") / "branch.onnx")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_layer_is_told_once_by_its_own_name(runtime: str, file: Path) -> None:
    pytest.importorskip(runtime)
    rows = profile(file, runtime=runtime, batch=2)
    assert [row.name for row in rows if not row.name.startswith("after ")][-4:] == LAYERS
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert all(row.ms >= 0 and row.operator for row in rows)


def test_changes_of_layout_are_told(file: Path) -> None:
    rows = profile(file, runtime="onnxruntime")
    assert any(row.operator.startswith("Reorder") and row.name.startswith("after ") for row in rows)


def test_a_quantised_file_names_the_same_layers(file: Path, tmp_path: Path) -> None:
    left = [{"x": images(2).numpy()}]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, object] | None:
            return left.pop() if left else None

    small = tmp_path / "int8.onnx"
    quantize_static(file, small, Reader(), QuantFormat.QDQ)
    found = list(dict.fromkeys(layers_in(small).values()))
    assert found == LAYERS
    rows = profile(small)
    assert [row.name for row in rows if row.name in LAYERS] == LAYERS
    assert any("Quantize" in row.operator for row in rows)


def test_names_are_read_from_bytes_too(file: Path) -> None:
    assert layers_in(file.read_bytes()) == layers_in(file)


def test_of_a_sum_the_summand_computed_last_is_carried(file: Path) -> None:
    layers = layers_in(file)
    graph = onnx.load(str(file)).graph
    (total,) = [node for node in graph.node if node.op_type == "Add"]
    assert layers[total.output[0]] == "wide"
    assert total.name not in layers


def test_what_is_no_layer_comes_after_one() -> None:
    told: Callable[[str, str], Executed] = lambda name, operator: Executed(name, operator, "", 1.0)  # noqa: E731
    rows = named([told("in", "Reorder"), told("c", "Conv"), told("c", "Relu"), told("d", "Conv")], {"c": "body.0"})
    assert [row.name for row in rows] == ["in", "body.0", "after body.0", "after body.0"]
    assert named([], {}) == []


def test_compiled_code_tells_no_layers(file: Path) -> None:
    with pytest.raises(PlanError, match="torch_compile tells no times of single layers"):
        profile(file, runtime="torch_compile")
