"""`forward(recompute=)`: every result has the bits of a `forward` that keeps everything."""

import gc
import tracemalloc

import numpy as np
import pytest
from cells import make_lstm
from random_layers import GRU_AND_RNN, OPTIONS, VARIANTS, each, example
from toys import Leaky

import fastlstm as fl
from fastlstm.engine import Stack
from fastlstm.kernels import kernels as build
from fastlstm.kernels.arguments import Thresholds

DROPPED = {
    "dropout": {"num_layers": 3, "dropout": 0.4, "recurrent_dropout": 0.3},
    "dropout, both directions": {"num_layers": 3, "dropout": 0.4, "bidirectional": True},
    "dropout, widths": {"H": [4, 6], "dropout": 0.4, "zoneout": (0.3, 0.2)},
}
LAYERS = {**OPTIONS, **VARIANTS, **GRU_AND_RNN, **DROPPED}


def arrays(name, value):
    """All arrays of a result by name."""
    if isinstance(value, np.ndarray):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value or ())
    return {key: array for k, part in items for key, array in arrays(f"{name} {k}", part).items()}


def like(value, seed):
    """Random arrays in the form of a result."""
    if isinstance(value, (tuple, list)):
        return type(value)(like(part, seed + k) for k, part in enumerate(value))
    return np.random.default_rng(seed).standard_normal(value.shape).astype(value.dtype)


def train(layer, x, state=None, of_y=True, threads=None, **options):
    """The results of `forward` and `backward` of a layer, by name."""
    (y, final), tape = layer.forward(x, state, threads=threads, **options)
    dy = like(y, 5) if of_y else None
    grads = layer.backward(tape, dy, like(final, 7), threads=threads)
    results = {"y": y, "final": final, "dx": grads.x, "dstate": grads.state, "d": grads.params}
    return arrays("", results)


def check(make, *many, **options):
    """Train layers that `make` makes alike: with `recompute` as without."""
    wanted = make(**options)
    for recompute in many:
        actual = make(recompute=recompute, **options)
        assert actual.keys() == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(actual[name], array, f"{recompute}{name}")


def trained(name, T=23, B=31, dtype=np.float32, **given):
    """A function for `check`: everything of a layer of LAYERS, made anew."""

    def make(threads=None, of_y=True, **options):
        own = {"H": 4, "dtype": dtype, **LAYERS[name], **given}
        made = example(np.random.default_rng(3), T, B, 3, **own)
        return train(made.layer, made.x, made.state, of_y, threads, **made.options, **options)

    return make


@pytest.mark.parametrize("name", LAYERS)
def test_bits(kernels, name):
    """About 350 rows of all steps: sums of weights' gradients restart within a span."""
    check(trained(name, lengths=True, resets=True), 9)
    check(trained(name, T=5, B=4), 1, 99, of_y=False)


@pytest.mark.parametrize("name", ["all", "everything", "GRU, all", "RNN"])
def test_bits_of_float64(kernels, name):
    check(trained(name, dtype=np.float64, lengths=True, resets=True), 5)


@pytest.mark.parametrize("name", ["plain", "layer norm, projected", "GRU, reset first"])
def test_many_blocks(compiled, name):
    """Of 32 sums of 256 rows, and of 32 steps, the sums are summed again."""
    check(trained(name, T=1103, B=17, lengths=True), 100, "sqrt")


@pytest.mark.parametrize("name", ["two layers", "all", "everything", "GRU"])
def test_threads(compiled, share_all_work, name):
    check(trained(name, H=40, lengths=True), 7, threads=3)
    one = trained(name, H=40)(recompute=7, threads=1)
    for key, array in trained(name, H=40)(recompute=11, threads=5).items():
        np.testing.assert_array_equal(array, one[key], key)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_forms_of_x(kernels, bidirectional, rng):
    """Lists, masks, one sequence, the batch first, strides, other dtypes."""
    T, B, I = 11, 4, 3
    options = {"num_layers": 2, "bidirectional": bidirectional, "dropout": 0.3, "rng": 4}
    x = rng.standard_normal((T, B, I))
    mask, resets = rng.random((T, B)) < 0.7, rng.random((T, B)) < 0.2

    def of(x, batch_first=False, **given):
        def make(**more):
            return train(fl.LSTM(I, 5, batch_first=batch_first, **options), x, **given, **more)

        check(make, 4)

    of([x[:8, 0], x[:, 1], x[:0, 2], x[:3, 3]])
    of([x[:8, 0], x[:, 1]], mask=[mask[:8, 0], mask[:, 1]], resets=[resets[:8, 0], resets[:, 1]])
    of(x, mask=mask, masked_output="repeat", resets=resets)
    of(x[:, 0], resets=resets[:, 0])
    of(x[:, 0], batch_first=True)
    of(x.swapaxes(0, 1), True, resets=resets.T, lengths=np.array([3, 11, 0, 7]))
    of(np.asfortranarray(x.astype(np.float32)))
    of(x[:0])
    of(x[:, :0])


def test_padding_is_not_read(kernels, rng):
    x = rng.standard_normal((11, 2, 3)).astype(np.float32)
    x[7:, 0] = np.nan
    results = train(fl.GRU(3, 4, rng=0), x, lengths=[7, 11], recompute=3)
    assert all(np.isfinite(array).all() for array in results.values())


@pytest.mark.parametrize("reverse", [(False,), (True,), (False, True)])
def test_python_cell(kernels, reverse, rng):
    x, resets = rng.standard_normal((19, 3, 4)), rng.random((19, 3)) < 0.2

    def make(**options):
        D = len(reverse)
        cells = [[Leaky(inputs, 5) for _ in reverse] for inputs in (4, 5 * D)]
        layer = Stack(cells, reverse=reverse, dtype=np.float64, rng=2)
        return train(layer, x, resets=resets, lengths=[19, 4, 11], **options)

    check(make, 1, 6, "sqrt")


def test_sequential(kernels, rng):
    x = rng.standard_normal((17, 3, 4)).astype(np.float32)

    def make(**options):
        inner = fl.Sequential(fl.GRU(6, 5, bidirectional=True, rng=1), fl.Dropout(0.3, rng=5))
        model = fl.Sequential(fl.Linear(4, 6, rng=2), inner, fl.RNN(10, 3, rng=3))
        return train(model, x, lengths=[17, 2, 9], **options)

    check(make, 1, 5, "sqrt")
    recurrent = fl.Sequential(fl.LSTM(4, 5, rng=0))
    _, tape = recurrent.forward(x, recompute=5)
    assert tape.tapes[0].recompute == 5
    with pytest.raises(ValueError, match=r"^recompute: no layer is recurrent"):
        fl.Sequential(fl.Linear(4, 6)).forward(x, recompute=5)


def test_the_tape_has_copies(kernels, rng):
    layer = fl.LSTM(3, 5, bidirectional=True, rng=0)
    x, lengths = rng.standard_normal((13, 4, 3)).astype(np.float32), np.array([13, 2, 0, 7])
    resets, h = rng.random((13, 4)) < 0.3, np.ones((2, 4, 5), np.float32)
    state = h, h.copy()

    def gradients(recompute, spoil):
        own = x.copy(), each(np.copy, state), lengths.copy(), resets.copy()
        (y, _), tape = layer.forward(
            own[0], own[1], lengths=own[2], resets=own[3], recompute=recompute
        )
        for array in (own[0], *own[1], *own[2:]) if spoil else ():
            array[...] = 1
        return arrays("", layer.backward(tape, np.ones_like(y)).params)

    wanted = gradients(None, False)
    for name, array in gradients(4, True).items():
        np.testing.assert_array_equal(array, wanted[name], name)


def test_a_tape_serves_one_backward(rng):
    layer = fl.LSTM(3, 5, rng=0)
    (y, _), tape = layer.forward(rng.standard_normal((13, 4, 3)), recompute=4)
    assert not y.flags.writeable
    with pytest.raises(ValueError, match=r"^dy: expected shape"):
        layer.backward(tape, y[1:])
    layer.backward(tape, y)  # the error has left the tape as it was
    with pytest.raises(ValueError, match=r"^tape: expected one not used yet"):
        layer.backward(tape, y)


@pytest.mark.parametrize(
    ("recompute", "error"),
    [(0, ValueError), (-3, ValueError), ("all", ValueError), (True, TypeError), (2.5, TypeError)],
)
def test_bad_recompute(recompute, error):
    layer = fl.LSTM(3, 5, num_layers=2, dropout=0.5, rng=0)
    before = layer._rng.bit_generator.state
    for module in (layer, fl.Sequential(layer)):
        with pytest.raises(error, match=r"^recompute: expected"):
            module.forward(np.ones((4, 2, 3)), recompute=recompute)
    assert layer._rng.bit_generator.state == before


@pytest.mark.parametrize("name", ["plain", "two layers", "zoneout"])
def test_memory(compiled, name):
    """The tape, and the most that a call takes beyond x, y and their gradients, under a tenth."""
    T, B, I, H = 16_000, 1, 2, 32
    made = example(np.random.default_rng(0), T, B, I, **{**LAYERS[name], "H": H})
    dy = np.ones((T, B, H), np.float32)

    def most(recompute):
        """Bytes of the tape and of the whole call."""
        gc.collect()
        tracemalloc.start()
        (y, _), tape = made.forward(recompute=recompute, threads=1)
        left, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        dx = made.layer.backward(tape, dy, threads=1).x
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return left - y.nbytes - made.x.nbytes, peak - y.nbytes - made.x.nbytes - dx.nbytes

    made.forward()  # packs the weights
    (tape, call), (small_tape, small_call) = most(None), most("sqrt")
    assert small_tape < 0.05 * tape
    assert small_call < 0.1 * call


def test_sums_fit_their_calls(kernels, rng):
    """The kernels refuse sums of another stack, of other rows, and of fewer steps."""
    k = build(np.dtype(np.float32))
    cell = make_lstm(rng, np.float32, 3, 2).build(k)
    stack, other = (
        k.stack((cell,), (False,), False, False, 1, Thresholds(1, 1, 1, 1, 1)) for _ in range(2)
    )
    x = np.ones((4, 5, 3), np.float32)
    for sums in (k.new_sums(other, 4, 5), k.new_sums(stack, 4, 6), k.new_sums(stack, 3, 5)):
        _, _, saved, arguments = k.forward(stack, x, keep=True)
        with pytest.raises(ValueError, match=r"^sums: "):
            k.backward(stack, *arguments, None, saved, None, None, True, sums)
