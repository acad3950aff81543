"""Work dealt to threads in pieces."""

import threading
import time

import pytest

from fastlstm import threads


@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_task_runs_once(count):
    done = []
    threads.run([lambda k=k: done.append(k) for k in range(50)], count)
    assert sorted(done) == list(range(50))


@pytest.mark.skipif(threads.get_num_threads() == 1, reason="on one core nobody is called")
def test_others_help(compiled):
    seen = set()

    def task():
        seen.add(threading.get_ident())
        time.sleep(0.01)  # gives up the interpreter lock

    for _ in range(20):
        threads.run([task] * 6, 3)
        if len(seen) > 1:
            return
    pytest.fail("no other thread came in 20 runs")


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_reaches_the_caller_when_all_are_done(count):
    running = []

    def fail():
        raise KeyError("this one")

    def slow():
        running.append(1)
        time.sleep(0.02)
        running.pop()

    with pytest.raises(KeyError, match="this one"):
        threads.run([slow, fail, slow], count)
    assert not running
    done = []
    threads.run([lambda: done.append(1)] * 3, count)  # and the threads still serve
    assert len(done) == 3


def test_runs_within_runs():
    done = []

    def outer():
        threads.run([lambda: done.append(1)] * 3, 2)

    threads.run([outer] * 4, 3)
    assert len(done) == 12


def test_idle_threads_sleep(compiled):
    threads.run([lambda: time.sleep(0.01)] * 4, 4)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
