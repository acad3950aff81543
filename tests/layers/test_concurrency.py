"""Many threads on one model, processes that fork, and calls that must use no thread."""

import copy
import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import numpy as np
import pytest
from compare import assert_same_bits, assert_same_result
from random_layers import example

pytestmark = pytest.mark.usefixtures("share_all_work")

LAYERS = [{}, {"kind": "GRU"}, {"kind": "GRU", "linear_before_reset": False}, {"kind": "RNN"}]
layers = pytest.mark.parametrize("layer", LAYERS, ids=str)
LARGE = {"T": 30, "B": 8, "I": 64, "H": 96}  # long enough for calls to overlap


def run_at_once(functions):
    """All results, every function started at the same moment, with this thread's backend."""
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait(timeout=60)
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        futures = [pool.submit(copy_context().run, run, function) for function in functions]
        return [future.result() for future in futures]


@layers
@pytest.mark.parametrize("threads", [1, 2])
def test_one_model_many_threads(kernels, rng, threads, layer):
    case = example(rng, **LARGE, **layer, num_layers=2, bidirectional=True, lengths=True)
    inputs = [rng.standard_normal(case.x.shape).astype(np.float32) for _ in range(6)]

    def call(x):
        return lambda: case.lstm(x, case.state, **case.options, threads=threads)

    expected = [call(x)() for x in inputs]
    for _ in range(3):
        fresh = copy.deepcopy(case.layer)
        fresh.load_state_dict(case.layer.state_dict())
        case.layer = fresh  # nothing packed yet: the threads meet there too
        for results in zip(run_at_once([call(x) for x in inputs]), expected, strict=True):
            assert_same_result(*results)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_helpers_that_come_and_go(compiled, rng, kind, threads):
    """More threads than cores: helpers join within a walk, lose their core, and rest."""
    case = example(rng, T=60, B=3, I=10, H=64, kind=kind)
    expected = case.layer(case.x, case.state, threads=1)

    def call_often():
        return [case.layer(case.x, case.state, threads=threads) for _ in range(100)]

    for results in run_at_once([call_often] * 4):
        for result in results:
            assert_same_result(result, expected)


@layers
def test_training_in_many_threads(kernels, rng, layer):
    case = example(rng, **LARGE, **layer, num_layers=2, lengths=True)
    inputs = [rng.standard_normal(case.x.shape).astype(np.float32) for _ in range(4)]

    def train(x):
        def run():
            (y, _), tape = case.lstm.forward(x, case.state, **case.options, threads=1)
            return case.lstm.backward(tape, y, threads=1)

        return run

    expected = [train(x)() for x in inputs]
    for actual, wanted in zip(run_at_once([train(x) for x in inputs]), expected, strict=True):
        np.testing.assert_array_equal(actual.x, wanted.x)
        for name, array in wanted.params.items():
            np.testing.assert_array_equal(actual.params[name], array, err_msg=name)


def test_weights_change_between_calls_never_within(kernels, rng):
    """A call sees the old weights or the new ones, whole."""
    case = example(rng, T=5, B=3, num_layers=3)
    old = case.lstm.state_dict()
    new = {name: array * 2 for name, array in old.items()}
    allowed = set()
    for weights in (new, old):
        case.lstm.load_state_dict(weights)
        allowed.add(case()[0].tobytes())
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            case.lstm.load_state_dict(new)
            case.lstm.load_state_dict(old)

    writer = threading.Thread(target=swap)
    writer.start()
    try:
        seen = {case()[0].tobytes() for _ in range(200)}
    finally:
        stop.set()
        writer.join()
    assert seen <= allowed


def test_an_error_in_one_thread_spares_the_others(kernels, rng):
    case = example(rng, **LARGE)
    expected, _ = case()

    def fail():
        with pytest.raises(ValueError, match="x"):
            case.lstm(case.x[:, :, 1:], threads=2)

    results = run_at_once([fail, case, fail, case])
    assert_same_bits(results[1][0], expected)
    assert_same_bits(results[3][0], expected)


def call_in_child(case, expected, connection):
    connection.send(np.array_equal(case(threads=2)[0], expected))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the very thing under test
def test_fork_after_the_pool_was_used(kernels, rng):
    case = example(rng, **LARGE)
    expected, _ = case(threads=2)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=call_in_child, args=(case, expected, there))
    child.start()
    try:
        assert here.poll(60), "the child hangs"
        assert here.recv()
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert_same_bits(case(threads=2)[0], expected)


def test_one_thread_starts_none(kernels):
    code = """
import os, threading
import numpy as np
import fastlstm as fl

def tasks():
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0

fl.set_num_threads(1)
assert fl.get_num_threads() == 1
before = tasks()
lstm = fl.LSTM(64, 128, num_layers=2, bidirectional=True)
x = np.ones((50, 16, 64))
for _ in range(2):
    lstm(x)
    (y, _), tape = lstm.forward(x)
    lstm.backward(tape, y)
    lstm(x, threads=1)
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert tasks() == before, (before, tasks())
"""
    environment = os.environ | {"FASTLSTM_BACKEND": kernels}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_a_process_that_used_threads_ends(kernels):
    code = """
import numpy as np
import fastlstm as fl
fl.LSTM(64, 128, bidirectional=True)(np.ones((50, 16, 64)), threads=4)
"""
    environment = os.environ | {"FASTLSTM_BACKEND": kernels}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
