"""Many layers at once: each on one thread, so that no bit depends on how many there are.

A single decomposition gains little from a second thread, and its last digits depend on it. Layers have nothing to do
with one another, and torch lets go of Python's lock while it decomposes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

from penjing.core import console
from penjing.core.threads import one_thread
from penjing.factors.memory import available

A = TypeVar("A")
B = TypeVar("B")


def side_by_side(work: Callable[[A], B], items: Sequence[A], needs: Sequence[int], text: str) -> list[B]:
    """Return what ``work`` makes of each item, in order, on as many threads as torch may use; ``text`` is the bar's.

    ``needs`` are what items take of memory: no more of them are in work than fit together, but at least one. Those that
    need most come first, so that none of them is left for the end.

    Units: needs in bytes.

    Raises: what ``work`` raises; of several errors that of the first item. What has not begun is left.
    """
    threads = _threads(needs)
    with console.bar(text, len(items)) as step, one_thread():
        if threads < 2:
            found = []
            for item in items:
                found.append(work(item))
                step(1)
            return found
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            order = sorted(range(len(items)), key=lambda i: -needs[i])
            futures = {i: pool.submit(work, items[i]) for i in order}
            for done in as_completed(futures.values()):
                if done.exception() is not None:
                    break
                step(1)
        finally:
            pool.shutdown(cancel_futures=True)
        for _, future in sorted(futures.items()):
            if not future.cancelled():
                future.result()
        return [futures[i].result() for i in range(len(items))]


def _threads(needs: Sequence[int]) -> int:
    """Return on how many threads layers that need so much may be worked on."""
    most, there = min(torch.get_num_threads(), len(needs)), available()
    largest = sorted(needs, reverse=True)
    return next((n for n in range(most, 1, -1) if sum(largest[:n]) <= there), 1)
