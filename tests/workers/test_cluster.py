"""The same on a Ray cluster of two local workers."""

import os
import signal
import sys
import threading

import pytest

from penjing.core.errors import PlanError, WorkerError
from penjing.workers import Workers, hired


@pytest.fixture
def cluster(ray, monkeypatch):
    """A cluster that somebody else started."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    yield ray
    ray.shutdown()


class Bad:
    """Does something bad the first time that anybody comes to 3."""

    def __init__(self, marker, how=None):
        self.marker, self.how = marker, how

    def __call__(self, x):
        if x == 3 and self.how:
            try:
                self.marker.touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        if x < 0:
            raise PlanError("conv2 is odd.")
        return x * x


def results(pool, items):
    return [value for _, value in sorted(pool.evaluate(items))]


def test_values_errors_and_a_worker_that_is_killed(cluster, tmp_path, capsys):
    with pytest.raises(WorkerError, match="cannot be sent to the workers"):
        hired(Workers.of("ray:2"), Bad(threading.Lock()))
    pool = hired(Workers.of("ray:2"), Bad(tmp_path / "died", "die"))
    try:
        assert results(pool, range(8)) == [x * x for x in range(8)]
        assert "its evaluation goes to another" in capsys.readouterr().err
        with pytest.raises(PlanError, match=r"conv2 is odd\."):
            results(pool, [-1])
    finally:
        pool.close()
    assert cluster.is_initialized(), "a cluster that was there before is left as it was"


def test_a_cluster_that_is_not_there_is_one_sentence(ray, monkeypatch):
    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.\nFailed to connect to 10.0.0.1:6379.")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(WorkerError, match=r"The Ray cluster 10.0.0.1:6379 cannot be used: Failed to connect"):
        hired(Workers.of("10.0.0.1:6379"), Bad(None))
