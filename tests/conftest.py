"""What several test files need."""

import contextlib
import functools
import gc
import signal
import sys
import types
import warnings
from pathlib import Path
from unittest import mock

import pytest
from torch.onnx._internal.exporter import _registration

from penjing import api, results
from penjing.exporting.onnx import export_onnx
from penjing.report import svg
from penjing.report.build import write_report
from penjing.steps import export, original, spending

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from fuzzing import stage

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background deaf to Ctrl-C; tests that press it, and what they start, must hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Torch's exporter reads the source of 500 operators anew for each file, which takes as long as a small network.
_honest = _registration.onnxscript_apis
_registration.onnxscript_apis = types.SimpleNamespace(
    get_torchlib_ops=functools.cache(lambda: _honest.get_torchlib_ops())
)


def pytest_collection_finish():
    """Leave what is imported and collected by now out of every later search for garbage."""
    gc.collect()
    gc.freeze()


def sketched(results, path):
    """Write the report of a run with all of its figures made, and none of them drawn."""
    with mock.patch.object(svg, "inline", lambda figure, name: f'<svg id="{name}"></svg>'):
        return write_report(results, path)


@pytest.fixture(scope="session", autouse=True)
def hurried():
    """Let runs export quickly, time their files in few rounds and no single layers, and draw no figures."""
    with stage.quickly(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(spending, "SECONDS", 0.0)
        patch.setattr(api, "write_report", sketched)
        yield


@pytest.fixture(scope="session")
def unhurried():
    """Return a context in which runs export and draw as users' runs do."""

    @contextlib.contextmanager
    def context():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(api, "write_report", write_report)
            for module in (export, original, results):
                patch.setattr(module, "export_onnx", export_onnx)
            yield

    return context


@pytest.fixture
def ray():
    """Ray, or a skip; what it leaves open is closed before anybody else would be blamed for it."""
    yield pytest.importorskip("ray", reason="Ray is not installed: pip install 'penjing[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
