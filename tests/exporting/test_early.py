"""Files that stop early: what they answer, what they run, and what they are measured on."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import penjing
from penjing.core.errors import BundleError, PlanError
from penjing.exporting import bundle
from penjing.exporting.early import decided, left_at, typical
from penjing.exporting.measure import measure
from penjing.exporting.onnx import export_onnx
from penjing.exporting.runtimes.subject import Subject
from penjing.exporting.session import fixed_batch, run, session
from penjing.exporting.verify import check_parity
from staged import leaving, staged

X = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(2))
EXAMPLE = (X[:2],)


class Pictures:
    def __init__(self, x):
        self.x = x

    def batches(self, size):
        return ((part, None) for part in self.x.split(size))

    def subset(self, at):
        return Pictures(self.x[at])


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return export_onnx(leaving(), EXAMPLE, {}, tmp_path_factory.mktemp("early") / "model.onnx", quick=True)


def test_the_file_answers_as_the_network_does_wherever_a_picture_leaves(file):
    model = leaving()
    at = left_at(model, Pictures(X))
    assert set(at) == {0, 1, 2}
    onnx.checker.check_model(str(file), full_check=True)
    assert check_parity(model, file, [X]).relative < 1e-5
    for k in (0, 1, 2):
        assert check_parity(model, file, [X[torch.from_numpy(at == k)]]).samples >= 1


def test_the_runtime_runs_what_lies_before_the_exit_and_nothing_else(file, tmp_path):
    model = leaving()
    at = left_at(model, Pictures(X))
    ran = []
    for k in (0, 1, 2):
        running = session(file, profile=str(tmp_path / f"profile{k}"))
        run(running, {running.get_inputs()[0].name: X[int(np.argmax(at == k))][None].numpy()})
        events = json.loads(Path(running.end_profiling()).read_text())
        kernels = [event for event in events if event["name"].endswith("_kernel_time")]
        ran.append(sum(event["args"]["op_name"] in ("Conv", "FusedConv") for event in kernels))
    # Two convolutions and an exit of two blocks, of four each; two and an exit of one; the last stage.
    assert ran == [10, 16, 17]


def test_it_takes_one_picture_at_a_time(file):
    running = session(file)
    assert fixed_batch(running) == 1 and [value.name for value in running.get_outputs()] == ["output"]
    model = leaving()
    model.early = False
    whole = export_onnx(model, EXAMPLE, {}, file.with_name("whole.onnx"), quick=True)
    assert fixed_batch(session(whole)) is None
    assert check_parity(staged(), whole, [X]).samples == len(X) + 1


def test_pictures_that_rounding_may_decide_are_left_out():
    model = leaving()
    first = float(model.every(X)[0].softmax(1).amax(1)[5].detach())
    model.thresholds = (first * (1 + 1e-7), 0.0)
    kept = torch.cat(list(decided(model, [X])))
    assert len(kept) == len(X) - 1 and not any(torch.equal(x, X[5]) for x in kept)


def test_measuring_takes_pictures_that_leave_as_all_do(file):
    model = leaving()
    shown = typical(model, Pictures(X), 12)
    shares = [np.bincount(left_at(model, Pictures(x)), minlength=3) / len(x) for x in (X, torch.cat(shown))]
    assert len(shown) == 12 and np.abs(shares[0] - shares[1]).max() <= 1 / 12
    found = measure({"early": Subject(file, pictures=tuple(shown))}, rounds=8)["early"]
    assert 0 < found.median_ms < 50 and len(found.samples) == 5
    with pytest.raises(PlanError, match=r"measured on onnxruntime alone, not on openvino"):
        measure({"early": Subject(file, pictures=tuple(shown))}, runtime="openvino")


def test_a_bundle_holds_exits_as_tensors_and_their_form_as_text(tmp_path):
    model = leaving()
    place = bundle.write(tmp_path / "b", model, inputs=[[3, 8, 8]], finished=True)
    again = penjing.load(place, staged)
    assert torch.equal(again(X), model(X)) and again.places == ("layer1", "layer2")
    assert sorted(file.name for file in place.iterdir()) == ["manifest.json", "weights.safetensors"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"exits": []}, r"tensors of its exits are others than those it tells of"),
        ({"exits": [{"at": "layer1"}]}, r"its entries are of other kinds"),
        ({"exits": "no"}, r"its entries are of other kinds"),
    ],
    ids=str,
)
def test_a_damaged_bundle_is_refused(tmp_path, change, says):
    place = bundle.write(tmp_path / "b", leaving())
    facts = json.loads((place / bundle.MANIFEST).read_text())
    (place / bundle.MANIFEST).write_bytes(bundle.sealed(facts | change))
    with pytest.raises(BundleError, match=says):
        penjing.load(place, staged)
