import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch import nn

from penjing.core.errors import PenjingError
from penjing.exporting.measure import clock_for, cpu_name, interleave, measure, ratio, runtime_name, summary

from .nets import Plain


class Bench:
    """A clock that only runs on, and logs, when something is run."""

    def __init__(self, ms: dict[str, float]) -> None:
        self.now, self.log, self.ms = 0.0, list[str](), ms

    def clock(self) -> float:
        return self.now

    def runs(self) -> dict[str, Callable[[], object]]:
        return {name: partial(self.once, name) for name in self.ms}

    def once(self, name: str) -> None:
        self.log.append(name)
        self.now += self.ms[name] / 1e3

    def take(self, rounds: int, budget: float = 1e9, warmup: int = 1) -> dict[str, list[float]]:
        return interleave(
            self.runs(), rounds=rounds, warmup=warmup, budget_seconds=budget, clock=self.clock, wall=self.clock,
            group_ms=4.0,
        )  # fmt: skip


def test_models_take_turns_in_a_rotating_order() -> None:
    bench = Bench({"a": 4.0, "b": 8.0, "c": 5.0})
    samples = bench.take(rounds=4)
    # Warm-up and sizing take two runs each, a sample one run that is not timed and a group of one.
    order = bench.log[6:][::2]
    assert order == [*"abc", *"bca", *"cab", *"abc"]
    assert samples == {"a": pytest.approx([4.0] * 4), "b": pytest.approx([8.0] * 4), "c": pytest.approx([5.0] * 4)}


def test_a_sample_lasts_as_long_as_a_group() -> None:
    bench = Bench({"a": 0.5})
    assert bench.take(rounds=2, warmup=3)["a"] == pytest.approx([0.5, 0.5])
    # 3 to warm up, 1 to size, then twice 1 untimed and 8 that make 4 ms.
    assert len(bench.log) == 3 + 1 + 2 * (1 + 8)


def test_the_budget_ends_it_but_not_before_five_rounds() -> None:
    assert len(Bench({"a": 100.0}).take(rounds=50, budget=0.01)["a"]) == 5
    assert len(Bench({"a": 100.0}).take(rounds=50, budget=1.9)["a"]) == 9


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(PenjingError, match="0 rounds"):
        Bench({"a": 1.0}).take(rounds=0)
    with pytest.raises(PenjingError, match="0 models"):
        Bench({}).take(rounds=1)


def test_the_ratio_survives_a_drifting_machine() -> None:
    drift = [1.0, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]
    a = summary([2.0 * d for d in drift], 1, 1, "cpu", "r", "c")
    b = summary([1.0 * d for d in drift], 1, 1, "cpu", "r", "c")
    found = ratio(a, b)
    assert (found.low, found.median, found.high) == pytest.approx((2.0, 2.0, 2.0))
    with pytest.raises(PenjingError, match="not measured together"):
        ratio(a, replace(b, samples=b.samples[1:]))
    with pytest.raises(PenjingError, match="not measured together"):
        ratio(a, replace(b, batch=8))


def test_the_summary_is_of_the_quantiles() -> None:
    found = summary([float(value) for value in range(11)][::-1], 2, 4, "wall", "r", "c")
    assert (found.low_ms, found.median_ms, found.high_ms, found.best_ms) == (1.0, 5.0, 9.0, 0.0)
    assert (found.threads, found.batch, found.samples[0]) == (2, 4, 10.0)


def test_one_thread_counts_processor_time() -> None:
    for clock, name in (clock_for(1), clock_for(1, own_threads=True)):
        start = clock()
        time.sleep(0.02)
        assert clock() - start < 0.01 and "cpu" in name
    assert clock_for(2) == clock_for(2, own_threads=True) == (time.perf_counter, "wall")


def test_processor_time_of_all_threads_is_counted_where_a_runtime_may_have_its_own() -> None:
    def busy() -> None:
        until = time.thread_time() + 0.02
        while time.thread_time() < until:
            pass

    (own, _), (every, name) = clock_for(1), clock_for(1, own_threads=True)
    begun = own(), every()
    worker = threading.Thread(target=busy)
    worker.start()
    worker.join()
    assert own() - begun[0] < 0.01 < 0.015 < every() - begun[1] and name == "process cpu"


def test_real_files_are_measured_side_by_side(
    plain: tuple[Plain, Path], fixed: tuple[nn.Module, Path, list[str]]
) -> None:
    found = measure({"one": plain[1], "two": plain[1]}, rounds=5, budget_seconds=0.0, batch=2)
    assert list(found) == ["one", "two"]
    timing = found["one"]
    assert len(timing.samples) == 5 and 0 < timing.best_ms <= timing.low_ms <= timing.median_ms <= timing.high_ms
    assert (timing.threads, timing.batch, timing.clock) == (1, 2, "cpu")
    assert timing.runtime == runtime_name() and timing.runtime.startswith("onnxruntime ") and timing.cpu
    with pytest.raises(PenjingError, match="batches of 3, not 1"):
        measure({"one": plain[1], "fixed": fixed[1]})


def test_the_processor_is_named_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert cpu_name()
