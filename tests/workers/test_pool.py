"""Workers may die, hang and fail; the values are those of the function all the same."""

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from penjing.core.errors import MissingExtra, PlanError, RecipeError, WorkerError
from penjing.workers import Here, Workers, hired, processes
from penjing.workers.pool import Lost, Pool


def square(x):
    return x * x


def results(pool, items):
    return [value for _, value in sorted(pool.evaluate(items))]


@pytest.fixture
def pool():
    made = []

    def make(function, workers=2, **options):
        made.append(hired(Workers.of(workers, **options), function))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_everybody_gives_the_same_values(pool, workers):
    one = pool(square, workers)
    assert results(one, range(20)) == [x * x for x in range(20)]
    assert results(one, [5]) == [25], "the workers stay"


def once(marker, how):
    """Do something bad the first time that anybody comes here."""

    def function(x):
        if x == 3:
            try:
                marker.touch(exist_ok=False)
            except FileExistsError:
                return square(x)
            how()
        return square(x)

    return function


def test_what_a_dead_worker_had_to_do_is_done_by_another(pool, tmp_path, capsys):
    one = pool(once(tmp_path / "died", lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert results(one, range(8)) == [x * x for x in range(8)]
    assert "was ended by SIGKILL; its evaluation goes to another" in capsys.readouterr().err


def test_a_worker_that_hangs_is_killed_after_its_time(pool, tmp_path, capsys):
    start = time.monotonic()
    one = pool(once(tmp_path / "hung", lambda: time.sleep(600)), timeout=1.5)
    assert results(one, range(6)) == [x * x for x in range(6)]
    assert time.monotonic() - start < 60
    assert "did not answer within 1.5 s and was killed" in capsys.readouterr().err


def dies(x):
    os._exit(7)


def test_an_item_that_loses_three_workers_is_given_up(pool):
    with pytest.raises(WorkerError, match=r"of 3 workers the last .* ended with exit code 7"):
        results(pool(dies), [1])


def fails(x):
    if x == 2:
        raise PlanError("conv2 is odd.")
    raise ValueError("seven")


def test_what_the_function_raises_is_raised_here(pool):
    one = pool(fails)
    with pytest.raises(PlanError, match=r"conv2 is odd\."):
        results(one, [2])
    with pytest.raises(WorkerError, match=r"ValueError: seven\."):
        results(one, [1])


def test_a_worker_that_died_while_idle_is_replaced(pool):
    one = pool(square, 1)
    assert results(one, [2]) == [4]
    os.kill(one.idle[0].process.pid, signal.SIGKILL)
    one.idle[0].process.join()
    assert results(one, [3, 4]) == [9, 16]


class Nobody:
    """Workers that are gone before they hear anything."""

    def __init__(self):
        self.hired = 0

    def hire(self):
        self.hired += 1
        return self

    def send(self, item):
        raise Lost("is gone")

    def kill(self):
        pass


def test_workers_that_never_come_up_are_not_hired_for_ever():
    nobody = Nobody()
    with pytest.raises(WorkerError, match="of 3 workers the last is gone"):
        results(Pool(nobody, 2, 5.0), [1])
    assert nobody.hired == 3


def loaded(x):
    """Read pictures as a user's loader does."""
    return sum(len(part) for part in DataLoader(range(8), 2, num_workers=1))


def test_a_worker_may_have_loaders_with_processes(pool):
    assert results(pool(loaded), [1, 2]) == [8, 8]


def missing(x):
    raise MissingExtra("This cost", "nothing", "none")


def test_every_error_of_ours_comes_through(pool):
    with pytest.raises(MissingExtra, match=r"This cost needs nothing: pip install 'penjing\[none\]'"):
        results(pool(missing), [1])


def prints(x):
    print("a line of the user's")
    return x


def test_what_a_worker_prints_does_not_wait_for_the_progress_bar_of_its_parent(pool, monkeypatch):
    """A bar catches what is printed; where a worker is forked, another thread may hold the bar's lock."""

    class Bar(io.StringIO):
        def write(self, text):
            if threading.current_thread() is not threading.main_thread():
                time.sleep(600)
            return len(text)

    monkeypatch.setattr(sys, "stdout", Bar())
    assert results(pool(prints, timeout=5), [1]) == [1]


def test_ctrl_c_while_a_worker_is_forked_does_not_end_it(pool, monkeypatch, capfd):
    """A terminal sends it to the new process too, which is then not yet told to leave it to its parent."""
    honest = processes._serve

    def serve(*given):
        os.kill(os.getpid(), signal.SIGINT)
        honest(*given)

    monkeypatch.setattr(processes, "_serve", serve)
    assert results(pool(square), [1, 2]) == [1, 4]
    said = capfd.readouterr().err
    assert "Traceback" not in said and "goes to another" not in said


def test_leaving_early_ends_what_is_under_way(pool):
    one = pool(once_slow, 2)
    asked = one.evaluate(range(4))
    assert next(asked) == (0, 0)
    pids = [worker.process.pid for worker in one.busy]
    asked.close()
    assert pids and not one.busy
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def once_slow(x):
    if x:
        time.sleep(600)
    return x


@pytest.mark.parametrize("second", [[], [1]], ids=["idle", "hanging"])
def test_workers_leave_when_their_parent_is_gone(tmp_path, second):
    parent = os.fork()
    if parent == 0:  # a parent that starts a worker and is killed at once
        one = hired(Workers.of(1), once_slow)
        next(one.evaluate([0]))
        (tmp_path / "pid").write_text(str(one.idle[0].process.pid if one.idle else 0))
        for item in second:
            one.idle[0].send(item)
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":  # nobody here reaps orphans
            return
        time.sleep(0.2)
    pytest.fail("the worker outlives its parent")


@pytest.mark.parametrize(
    ("text", "count", "cluster"),
    [
        (0, 0, ""), ("4", 4, ""), ("ray", None, "local"), ("ray:2", 2, "local"),
        ("ray://head:10001", None, "ray://head:10001"), ("10.0.0.1:6379", None, "10.0.0.1:6379"),
    ],
)  # fmt: skip
def test_workers_are_read(text, count, cluster):
    assert Workers.of(text) == Workers(count, cluster)


@pytest.mark.parametrize("text", ["-1", "²", "four", "ray:0", "ray:", "", ":6379", None])
def test_workers_that_are_none_are_refused(text):
    with pytest.raises(RecipeError, match="write a number of processes, ray"):
        Workers.of(text)


@pytest.mark.parametrize("timeout", [0, -3, float("nan"), float("inf"), "soon", True])
def test_timeouts_that_are_none_are_refused(timeout):
    with pytest.raises(RecipeError, match="number of seconds above 0"):
        Workers.of(2, timeout)


def test_without_ray_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'penjing\[ray\]'"):
        hired(Workers.of("ray"), square)


def test_spawned_workers_do_as_well_and_what_cannot_be_sent_is_one_sentence(pool, monkeypatch):
    monkeypatch.setattr(processes, "start_method", lambda: "spawn")
    assert results(pool(square, 1), [2, 3]) == [4, 9]
    with pytest.raises(WorkerError, match="cannot be sent to other processes"):
        results(pool(lambda x: x), [1])


def test_nobody_is_hired_for_work_done_here():
    assert isinstance(hired(Workers.of(0), square), Here)
