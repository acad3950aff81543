"""How much memory calls take, as tracemalloc sees it: NumPy and the kernels report to it."""

import gc
import tracemalloc
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from random_layers import example

import fastlstm as fl

B, I, H, P = 3, 5, 16, 7
FEW, MANY = 100, 1000  # steps
SLACK = 2048  # bytes, for Python's objects
INPUT = 4 * B * I  # bytes of x at one step
OUTPUT = 4 * B * H  # bytes of one layer's output at one step
ORDER = 8  # of a ragged batch, at one step: how many rows go on


class Bytes(NamedTuple):
    """What each step takes."""

    inference: int  # beyond the result
    tape: int
    backward: int  # beyond the gradient of x


# A tape has y, a copy of x, and what the kernels save: of an LSTM four gates and c, of a GRU four
# and of an RNN one. Of inner layers' outputs, inference has two at a time: what a layer reads, and
# what it writes; so has backward of their gradients.
LAYERS = {
    "plain": ({}, Bytes(0, 24 * B * H, 0)),
    "both directions": ({"bidirectional": True}, Bytes(0, 2 * 24 * B * H, 0)),
    "projected": ({"proj_size": P}, Bytes(0, (24 * H + 4 * P) * B, 4 * B * P)),
    "ragged": ({"lengths": True}, Bytes(ORDER, 24 * B * H, ORDER)),
    "resets": ({"resets": True}, Bytes(0, (24 * H + 1) * B, 0)),
    "two layers": ({"num_layers": 2}, Bytes(OUTPUT, 2 * 24 * B * H, 2 * OUTPUT)),
    "five layers": ({"num_layers": 5}, Bytes(2 * OUTPUT, 5 * 24 * B * H, 2 * OUTPUT)),
    "GRU": ({"kind": "GRU"}, Bytes(0, 20 * B * H, 0)),
    "GRU, reset first": (
        {"kind": "GRU", "linear_before_reset": False},
        Bytes(0, 20 * B * H, 0),
    ),
    "RNN": ({"kind": "RNN"}, Bytes(0, 8 * B * H, 0)),
}
layers = pytest.mark.parametrize(("options", "a_step"), LAYERS.values(), ids=LAYERS)


@pytest.fixture(autouse=True)
def traced():
    """On one thread, since each thread has scratch memory of its own; no garbage is freed."""
    threads = fl.get_num_threads()
    fl.set_num_threads(1)
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()
    fl.set_num_threads(threads)


def taken(call):
    """What it returns, the bytes that are left allocated, and the most there were."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    result = call()
    after, peak = tracemalloc.get_traced_memory()
    return result, after - before, peak - before


def make(rng, T, options):
    given = example(rng, T, B, I, H, **options)
    given()  # packs the weights
    given.layer.backward(given.forward()[1])
    return given


@layers
def test_inference_takes_the_same_for_any_number_of_steps(options, a_step, compiled, rng):
    beyond = []
    for T in (FEW, MANY):
        (y, _), _, peak = taken(make(rng, T, options))
        beyond.append(peak - y.nbytes)
    assert beyond[1] - beyond[0] < SLACK + a_step.inference * (MANY - FEW)


@layers
def test_the_tape_takes_what_backward_needs(options, a_step, compiled, rng):
    wanted = (a_step.tape + INPUT) * MANY
    _kept, left, peak = taken(make(rng, MANY, options).forward)
    assert wanted <= left <= peak < 1.05 * wanted + SLACK


@layers
def test_backward_takes_the_same_for_any_number_of_steps(options, a_step, compiled, rng):
    beyond = []
    for T in (FEW, MANY):
        given = make(rng, T, options)
        (y, _), tape = given.forward()
        backward = partial(given.layer.backward, tape, np.ones_like(y))
        grads, _, peak = taken(backward)
        beyond.append(peak - grads.x.nbytes)
    assert beyond[1] - beyond[0] < SLACK + a_step.backward * (MANY - FEW)


@layers
def test_nothing_is_left_of_a_call(options, a_step, compiled, rng):
    """But what it returns; and a used tape holds nothing."""
    given = make(rng, MANY, options)
    (y, _), left, _ = taken(given)
    assert left < y.nbytes + 2 * SLACK  # the state
    (y, _), tape = given.forward()
    dy = np.ones_like(y)
    del y
    grads, left, _ = taken(partial(given.layer.backward, tape, dy))
    kept = sum(array.nbytes for array in grads.params.values())
    assert left < grads.x.nbytes + kept + 2 * SLACK - 0.9 * (a_step.tape + INPUT) * MANY
