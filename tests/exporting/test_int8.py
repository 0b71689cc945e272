"""Codes, scales and biases of quantized files; what stays in floats; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

from penjing.core.errors import DataError, ParityError, PenjingError, PlanError
from penjing.exporting import int8 as module
from penjing.exporting.bias import corrected
from penjing.exporting.int8 import Int8, Quantized, quantize
from penjing.exporting.onnx import export_onnx
from penjing.exporting.ranges import least_error, part
from penjing.exporting.session import operators, run, session
from penjing.exporting.verify import check_likeness, parity

from .nets import FixedBatch, Plain, images, ready


def exported(model: nn.Module, x: Tensor, path: Path) -> Path:
    return export_onnx(model.eval(), (x[:2],), None, path / "float.onnx", quick=True)


def rounded(model: nn.Module, x: Tensor, path: Path, **options: Any) -> tuple[Path, Quantized, list[str]]:
    notes: list[str] = []
    target = path / "int8.onnx"
    made = quantize(exported(model, x, path), target, list(x.split(16)), Int8(**options), notes)
    return target, made, notes


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_the_codes_are_those_of_the_convention(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, -1.27, 0.01], [2.54, 0, -1]]))
        model[0].bias.copy_(torch.tensor([1.0, -2.0]))
    x = torch.linspace(-0.5, 2.05, 48).view(16, 3)
    path, made, _ = rounded(model, x, tmp_path, calibration="minmax", correct_bias=False)
    found = tensors(path)
    assert found["0.weight_quantized"].tolist() == [[50, -127, 1], [127, 0, -50]]
    assert found["0.weight_scale"] == pytest.approx([0.01, 0.02])
    (scale,) = (value for name, value in found.items() if name.startswith("input") and name.endswith("scale"))
    (zero,) = (value for name, value in found.items() if name.startswith("input") and name.endswith("zero_point"))
    assert scale == pytest.approx(0.01) and zero == 50 and zero.dtype == np.uint8
    assert found["0.bias_quantized"].tolist() == [10_000, -10_000], "of the step 0.01 x 0.01, and 0.01 x 0.02"
    assert made == Quantized(("0",), ())


@pytest.mark.parametrize("calibration", ["minmax", "percentile", "mse", "entropy"])
def test_a_quantized_file_resembles_its_model(plain: tuple[Plain, Path], tmp_path: Path, calibration: Any) -> None:
    model, path = plain
    made = quantize(path, tmp_path / "q.onnx", [images(16), images(16, seed=1)], Int8(calibration))
    assert made == Quantized(("body.0", "body.3", "head"), ())
    found = check_likeness(model, tmp_path / "q.onnx", [images(32, seed=2)], 0.05, "Advice.")
    assert 0 < found.noise == pytest.approx(10 ** (-found.sqnr / 20))
    assert operators(tmp_path / "q.onnx")["QuantizeLinear"] >= 3
    with pytest.raises(ParityError, match=r"differs from the model by .* 0\.0% is allowed.*Advice\."):
        check_likeness(model, tmp_path / "q.onnx", [images(8)], 1e-5, "Advice.")


def test_the_same_comes_out_twice_and_the_source_may_be_the_target(plain: tuple[Plain, Path], tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    again.write_bytes(plain[1].read_bytes())
    quantize(plain[1], tmp_path / "q.onnx", [images(16)])
    quantize(again, again, [images(16)])
    assert again.read_bytes() == (tmp_path / "q.onnx").read_bytes()


def test_kept_layers_are_in_floats_to_the_bit(plain: tuple[Plain, Path], tmp_path: Path) -> None:
    made = quantize(plain[1], tmp_path / "q.onnx", [images(16)], Int8(keep=("body.0", "head")))
    assert made == Quantized(("body.3",), ("body.0", "head"))
    before, after = tensors(plain[1]), tensors(tmp_path / "q.onnx")
    for name in ("body.0.weight", "head.weight"):
        assert np.array_equal(after[name], before[name])
    assert "body.3.weight" not in after


def test_seven_bits_where_the_processor_overflows(plain: tuple[Plain, Path], tmp_path: Path, monkeypatch: Any) -> None:
    def largest() -> int:
        quantize(plain[1], tmp_path / "q.onnx", [images(16)])
        return int(np.abs(tensors(tmp_path / "q.onnx")["body.3.weight_quantized"].astype(int)).max())

    monkeypatch.setattr(module, "saturates", lambda: False)
    assert largest() == 127
    monkeypatch.setattr(module, "saturates", lambda: True)
    assert largest() == 64


def test_bias_correction_leaves_no_mean_error(tmp_path: Path) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=(2, 1), dilation=2, groups=2, bias=False)
    x = torch.rand(40, 4, 9, 7)
    proto = onnx.load(exported(conv, x, tmp_path))
    proto.graph.node[0].name = "conv"
    weight = numpy_helper.to_array(proto.graph.initializer[0])
    coarse = np.round(weight * 8) / 8  # what 4 bits would leave of it
    other = onnx.ModelProto()
    other.CopyFrom(proto)
    codes = [np.round(weight * 8).astype(np.int8), np.array(0.125, np.float32), np.array(0, np.int8)]
    node = other.graph.node[0]
    other.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["w"]))
    node = other.graph.node[1]
    node.input[1] = "w"
    other.graph.initializer.extend(
        numpy_helper.from_array(a, n) for a, n in zip(codes, ("codes", "scale", "zero"), strict=True)
    )
    name = proto.graph.input[0].name
    feeds = [{name: batch.numpy()} for batch in x.split(16)]
    assert corrected(proto, other, feeds, ["conv"]) == 1
    bias = next(numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == "conv.corrected_bias")
    with torch.no_grad():
        whole = conv(x)
        ours = F.conv2d(x, torch.from_numpy(coarse), torch.tensor(bias), 2, (2, 1), 2, 2)
        plainly = F.conv2d(x, torch.from_numpy(coarse), None, 2, (2, 1), 2, 2)
    before, after = ((y - whole).mean((0, 2, 3)).abs().max().item() for y in (plainly, ours))
    assert after < 1e-5 < 1e-2 < before


class Twice(nn.Module):
    """One layer runs twice, and another has its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c.weight, self.c.bias = self.b.weight, self.b.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(F.relu(self.b(F.relu(self.a(x)))))).mean((2, 3))  # type: ignore[no-any-return]


class Dead(Twice):
    """A filter is zero, and a layer writes nothing but zeros."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.a.weight[2] = 0
            self.b.weight.zero_()
            assert self.b.bias is not None
            self.b.bias.fill_(-1)


class Up(nn.Module):
    """A transposed convolution, which ONNX Runtime has no kernel in whole numbers for."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.t, self.o = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 6, 2, 2, groups=2), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(F.relu(self.t(F.relu(self.a(x)))))  # type: ignore[no-any-return]


class Pile(nn.Module):
    """A pile of matrices, which has no channel to go by."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.a = nn.Parameter(torch.randn(2, 3, 5)), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x).flatten(2).transpose(1, 2)[:, None] @ self.w  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "layers", "kept"),
    [(Twice, ("a", "b"), ()), (Dead, ("a", "b"), ()), (Up, ("a", "o"), ("t",)), (Pile, ("a",), ("w",))],
)
def test_odd_networks(make: Any, layers: Any, kept: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(40, 3, 8, 8)
    path, made, notes = rounded(model, x, tmp_path)
    assert made == Quantized(layers, kept)
    assert parity(model, path, [x]).sqnr > 30
    assert [f"int8 leaves {name} in floats" in note for name, note in zip(kept, notes, strict=True)] == [True] * len(
        kept
    )


def test_a_file_of_a_fixed_batch(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), FixedBatch(3)).eval()
    path = export_onnx(model, (images(3),), {}, tmp_path / "fixed.onnx", dynamic_batch=False, quick=True)
    quantize(path, tmp_path / "q.onnx", [images(16), images(16, seed=1)])
    assert parity(model, tmp_path / "q.onnx", [images(3)]).sqnr > 25


def test_one_picture_is_enough_and_told(plain: tuple[Plain, Path], tmp_path: Path) -> None:
    notes: list[str] = []
    quantize(plain[1], tmp_path / "q.onnx", [images(1)], notes=notes)
    assert notes == ["int8 was calibrated on 1 picture; ranges that hold for others need some hundred."]


class Nothing(nn.Module):
    """No layer at all."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + 1


def test_what_cannot_be_is_one_sentence_and_leaves_no_file(plain: tuple[Plain, Path], tmp_path: Path) -> None:
    path, target = plain[1], tmp_path / "q.onnx"
    flat = torch.tensor([0.1, -2.0, 3.0]).view(1, 3, 1, 1).expand(16, 3, 8, 8)
    with pytest.raises(DataError, match="every picture is of one colour"):
        quantize(path, target, [flat])
    with pytest.raises(DataError, match="and there are none"):
        quantize(path, target, [])
    with pytest.raises(PlanError, match=r"keep names 'haed', which is no layer of .*Did you mean 'head'"):
        quantize(path, target, [images(4)], Int8(keep=("haed",)))
    with pytest.raises(PlanError, match="keep names all 3 layers"):
        quantize(path, target, [images(4)], Int8(keep=("body.0", "body.3", "head")))
    with pytest.raises(PlanError, match=r"float\.onnx has no convolution or linear layer to quantize; leave"):
        rounded(Nothing(), images(16), tmp_path)
    half = onnx.load(path)
    for tensor in half.graph.initializer:
        if tensor.name == "head.weight":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    with pytest.raises(PlanError, match=r"32-bit floats, and the weight of head is of others"):
        module._layers(half, "half.onnx")
    with pytest.raises(PenjingError, match="not a model ONNX Runtime can open"):
        quantize(tmp_path / "none.onnx", target, [images(4)])
    assert not target.exists()


def test_options_that_cannot_be() -> None:
    for wrong, words in (
        ({"calibration": "ms"}, "no calibration 'ms'"), ({"activations": "int4"}, "no activations 'int4'"),
        ({"percentile": 101}, "percentile is the share"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=words):
            Int8(**wrong)  # type: ignore[arg-type]
    assert Int8(keep="head").keep == ("head",)  # type: ignore[arg-type]


@pytest.mark.parametrize("relu", [True, False])
def test_the_range_of_least_error_is_that_of_the_numbers_themselves(relu: bool) -> None:
    x = np.append(np.random.default_rng(0).laplace(size=60_000), 30)
    x = np.maximum(x, 0) if relu else x

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.square(np.clip(np.round(x / step), round(low / step), round(high / step)) * step - x).mean())

    counts, edges = np.histogram(x, 2048, (x.min(), x.max()))
    low, high = least_error(counts.astype(float), edges)
    tried = [error(s * x.min(), s * x.max()) for s in np.linspace(0.2, 1, 81)]
    assert error(low, high) <= 1.02 * min(tried) < error(x.min(), x.max())


def test_a_percentile_clips_its_share() -> None:
    x = np.random.default_rng(0).normal(size=100_000)
    counts = np.histogram(x, 2048, (x.min(), x.max()))[0].astype(float)
    low, high = part(counts, x.min(), x.max(), "percentile", 99)
    assert low == -high and np.mean(np.abs(x) > high) == pytest.approx(0.01, rel=0.1)
    low, high = part(np.histogram(np.maximum(x, 0), 2048, (0, x.max()))[0].astype(float), 0, x.max(), "entropy", 99)
    assert low == 0 and 2 < high < x.max()


def test_a_file_with_channels_of_very_different_size_needs_a_scale_each(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ready(Plain())
    with torch.no_grad():
        model.body[3].weight.mul_(torch.logspace(-3, 0, 8).view(8, 1, 1, 1))
        model.body[4].running_var.mul_(torch.logspace(-6, 0, 8))
    path = export_onnx(model, (images(2),), None, tmp_path / "float.onnx", quick=True)
    quantize(path, tmp_path / "q.onnx", [images(32)])
    running = session(tmp_path / "q.onnx")
    name = running.get_inputs()[0].name
    (ours,) = run(running, {name: images(16).numpy()})
    assert np.isfinite(ours).all() and parity(model, tmp_path / "q.onnx", [images(16, seed=5)]).sqnr > 25
