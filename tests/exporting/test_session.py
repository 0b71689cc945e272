from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from penjing.core.errors import DataError, PenjingError
from penjing.exporting.session import as_feeds, evaluate_onnx, file_bytes, fixed_batch, random_feeds, run, session

from .nets import Plain, images


class Labelled:
    """Pictures whose labels are the answers of a model, some of them made wrong."""

    def __init__(self, model: nn.Module, count: int, wrong: int) -> None:
        self.x = images(count)
        with torch.no_grad():
            self.y = model.eval()(self.x).argmax(1)
        self.y[:wrong] = (self.y[:wrong] + 1) % 5
        self.sizes: list[int] = []

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in zip(self.x.split(size), self.y.split(size), strict=True):
            self.sizes.append(len(x))
            yield x, y


def test_accuracy_is_a_percentage_of_the_samples(plain: tuple[Plain, Path]) -> None:
    split = Labelled(plain[0], 20, wrong=3)
    assert evaluate_onnx(plain[1], split, batch=8) == 85.0
    assert split.sizes == [8, 8, 4]
    with pytest.raises(DataError, match="0 samples"):
        evaluate_onnx(plain[1], Empty())


class Empty:
    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter(())


def test_a_fixed_batch_takes_any_number_of_samples(fixed: tuple[nn.Module, Path, list[str]]) -> None:
    running = session(fixed[1])
    x = images(7)
    (output,) = run(running, as_feeds(running, x))
    np.testing.assert_allclose(output, x.mean((2, 3)).numpy(), atol=1e-6)


def test_inputs_that_do_not_fit_are_one_sentence(plain: tuple[Plain, Path]) -> None:
    with pytest.raises(PenjingError, match=r"does not take x \[2, 4, 8, 8\]"):
        run(session(plain[1]), {"x": np.zeros((2, 4, 8, 8), np.float32)})


def test_random_feeds_fit_and_repeat(plain: tuple[Plain, Path]) -> None:
    running = session(plain[1])
    feeds = random_feeds(running, batch=3, seed=4)
    assert {name: (a.shape, str(a.dtype)) for name, a in feeds.items()} == {"x": ((3, 3, 8, 8), "float32")}
    assert np.array_equal(feeds["x"], random_feeds(running, batch=3, seed=4)["x"])
    assert not np.array_equal(feeds["x"], random_feeds(running, batch=3, seed=5)["x"])


def identity(kind: int, shape: list[int | str]) -> bytes:
    value = [onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    return bytes(model.SerializeToString())


def test_random_feeds_of_every_kind() -> None:
    for kind, name in ((onnx.TensorProto.INT64, "int64"), (onnx.TensorProto.BOOL, "bool")):
        running = session(identity(kind, ["batch", 50]))
        feeds = random_feeds(running, batch=2)
        assert str(feeds["x"].dtype) == name and set(feeds["x"].astype(int).flat) == {0, 1}
        assert np.array_equal(run(running, feeds)[0], feeds["x"])
    with pytest.raises(PenjingError, match="open size 'width'"):
        random_feeds(session(identity(onnx.TensorProto.FLOAT, ["batch", "width"])))
    with pytest.raises(PenjingError, match=r"tensor\(string\)"):
        random_feeds(session(identity(onnx.TensorProto.STRING, ["batch", 1])))
    with pytest.raises(PenjingError, match="batches of 4, not 1"):
        random_feeds(session(identity(onnx.TensorProto.FLOAT, [4, 1])))


def test_an_input_of_two_sizes_has_no_fixed_batch_when_one_is_open() -> None:
    assert fixed_batch(session(identity(onnx.TensorProto.FLOAT, ["n", 2]))) is None
    assert fixed_batch(session(identity(onnx.TensorProto.FLOAT, [6, 2]))) == 6


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_as_asked(plain: tuple[Plain, Path], threads: int) -> None:
    assert session(plain[1], threads).get_session_options().intra_op_num_threads == threads


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    for name in ("text.onnx", "none.onnx"):
        with pytest.raises(PenjingError, match=rf"{name} is not a model") as caught:
            session(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_weights_in_a_second_file_count(plain: tuple[Plain, Path], tmp_path: Path) -> None:
    assert file_bytes(plain[1]) == plain[1].stat().st_size
    split = tmp_path / "split.onnx"
    onnx.save(onnx.load(plain[1]), split, save_as_external_data=True, location="split.data", size_threshold=0)
    assert file_bytes(split) == split.stat().st_size + (tmp_path / "split.data").stat().st_size
