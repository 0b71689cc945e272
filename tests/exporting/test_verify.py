import copy
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from penjing.core.errors import ParityError, TraceError
from penjing.exporting.onnx import export_onnx
from penjing.exporting.verify import check_parity, parity

from .nets import Plain, Several, images, ready


def test_a_true_file_passes_on_every_batch_size(plain: tuple[Plain, Path]) -> None:
    model, path = plain
    model.train()
    found = check_parity(model, path, [images(6), images(3, seed=1)])
    assert model.training
    assert 0 < found.relative < 1e-5 and found.samples == 6 + 3 + 1 and found.agree == 1.0


def test_labels_beside_the_inputs_are_left_out(plain: tuple[Plain, Path]) -> None:
    assert parity(*plain, [(images(4), torch.arange(4))]) == parity(*plain, [images(4)])
    assert parity(*plain, [{"x": images(4)}]) == parity(*plain, [images(4)])


def test_the_numbers_are_those_of_a_known_difference(plain: tuple[Plain, Path]) -> None:
    model, path = plain
    shifted = copy.deepcopy(model)
    with torch.no_grad():
        shifted.head.bias.add_(0.5)
    x = images(8)
    found = parity(shifted, path, [x])
    assert found.absolute == pytest.approx(0.5, rel=1e-4)
    with torch.no_grad():
        assert found.relative == pytest.approx(0.5 / shifted.eval()(x).abs().max().item(), rel=1e-4)
    assert found.agree == 1.0


def test_a_small_fault_in_one_weight_is_caught(plain: tuple[Plain, Path], tmp_path: Path) -> None:
    model, path = plain
    proto = onnx.load(path)
    (weight,) = [w for w in proto.graph.initializer if list(w.dims) == [8, 8, 3, 3]]
    array = onnx.numpy_helper.to_array(weight).copy()
    array[3] *= 1.02
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(ParityError, match=r"wrong\.onnx differs from the model by .* 0\.0001 is allowed"):
        check_parity(model, tmp_path / "wrong.onnx", [images(4)])


def test_another_models_file_is_caught(plain: tuple[Plain, Path]) -> None:
    other = ready(Plain(), seed=1)
    agree = parity(other, plain[1], [images(32)]).agree
    assert agree is not None and agree < 1
    with pytest.raises(ParityError, match="of the answers agree"):
        check_parity(other, plain[1], [images(32)])
    other.head = nn.Linear(8, 6)
    with pytest.raises(ParityError, match=r"returns \[\[1, 5\]\] where the model returns \[\[1, 6\]\]"):
        parity(other, plain[1], [images(2)])


def test_not_a_number_never_passes(plain: tuple[Plain, Path]) -> None:
    broken = copy.deepcopy(plain[0])
    with torch.no_grad():
        broken.head.bias[0] = float("nan")
    with pytest.raises(ParityError):
        check_parity(broken, plain[1], [images(2)])


def test_infinity_on_both_sides_does_not_pass_and_warns_of_nothing(tmp_path: Path) -> None:
    model = ready(Plain())
    with torch.no_grad():
        model.head.bias[0] = float("inf")
    path = export_onnx(model, (images(2),), {}, tmp_path / "infinite.onnx")
    with pytest.raises(ParityError, match="differs from the model by nan"):
        check_parity(model, path, [images(2)])


def test_not_a_number_in_a_later_output_is_seen(tmp_path: Path) -> None:
    model = ready(Several())
    inputs = {"other": torch.rand(2, 4), "table": torch.rand(3, 3)}
    path = export_onnx(model, (images(2), 3), inputs, tmp_path / "several.onnx")
    batch = {"x": images(2), "factor": 3, **inputs, "table": torch.full((3, 3), float("nan"))}
    found = parity(model, path, [batch])
    assert math.isnan(found.relative) and math.isnan(found.absolute)


def test_nothing_to_compare_is_said(plain: tuple[Plain, Path]) -> None:
    with pytest.raises(ParityError, match="nothing to compare"):
        parity(*plain, [])


def test_a_fixed_batch_is_compared_in_portions(fixed: tuple[nn.Module, Path, list[str]]) -> None:
    model, path, _ = fixed
    assert check_parity(model, path, [images(3)]).samples == 3


def test_numbers_among_the_inputs_reach_the_model(tmp_path: Path) -> None:
    model = ready(Several())
    other, table = torch.rand(4, 4), torch.rand(3, 3)
    inputs = {"other": other[:2], "table": table}
    path = export_onnx(model, (images(2), 3), inputs, tmp_path / "several.onnx")
    by_name = {"x": images(4), "factor": 3, "other": other, "table": table}
    in_order = [images(4).numpy(), 3, other.numpy(), table.numpy(), np.arange(4)]
    assert check_parity(model, path, [by_name]) == check_parity(model, path, [in_order])
    assert check_parity(model, path, [by_name]).samples == 5
    assert parity(model, path, [{**by_name, "factor": 4}]).relative > 0.1


def test_inputs_that_do_not_fit_are_one_sentence(plain: tuple[Plain, Path]) -> None:
    with pytest.raises(TraceError, match=r"Plain does not run on the inputs to compare on in body\.0"):
        parity(*plain, [torch.zeros(2, 4, 8, 8)])
