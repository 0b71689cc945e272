import threading

import pytest

from penjing.core.pausing import Pausing


def counting(to, log=None):
    def work(hand_out):
        try:
            for i in range(to):
                hand_out(i)
        finally:
            if log is not None:
                log.append("left")

    return work


def test_several_run_by_turns():
    with Pausing(counting(2)) as a, Pausing(counting(3)) as b:
        assert [(a.resume(), b.resume()) for _ in range(4)] == [(0, 0), (1, 1), (None, 2), (None, None)]


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_leaving_ends_the_function_and_its_thread(turns):
    log, threads = [], threading.active_count()
    with Pausing(counting(3, log)) as one:
        for _ in range(turns):
            one.resume()
    assert threading.active_count() == threads
    assert log == (["left"] if turns else [])


def test_what_the_function_raises_reaches_the_caller_once():
    def fails(hand_out):
        hand_out(1)
        raise ValueError("here")

    with Pausing(fails) as one:
        assert one.resume() == 1
        with pytest.raises(ValueError, match="here"):
            one.resume()
        assert one.resume() is None


def test_an_error_outside_ends_the_function_too():
    log = []
    with pytest.raises(KeyError), Pausing(counting(3, log)) as one:
        one.resume()
        raise KeyError
    assert log == ["left"]
