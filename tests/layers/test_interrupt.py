"""Signals whose handler raises, as that of Ctrl-C does: they end a long call, wherever it is."""

import signal
import time

import numpy as np
import pytest
from compare import assert_same_bits

import fastlstm as fl

if not hasattr(signal, "setitimer"):
    pytest.skip("no timer that sends a signal", allow_module_level=True)

LENGTH = 2  # seconds that a call would take
AFTER = 0.1  # seconds until its signal comes


class HandlerError(Exception):
    pass


def steps(kind, backward=False, B=4, I=24, H=160, **options):
    """Calls of a layer with more and more steps."""
    layer = getattr(fl, kind)(I, H, rng=0, **options)

    def prepare(T, threads):
        x = np.ones((T, B, I), np.float32)
        if not backward:
            return lambda: layer(x, threads=threads)[0]
        (y, _), tape = layer.forward(x, threads=threads)
        return lambda: layer.backward(tape, np.ones_like(y), threads=threads).x

    return prepare


def rows_of_a_step(kind, I=300, H=512):
    """Calls of one step with more and more rows."""
    cell = getattr(fl, kind)(I, H, rng=0)

    def prepare(B, threads):
        x = np.ones((B, I), np.float32)
        return lambda: np.asarray(cell(x))

    return prepare


def rows_of_linear(backward=False, I=2000, H=1500):
    layer = fl.Linear(I, H, rng=0)

    def prepare(B, threads):
        x = np.ones((B, I), np.float32)
        if not backward:
            return lambda: layer(x)
        y, tape = layer.forward(x)
        return lambda: layer.backward(tape, y).params["weight"]

    return prepare


WORK = {
    "LSTM": lambda: steps("LSTM"),
    "LSTM, many rows": lambda: steps("LSTM", B=70, num_layers=2, bidirectional=True),
    "LSTM, projected": lambda: steps("LSTM", proj_size=70),
    "LSTM, layer norm": lambda: steps("LSTM", layer_norm=True),
    "GRU": lambda: steps("GRU"),
    "GRU, published": lambda: steps("GRU", linear_before_reset=False),
    "RNN": lambda: steps("RNN"),
    "LSTM, backward": lambda: steps("LSTM", backward=True),
    "LSTM, many rows, backward": lambda: steps("LSTM", backward=True, B=70),
    "GRU, published, backward": lambda: steps("GRU", backward=True, linear_before_reset=False),
    "RNN, backward": lambda: steps("RNN", backward=True),
    "LSTMCell": lambda: rows_of_a_step("LSTMCell"),
    "GRUCell": lambda: rows_of_a_step("GRUCell"),
    "Linear": rows_of_linear,
    "Linear, backward": lambda: rows_of_linear(backward=True),
}


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def long_enough(prepare, threads):
    """A size at which a call takes half of `LENGTH` or more, and the seconds that it takes."""
    size, taken = 16, 0.0
    while taken < LENGTH / 2:
        size = int(size * min(8, LENGTH / max(taken, 0.01)))
        taken = seconds(prepare(size, threads))
    return size, taken


def seconds_until(error, call):
    """Seconds until a handler's `error` leaves the call, from when the signal came."""

    def handler(*_):
        raise error

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, AFTER)
        start = time.perf_counter()
        with pytest.raises(error):
            call()
        return time.perf_counter() - start - AFTER
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("work", WORK)
def test_every_function(work, threads):
    assert_ends(WORK[work](), threads, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("work", "error", "threads"),
    [
        ("LSTM", KeyboardInterrupt, 2),
        ("LSTM", HandlerError, 1),
        ("LSTM, many rows, backward", KeyboardInterrupt, 2),
    ],
)
def test_interrupted(compiled, work, error, threads):
    assert_ends(WORK[work](), threads, error)


def assert_ends(prepare, threads, error):
    expected = prepare(30, 1)()
    size, length = long_enough(prepare, threads)
    taken = seconds_until(error, prepare(size, threads))
    assert taken < length / 2, f"{taken:.2f} s of {length:.2f} s"
    for count in (1, threads):
        assert_same_bits(prepare(30, count)(), expected, "after the interruption")


def test_a_tape_is_used_after_an_interruption():
    """Its arrays are partly overwritten."""
    layer = fl.LSTM(24, 160, rng=0)
    size, _ = long_enough(steps("LSTM", backward=True), 1)
    x = np.ones((size, 4, 24), np.float32)
    (y, _), tape = layer.forward(x)
    seconds_until(KeyboardInterrupt, lambda: layer.backward(tape, y))
    with pytest.raises(ValueError, match="tape"):
        layer.backward(tape, y)


def test_a_handler_that_returns():
    prepare = steps("LSTM")
    size, _ = long_enough(prepare, 1)
    expected, heard = prepare(size, 1)(), []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, AFTER)
        assert_same_bits(prepare(size, 1)(), expected, "y")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard
