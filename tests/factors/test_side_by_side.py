"""Layers worked on side by side: the same bits on any number of threads, in order, within memory, errors by name."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from penjing.core.errors import PlanError
from penjing.core.registry import build
from penjing.factors import side_by_side as file
from penjing.factors.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["svd", "tucker2", "cp", "btd"])
def test_the_same_bits_on_one_thread_and_on_many(name: str) -> None:
    by, generator = build("factorization", name), torch.Generator().manual_seed(0)
    layers = [nn.Conv2d(12 + 8 * i, 40, 3) for i in range(6)]
    for layer in layers:
        layer.weight.data.copy_(torch.randn(layer.weight.shape, generator=generator))
    found = []
    for count in (1, 4):
        torch.set_num_threads(count)
        chains = side_by_side(lambda layer: (torch.get_num_threads(), by.split(layer, 5)), layers, [1] * 6, "")
        assert {inner for inner, _ in chains} == {1} and torch.get_num_threads() == count
        found.append([p for _, chain in chains for p in chain.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_as_many_at_once_as_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(3)
    monkeypatch.setattr(file, "available", lambda: 10)
    at_work, most, lock, meet = 0, 0, threading.Lock(), threading.Barrier(2)

    def work(_: int) -> str:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        if meet.n_waiting or not meet.broken:
            meet.wait(10)
        with lock:
            at_work -= 1
        return threading.current_thread().name

    side_by_side(work, range(4), [5, 5, 4, 4], "")
    assert most == 2  # three threads, of which two meet
    assert {threading.current_thread().name} == set(
        side_by_side(lambda _: threading.current_thread().name, range(4), [6, 5, 4, 4], "")
    )


def test_results_are_in_order_and_the_first_error_is_told() -> None:
    torch.set_num_threads(2)
    assert side_by_side(lambda n: n * n, range(5), [1, 9, 3, 4, 2], "") == [0, 1, 4, 9, 16]
    done = []

    def work(n: int) -> None:
        if n:
            raise PlanError(f"layer {n}")
        done.append(n)

    with pytest.raises(PlanError, match="layer 1"):
        side_by_side(work, range(3), [1, 1, 1], "")
    assert side_by_side(work, [], [], "") == []
