"""How many threads calls use, and what they do between calls."""

import threading
import time
from contextvars import copy_context

import numpy as np
import pytest
from compare import assert_same_bits
from random_layers import example

import fastlstm as fl

LARGE = {"T": 200, "B": 4, "I": 64, "H": 128}  # long enough for others to come
LAYERS = [{}, {"kind": "GRU"}, {"kind": "GRU", "linear_before_reset": False}, {"kind": "RNN"}]
several_cores = pytest.mark.skipif(fl.get_num_threads() == 1, reason="on one core nobody is called")


@pytest.fixture
def pool():
    return pytest.importorskip("fastlstm.kernels._pool", reason="no compiled kernels")


@pytest.fixture
def restored():
    """The number of threads is as it was after the test."""
    before = fl.get_num_threads()
    yield
    fl.set_num_threads(before)


@pytest.mark.usefixtures("restored")
def test_set_and_get():
    for n in (3, 1, 1000):
        fl.set_num_threads(n)
        assert fl.get_num_threads() == n


@pytest.mark.usefixtures("restored")
def test_all_threads_of_the_process_share_the_number():
    fl.set_num_threads(5)
    seen = []
    other = threading.Thread(target=lambda: seen.append(fl.get_num_threads()))
    other.start()
    other.join()
    assert seen == [5]


@several_cores
@pytest.mark.usefixtures("share_all_work", "restored")
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_others_help(compiled, rng, pool, layer, bidirectional):
    """In a call, in forward and in backward, by the argument or by the number that is set."""
    case = example(rng, **LARGE, **layer, bidirectional=bidirectional)
    (y, _), _ = case.forward()

    def backward(**threads):
        return case.layer.backward(case.forward(threads=1)[1], y, **threads)

    for call in (case, case.forward, backward):
        for set_to, given in ((1, {"threads": 3}), (3, {})):
            fl.set_num_threads(set_to)
            before = pool.visited()
            for _ in range(50):
                call(**given)
                if pool.visited() > before:
                    break
            else:
                pytest.fail("no other thread came in 50 calls")


@pytest.mark.usefixtures("share_all_work", "restored")
def test_one_thread_calls_nobody(compiled, rng, pool):
    case = example(rng, **LARGE, num_layers=2, bidirectional=True)
    case(threads=2)  # now there are workers
    time.sleep(0.05)
    before = pool.visited()
    (y, _), tape = case.forward(threads=1)
    case.layer.backward(tape, y, threads=1)
    fl.set_num_threads(1)
    case()
    assert pool.visited() == before


@pytest.mark.usefixtures("share_all_work")
def test_idle_threads_sleep(compiled, rng):
    case = example(rng, **LARGE, bidirectional=True)
    for _ in range(3):
        case(threads=4)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


@pytest.mark.usefixtures("share_all_work")
def test_more_callers_than_workers(compiled, rng):
    """Who finds no worker free computes alone."""
    case = example(rng, **LARGE, num_layers=2)
    expected, _ = case(threads=1)
    results = []

    def call():
        for _ in range(3):
            results.append(case(threads=3)[0])

    callers = [threading.Thread(target=copy_context().run, args=(call,)) for _ in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert len(results) == 36
    for y in results:
        assert_same_bits(y, expected)


@pytest.mark.usefixtures("share_all_work")
def test_threads_still_serve_after_an_error(compiled, rng):
    case = example(rng, **LARGE)
    expected, _ = case(threads=2)
    for _ in range(3):
        with pytest.raises(ValueError, match="x"):
            case.layer(np.zeros((2, 3, 5)), threads=2)
    assert_same_bits(case(threads=2)[0], expected)
