"""What several test files need."""

import gc
import warnings

import pytest


@pytest.fixture
def ray():
    """Ray, or a skip; what it leaves open is closed before anybody else would be blamed for it."""
    yield pytest.importorskip("ray", reason="Ray is not installed: pip install 'penjing[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
