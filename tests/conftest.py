"""What several test files need."""

import functools
import gc
import signal
import types
import warnings

import pytest
from torch.onnx._internal.exporter import _registration

from penjing.exporting import measure, onnx
from penjing.steps import spending, state

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background deaf to Ctrl-C; tests that press it, and what they start, must hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Torch's exporter reads the source of 500 operators anew for each file, which takes as long as a small network.
_honest = _registration.onnxscript_apis
_registration.onnxscript_apis = types.SimpleNamespace(get_torchlib_ops=functools.cache(lambda: _honest.get_torchlib_ops()))


def pytest_collection_finish():
    """Leave what is imported and collected by now out of every later search for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def hurried():
    """Let runs time their files in few rounds, and no single layers to explain themselves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "measure", functools.partial(measure.measure, rounds=5))
        patch.setattr(spending, "SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def quick_files():
    """Let runs write their files by torch's older exporter where it can, in tests of something else."""
    modern = onnx._modern

    def quick(model, example, outputs, dynamic_batch, notes):
        proto = onnx._legacy(model, example, outputs, dynamic_batch)
        return proto or modern(model, example, outputs, dynamic_batch, notes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx, "_modern", quick)
        yield


@pytest.fixture
def ray():
    """Ray, or a skip; what it leaves open is closed before anybody else would be blamed for it."""
    yield pytest.importorskip("ray", reason="Ray is not installed: pip install 'penjing[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
