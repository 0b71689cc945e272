"""What several test files need."""

import gc
import signal
import warnings

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background deaf to Ctrl-C; tests that press it, and what they start, must hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def hurried(request, monkeypatch):
    """Let runs time no single layers to explain themselves, but for the tests of that."""
    if "test_spending" not in request.node.nodeid:
        monkeypatch.setattr("penjing.steps.spending.SECONDS", 0.0)


@pytest.fixture
def ray():
    """Ray, or a skip; what it leaves open is closed before anybody else would be blamed for it."""
    yield pytest.importorskip("ray", reason="Ray is not installed: pip install 'penjing[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
