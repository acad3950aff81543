"""One LSTM layer over every build and the reference: `pytest bench/`.

Grouped by shape (T, B, I, H), one thread, float32, with an initial state. Every build's result is
compared with the reference's once, outside the timed region.
"""

import numpy as np
import pytest

import fastlstm as fl

pytestmark = pytest.mark.benchmark(max_time=0.5, min_rounds=3)

SHAPES = [
    (1, 1, 1, 40),
    (1000, 1, 1, 40),
    (100, 1, 128, 128),
    (200, 1, 64, 128),
    (100, 8, 64, 128),
    (100, 32, 64, 128),
    (20, 32, 256, 256),
]


def shape_id(shape):
    return "T{}-B{}-I{}-H{}".format(*shape)


@pytest.fixture(params=SHAPES, ids=shape_id)
def layer(request, kernels, benchmark):
    """The layer, an input of one shape, and a state for it."""
    T, B, I, H = request.param
    kind = request.function.__name__.removeprefix("test_")
    benchmark.group = f"{kind} {shape_id(request.param)}"
    benchmark.extra_info["backend"] = kernels
    rng = np.random.default_rng(0)
    x, h, c = (
        rng.standard_normal(shape, np.float32) for shape in ((T, B, I), (1, B, H), (1, B, H))
    )
    threads = fl.get_num_threads()
    fl.set_num_threads(1)
    yield fl.LSTM(I, H, rng=rng), x, (h, c)
    fl.set_num_threads(threads)


def measure(benchmark, run):
    """Time `run`, after comparing its result with the reference's."""
    result = run()
    with fl.use_backend("reference"):
        for actual, expected in zip(result, run(), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    benchmark(run)


def test_inference(layer, benchmark):
    lstm, x, state = layer
    measure(benchmark, lambda: lstm(x, state)[0])


def test_training(layer, benchmark):
    lstm, x, state = layer

    def step():
        (y, _), tape = lstm.forward(x, state)
        grads = lstm.backward(tape, y)
        return [y, grads.x, *grads.params.values()]

    measure(benchmark, step)
