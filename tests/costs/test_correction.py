"""What runs teach brings predictions nearer to the truth, where the truth is known, also where runs disagree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.costs.correction import ENOUGH, Correction, distinct, learned
from penjing.costs.seen import Seen
from penjing.costs.table import LayerTable

from .drafts import conv, linear

TRUTH = Correction({"conv": 1.3, "depthwise": 0.7}, 1.0, spread=0.4, overhead=0.2)


def networks(count: int, seed: int = 0, noise: float = 0.0, profile: bool = True) -> list[Seen]:
    """Networks of several sizes, measured as the truth has it; a profile tells the layers' own times."""
    random, found = np.random.default_rng(seed), []
    for _ in range(count):
        size = float(np.exp(random.uniform(-1, 2)))
        kinds = {"conv": size * random.uniform(0.5, 1.5), "depthwise": size * random.uniform(0.1, 0.5)}
        one = Seen(kinds, int(1e6 * size * random.uniform(0.2, 2)), 1.0, 1.0)
        ms = TRUTH.predict(one) * random.uniform(1 - noise, 1 + noise)
        told = {kind: TRUTH.of(kind) * kinds[kind] for kind in kinds} if profile else {}
        found.append(replace(one, measured=ms, median=1.05 * ms, layers=told))
    return found


def off(correction: Correction, seen: list[Seen]) -> float:
    return float(np.median([abs(correction.predict(one) / TRUTH.predict(one) - 1) for one in seen]))


def bare(seen: list[Seen]) -> float:
    return float(np.median([abs(one.total / TRUTH.predict(one) - 1) for one in seen]))


@pytest.mark.parametrize("profile", [True, False])
def test_one_network_is_predicted_as_it_was_measured(profile: bool) -> None:
    (one,) = networks(1, profile=profile)
    found = learned([one])
    assert found is not None and found.predict(one) == pytest.approx(one.measured)
    assert learned([]) is None


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), profile=st.booleans())
def test_predictions_of_the_networks_seen_come_nearer(seed: int, count: int, profile: bool) -> None:
    seen = networks(count, seed, noise=0.01, profile=profile)
    found = learned(seen)
    assert found is not None
    assert off(found, seen) <= bare(seen) + 0.02
    numbers = [found.factor, found.spread, found.overhead, *found.kinds.values()]
    assert all(np.isfinite(numbers)) and min(numbers) >= 0


@pytest.mark.parametrize("profile", [True, False])
def test_enough_networks_tell_of_others(profile: bool) -> None:
    found, others = learned(networks(12, noise=0.01, profile=profile)), networks(40, seed=1)
    assert found is not None
    assert off(found, others) < (0.02 if profile else 0.1) < bare(others)
    if profile:
        assert (found.overhead, found.spread) == pytest.approx((0.2, 0.4), rel=0.2)
        assert [found.of(kind) for kind in ("conv", "depthwise")] == pytest.approx([1.3, 0.7], rel=0.05)


@pytest.mark.parametrize("count", [3, ENOUGH - 1, 9])
def test_where_runs_disagree_most_of_them_decide(count: int) -> None:
    """Each network was measured in three runs, one of which a neighbour disturbed; one network always was."""
    seen = networks(count, noise=0.01)
    seen[0] = replace(seen[0], measured=3 * seen[0].measured)
    runs = [*seen, *seen, *(replace(one, measured=2.5 * one.measured) for one in seen)]
    found = learned(runs)
    assert found is not None and off(found, seen[1:]) < 0.1 < bare(seen[1:])


def test_a_network_counts_once_however_often_it_was_measured() -> None:
    first, second, third = networks(3)
    assert learned([first] * 50 + [second, third]) == learned([first, second, third])
    (one,) = distinct([replace(first, measured=ms) for ms in (1.0, 9.0, 1.2)])
    assert one.measured == 1.2


def test_a_kind_that_takes_next_to_nothing_is_not_judged() -> None:
    one = Seen({"conv": 1.0, "linear": 0.001}, 0, 1.11, 1.2, {"conv": 1.1, "linear": 0.01})
    found = learned([one])
    assert found is not None and found.of("conv") == pytest.approx(1.1, rel=0.02) and found.of("linear") < 1.2


def test_times_of_nothing_teach_nothing() -> None:
    assert learned([Seen({"conv": 0.0}, 10, 1.0, 1.0)]) is None


def test_a_cut_is_predicted_nearer_by_a_corrected_table() -> None:
    """The table as runs use it, fitted to the original first: what is left is what the cut shrinks otherwise."""
    whole, cut = [conv(64, 64), linear(64, 640)], [conv(16, 16), linear(16, 640)]
    truth = {"conv": 1.5, "linear": 0.6}

    def timed(kinds: dict[str, float], layers: list) -> float:
        return sum(kinds[layer.kind] * layer.macs / 1e6 for layer in layers)

    def predicted(kinds: dict[str, float], overhead: float) -> float:
        table = LayerTable(timer=lambda shape: kinds["conv" if shape.kernel else "linear"] * shape.macs / 1e6)
        table.overhead = overhead
        table.calibrate(whole, 0.3 + timed(truth, whole))
        return table.predict(cut)

    real = 0.3 + timed(truth, cut)
    before, after = predicted({"conv": 1.0, "linear": 1.0}, 0.0), predicted(truth, 0.3)
    assert after == pytest.approx(real) and abs(after - real) < abs(before - real)
