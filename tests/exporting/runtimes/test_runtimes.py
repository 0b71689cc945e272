"""Every runtime runs the same network to the same numbers, or refuses in a sentence."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penjing.core.errors import MissingExtra, PenjingError, PlanError, RecipeError
from penjing.core.protocols import Runtime
from penjing.core.registry import build, entries
from penjing.exporting.measure import measure, runtime_name
from penjing.exporting.runtimes.subject import Subject, typical
from penjing.exporting.runtimes.torch_compile import torch_compile

from ..nets import Plain, images


def outputs(runtime: Runtime, subject: Subject, batch: int | None, precision: str = "fp32") -> list[Any]:
    return [np.asarray(value) for value in runtime.open(subject, 1, batch, precision)()]


def relative(a: Any, b: Any) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("batch", [1, 3])
def test_openvino_computes_what_onnxruntime_does(plain: tuple[Plain, Path], batch: int) -> None:
    pytest.importorskip("openvino")
    subject = Subject(plain[1])
    (reference,) = outputs(build("runtime", "onnxruntime"), subject, batch)
    (found,) = outputs(build("runtime", "openvino"), subject, batch)
    assert found.shape == reference.shape == (batch, 5)
    assert relative(found, reference) < 1e-5


def test_bf16_is_bf16(plain: tuple[Plain, Path]) -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    (reference,) = outputs(build("runtime", "onnxruntime"), Subject(plain[1]), 1)
    (found,) = outputs(build("runtime", "openvino"), Subject(plain[1]), 1, "bf16")
    assert 1e-5 < relative(found, reference) < 0.05


def test_torch_runs_the_module(plain: tuple[Plain, Path]) -> None:
    model, x = plain[0].eval(), images(1)
    threads = torch.get_num_threads()
    (found,) = outputs(torch_compile(backend="eager"), Subject(None, model, ((x,), {})), 2)
    with torch.no_grad():
        assert relative(found, model(x.repeat(2, 1, 1, 1)).numpy()) < 1e-6
    assert torch.get_num_threads() == threads and not hasattr(model, "_compiled_call_impl_")
    model.train()
    assert outputs(torch_compile(backend="eager"), Subject(None, model, ((x,), {})), 2)[0] == pytest.approx(found)
    assert model.training


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_torch_compiles_the_module(plain: tuple[Plain, Path], precision: str) -> None:
    subject = Subject(None, plain[0].eval(), ((images(1),), {}))
    timing = measure({"one": subject}, runtime="torch_compile", precision=precision, rounds=5)["one"]
    assert timing.runtime == f"torch_compile {torch.__version__} {precision}" and timing.clock == "process cpu"


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_files_own_batch_is_kept_to(name: str, fixed: tuple[nn.Module, Path, list[str]]) -> None:
    pytest.importorskip(name)
    subject, runtime = Subject(fixed[1]), build("runtime", name)
    assert outputs(runtime, subject, None)[0].shape == (3, 3)
    with pytest.raises(PenjingError, match="batches of 3, not 2"):
        runtime.open(subject, 1, 2, "fp32")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_is_no_model_is_named(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for file in ("broken.onnx", "missing.onnx"):
        with pytest.raises(PenjingError, match=rf"{file} is not a model O"):
            build("runtime", name).open(Subject(tmp_path / file), 1, 1, "fp32")


def test_refusals_say_what_to_do(plain: tuple[Plain, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a": plain[1]}
    with pytest.raises(RecipeError, match=r"no runtime 'openvin'\. Did you mean 'openvino'"):
        measure(files, runtime="openvin")
    with pytest.raises(PlanError, match="onnxruntime does not compute in bf16 on this machine; take fp32"):
        measure(files, precision="bf16")
    with pytest.raises(PlanError, match=r"no precision 'bf15' to measure in\. Did you mean 'bf16'"):
        measure(files, precision="bf15")
    with pytest.raises(PlanError, match=r"torch_compile runs modules, and .*plain\.onnx is a file alone"):
        measure(files, runtime="torch_compile")
    with pytest.raises(PlanError, match="Plain is a module without a file; export it first"):
        measure({"a": Subject(None, plain[0])})
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"pip install 'penjing\[openvino\]'"):
        measure(files, runtime="openvino")


@pytest.mark.parametrize("name", sorted(entries("runtime")))
def test_a_runtime_names_itself(name: str) -> None:
    if name == "openvino":
        pytest.importorskip(name)
    assert runtime_name(name, "fp32").startswith(f"{name} {build('runtime', name).version()} fp32")


def test_the_typical_time_forgets_the_disturbed_ones() -> None:
    assert typical([1.0, 1.0, 2.0, 2.0, 900.0, 0.0, 1.0, 2.0]) == 1.5
    assert typical([7.0]) == 7.0
