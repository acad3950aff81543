"""How much memory calls take, as tracemalloc sees it: NumPy and the kernels report to it."""

import gc
import tracemalloc
from functools import partial

import numpy as np
import pytest
from examples import example

B, I, H, P = 3, 5, 16, 7
FEW, MANY = 100, 1000  # steps
SLACK = 2048  # bytes, for Python's objects
# Options, and bytes that each step may take beyond the result: how many rows go on is one number.
WAYS = {
    "plain": ({}, 0),
    "both directions": ({"bidirectional": True}, 0),
    "projected": ({"proj_size": P}, 0),
    "ragged": ({"lengths": True}, 8),
    "resets": ({"resets": True}, 0),
}


@pytest.fixture(autouse=True)
def traced():
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.fixture(params=[{}, {"threads": 1}], ids=["short cut", "long way"])
def asked(request):
    """Arguments of every call: with any, it does not take the short cut of small calls."""
    return request.param


def taken(call):
    """What it returns, the bytes that are left allocated, and the most there were."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    result = call()
    after, peak = tracemalloc.get_traced_memory()
    return result, after - before, peak - before


def make(rng, T, **options):
    given = example(rng, T, B, I, H, **options)
    given()  # packs the weights
    given.lstm.backward(given.forward()[1])
    return given


@pytest.mark.parametrize(("options", "a_step"), WAYS.values(), ids=WAYS)
def test_inference_takes_the_same_for_any_number_of_steps(options, a_step, asked, compiled, rng):
    beyond = []
    for T in (FEW, MANY):
        (y, _), _, peak = taken(partial(make(rng, T, **options), **asked))
        beyond.append(peak - y.nbytes)
    assert beyond[1] - beyond[0] < SLACK + a_step * (MANY - FEW)


def test_the_tape_takes_24_bytes_a_unit_step_and_row(asked, compiled, rng):
    wanted = 24 * MANY * B * H
    _kept, left, peak = taken(partial(make(rng, MANY).forward, **asked))
    assert wanted <= left <= peak < 1.1 * wanted


def test_backward_takes_the_same_for_any_number_of_steps(asked, compiled, rng):
    beyond = []
    for T in (FEW, MANY):
        given = make(rng, T)
        (y, _), tape = given.forward(**asked)
        backward = partial(given.lstm.backward, tape, np.ones_like(y), **asked)
        grads, _, peak = taken(backward)
        beyond.append(peak - grads.x.nbytes)
    assert beyond[1] - beyond[0] < SLACK
