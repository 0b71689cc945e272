"""Ctrl-C waits for the end of a block, and comes then."""

import os
import signal
import threading

import pytest

from penjing.core.interrupts import held


def test_ctrl_c_comes_at_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), held():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(1)
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_error_of_the_block_is_not_lost():
    with pytest.raises(KeyboardInterrupt) as caught, held():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("mine")
    assert str(caught.value.__context__) == "mine"
    with pytest.raises(ValueError, match="mine"), held():
        raise ValueError("mine")


def test_other_threads_and_ignored_signals_are_left_alone():
    seen = []

    def work():
        with held():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
