import logging
import logging.handlers
import re
import warnings
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from penjing.core import files
from penjing.core.errors import PenjingError, TraceError
from penjing.exporting.onnx import export_onnx
from penjing.exporting.session import fixed_batch, operators, session
from penjing.exporting.tidy import unfolded
from penjing.exporting.verify import parity

from .nets import Decides, Eigen, Holder, Pair, Plain, Several, Small, images, ready


def sizes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def test_one_file_with_open_batch_and_folded_norms(tmp_path: Path) -> None:
    model, notes = ready(Small()), list[str]()
    path = export_onnx(model, (images(1),), None, tmp_path / "new" / "small.onnx", notes=notes)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.name for entry in path.parent.iterdir()] == ["small.onnx"]
    assert "BatchNormalization" not in operators(path)
    assert notes == []
    assert [(value.name, sizes(value)) for value in proto.graph.input] == [("x", ["batch", 3, 8, 8])]
    assert [(value.name, sizes(value)) for value in proto.graph.output] == [("output", ["batch", 5])]
    assert proto.opset_import[0].version >= 20
    assert parity(model, path, [images(7)]).relative < 1e-5


def test_nothing_of_the_users_machine_is_in_the_file(plain: tuple[Plain, Path]) -> None:
    data = plain[1].read_bytes()
    assert b"File " not in data and b"torch/nn" not in data
    weights = 4 * sum(p.numel() for p in plain[0].parameters())
    assert weights < len(data) < weights + 6 * 500


def test_modes_and_weights_are_left_alone(tmp_path: Path) -> None:
    model = ready(Plain()).train()
    next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, (images(2),), None, tmp_path / "x.onnx", quick=True)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_export_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    level, heard = logging.getLogger("torch.onnx").level, logging.handlers.BufferingHandler(100_000)
    monkeypatch.setattr(logging.root, "handlers", [heard])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(ready(Plain()), (images(2),), None, tmp_path / "x.onnx")
        # Here the older exporter fails and the newer one takes over.
        inputs = {"other": torch.ones(2, 4), "table": torch.ones(3, 3)}
        export_onnx(ready(Several()), (images(2), 3), inputs, tmp_path / "y.onnx", quick=True)
    assert capfd.readouterr() == ("", "")
    assert [record for record in heard.buffer if record.levelno >= logging.WARNING] == []
    assert logging.getLogger("torch.onnx").level == level


def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    inputs = {"other": torch.ones(2, 4), "table": torch.ones(3, 3)}
    model = ready(Several())
    path = export_onnx(model, (images(2), 3), inputs, tmp_path / "y.onnx")
    graph = onnx.load(path).graph
    assert {value.name: sizes(value)[0] for value in graph.input} == {"x": "batch", "other": "batch", "table": 3}
    assert [value.name for value in graph.output] == ["output_logits", "both_0", "both_1"]
    batch = {"x": images(5), "other": torch.rand(5, 4), "table": torch.rand(3, 3)}
    running = session(path)
    ours = model(batch["x"], 3, batch["other"], batch["table"])["both"][0]
    theirs = running.run(None, {name: value.numpy() for name, value in batch.items()})[1]
    torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-5, atol=1e-5)


def test_a_model_with_one_batch_size_gets_that_and_a_note(fixed: tuple[nn.Module, Path, list[str]]) -> None:
    _, path, notes = fixed
    assert fixed_batch(session(path)) == 3
    assert len(notes) == 1 and "batch 3" in notes[0]


def test_a_batch_the_exporter_settles_on_is_noted_too(tmp_path: Path) -> None:
    notes: list[str] = []
    path = export_onnx(Pair(), (images(2),), None, tmp_path / "pair.onnx", notes=notes)
    assert fixed_batch(session(path)) == 2
    assert len(notes) == 1 and "batch 2" in notes[0]


def test_quick_gives_the_same_numbers_and_folds(tmp_path: Path) -> None:
    model = ready(Plain())
    path = export_onnx(model, (images(1),), None, tmp_path / "q.onnx", quick=True)
    assert "BatchNormalization" not in operators(path)
    assert parity(model, path, [images(4)]).relative < 1e-5


def test_quick_leaves_what_it_cannot_fold_to_the_other_exporter(tmp_path: Path) -> None:
    path = export_onnx(ready(Small()), (images(1),), None, tmp_path / "q.onnx", quick=True, dynamic_batch=False)
    assert "BatchNormalization" not in operators(path)
    assert fixed_batch(session(path)) == 1


def test_a_decision_on_values_is_traced_to_module_and_line(tmp_path: Path) -> None:
    line = Decides.forward.__code__.co_firstlineno + 1
    with pytest.raises(TraceError, match=rf"Holder .* in gate at .*nets\.py:{line}: .*torch\.where"):
        export_onnx(Holder(), (images(2),), None, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_operator_is_named_with_its_line(tmp_path: Path) -> None:
    line = Eigen.forward.__code__.co_firstlineno + 1
    with pytest.raises(TraceError, match=rf"Eigen .*nets\.py:{line}: ONNX has no form of aten\.\w*eigh"):
        export_onnx(Eigen(), (images(2),), None, tmp_path / "x.onnx")


def test_an_example_that_does_not_fit_names_the_layer(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"Plain does not run on its example input in body\.0.*expected input"):
        export_onnx(Plain(), (torch.zeros(1, 4, 8, 8),), None, tmp_path / "x.onnx")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.onnx"
    target.write_text("old")

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PenjingError, match=re.escape(f"{target} cannot be written: No space")):
        export_onnx(ready(Plain()), (images(1),), None, target, quick=True)
    assert target.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["x.onnx"]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PenjingError, match="cannot be written"):
        files.write_whole(tmp_path / "file" / "x.onnx", b"")


def test_only_norms_right_behind_a_layer_count_as_unfolded() -> None:
    make = onnx.helper.make_node

    def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [y]))

    norm = ["s", "b", "m", "v"]
    conv = make("Conv", ["x", "w"], ["c"])
    assert unfolded(graph(conv, make("BatchNormalization", ["c", *norm], ["y"], "bn"))) == ["bn"]
    assert unfolded(graph(make("BatchNormalization", ["x", *norm], ["y"]))) == []
    relu = make("Relu", ["c"], ["r"])
    assert unfolded(graph(conv, relu, make("BatchNormalization", ["r", *norm], ["y"]))) == []
    twice = make("Add", ["c", "n"], ["y"])
    assert unfolded(graph(conv, make("BatchNormalization", ["c", *norm], ["n"]), twice)) == []
