import copy
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from penjing.core.errors import ParityError
from penjing.export.verify import check_parity, parity

from .nets import Plain, images, ready


def test_a_true_file_passes_on_every_batch_size(plain: tuple[nn.Module, Path]) -> None:
    model, path = plain
    model.train()
    found = check_parity(model, path, [images(6), images(3, seed=1)])
    assert model.training
    assert 0 < found.relative < 1e-5 and found.samples == 6 + 3 + 1 and found.agree == 1.0


def test_labels_beside_the_inputs_are_left_out(plain: tuple[nn.Module, Path]) -> None:
    assert parity(*plain, [(images(4), torch.arange(4))]) == parity(*plain, [images(4)])
    assert parity(*plain, [{"x": images(4)}]) == parity(*plain, [images(4)])


def test_the_numbers_are_those_of_a_known_difference(plain: tuple[nn.Module, Path]) -> None:
    model, path = plain
    shifted = copy.deepcopy(model)
    with torch.no_grad():
        shifted.head.bias += 0.5
    x = images(8)
    found = parity(shifted, path, [x])
    assert found.absolute == pytest.approx(0.5, rel=1e-4)
    with torch.no_grad():
        assert found.relative == pytest.approx(0.5 / shifted.eval()(x).abs().max().item(), rel=1e-4)
    assert found.agree == 1.0


def test_a_small_fault_in_one_weight_is_caught(plain: tuple[nn.Module, Path], tmp_path: Path) -> None:
    model, path = plain
    proto = onnx.load(path)
    (weight,) = [w for w in proto.graph.initializer if list(w.dims) == [8, 8, 3, 3]]
    array = onnx.numpy_helper.to_array(weight).copy()
    array[3] *= 1.02
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    with pytest.raises(ParityError, match=r"wrong\.onnx differs from the model by .* 0\.0001 is allowed"):
        check_parity(model, tmp_path / "wrong.onnx", [images(4)])


def test_another_models_file_is_caught(plain: tuple[nn.Module, Path]) -> None:
    other = ready(Plain(), seed=1)
    assert parity(other, plain[1], [images(32)]).agree < 1
    with pytest.raises(ParityError, match="of the answers agree"):
        check_parity(other, plain[1], [images(32)])
    other.head = nn.Linear(8, 6)
    with pytest.raises(ParityError, match=r"returns \[\[1, 5\]\] where the model returns \[\[1, 6\]\]"):
        parity(other, plain[1], [images(2)])


def test_not_a_number_never_passes(plain: tuple[nn.Module, Path]) -> None:
    broken = copy.deepcopy(plain[0])
    with torch.no_grad():
        broken.head.bias[0] = float("nan")
    with pytest.raises(ParityError):
        check_parity(broken, plain[1], [images(2)])


def test_nothing_to_compare_is_said(plain: tuple[nn.Module, Path]) -> None:
    with pytest.raises(ParityError, match="nothing to compare"):
        parity(*plain, [])


def test_a_fixed_batch_is_compared_in_portions(fixed: tuple[nn.Module, Path, list[str]]) -> None:
    model, path, _ = fixed
    assert check_parity(model, path, [images(3)]).samples == 3
