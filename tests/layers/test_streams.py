"""One step of some rows, in place: every stream gets what it gets alone."""

import threading
import tracemalloc
from contextvars import copy_context

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from numpy.lib.stride_tricks import as_strided
from random_layers import GRU_AND_RNN, OPTIONS, VARIANTS, example
from toys import Leaky, Momentum

import fastlstm as fl
from fastlstm.engine import OneStep, Stack

B, I, H = 7, 3, 4
ONE_WAY = {
    name: {key: value for key, value in options.items() if key != "bidirectional"}
    for name, options in (OPTIONS | VARIANTS | GRU_AND_RNN).items()
    if name not in ("both directions", "all")
}


def arrays_in(state):
    """The arrays of any state: of a layer, of layers of several widths, of a Sequential."""
    if not isinstance(state, (tuple, list)):
        return [state]
    return [array for part in state for array in arrays_in(part)]


def row_of(state, row):
    """A copy of one row of a state, in its form."""
    if isinstance(state, np.ndarray):
        return state[..., row : row + 1, :].copy()
    return type(state)(row_of(part, row) for part in state)


def alone(layer, x, state):
    """y [P] and the next state of one row, by a plain call."""
    if isinstance(layer, OneStep):
        state = layer(x[None], state)
        return arrays_in(state)[0][0], state
    y, state = layer(x[None, None], state)
    return y[0, 0], state


def random_zero_state(rng, layer, rows=B):
    """A state to begin with in which no two numbers are equal."""
    state = layer.zero_state(rows)
    for array in arrays_in(state):
        array[...] = rng.uniform(-1, 1, array.shape)
    return state


def assert_each_as_alone(layer, rng, x_of, ticks=4, sizes=(3, B, 0, 1)):
    """Ticks of some rows in any order, beside each row alone; other rows stay as they are."""
    state = random_zero_state(rng, layer)
    singles = [row_of(state, row) for row in range(B)]
    for tick in range(ticks):
        n = sizes[tick % len(sizes)]
        rows, x = rng.permutation(B)[:n], x_of(n)
        y = layer.step(x, state, rows)
        for k, row in enumerate(rows):
            expected, singles[row] = alone(layer, x[k], singles[row])
            assert_same_bits(y[k], expected)
        for row, single in enumerate(singles):
            for array, part in zip(arrays_in(state), arrays_in(single), strict=True):
                assert_same_bits(array[..., row : row + 1, :], part, f"tick {tick}, row {row}")


def numbers(rng, dtype, features=I):
    return lambda n: rng.standard_normal((n, features)).astype(dtype)


@pytest.fixture(params=[1, 2], ids=["1 thread", "2 threads"])
def threads(request, share_all_work):
    before = fl.get_num_threads()
    fl.set_num_threads(request.param)
    yield request.param
    fl.set_num_threads(before)


@pytest.mark.parametrize("options", ONE_WAY.values(), ids=ONE_WAY)
def test_layers(kernels, dtype, rng, options, threads):
    layer = example(rng, B=1, I=I, **{"H": H, "dtype": dtype, **options}).layer
    assert_each_as_alone(layer, rng, numbers(rng, dtype))


@pytest.mark.parametrize("size", [17, 40, 130])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_sizes(kernels, rng, kind, size, threads):
    layer = getattr(fl, kind)(20, size, num_layers=3, batch_first=True, rng=rng)
    assert_each_as_alone(layer, rng, numbers(rng, np.float32, 20))


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells(kernels, dtype, rng, kind, threads):
    layer = getattr(fl, kind)(I, H, dtype=dtype, rng=rng)
    assert_each_as_alone(layer, rng, numbers(rng, dtype))


@pytest.mark.parametrize("cell", [Leaky, Momentum])
def test_cells_from_outside(kernels, dtype, rng, cell):
    for layer in (
        Stack([[cell(I, H)], [cell(H, H)]], dtype=dtype, rng=rng),
        OneStep(cell(I, H), dtype=dtype, rng=rng),
    ):
        assert_each_as_alone(layer, rng, numbers(rng, dtype))


class Doubled(fl.Module):
    def __call__(self, x):
        return 2 * x


def models(rng):
    layers = fl.Linear(I, 5, rng=rng), fl.LSTM(5, H, 2, rng=rng), Doubled(), fl.Dropout(0.5)
    inner = fl.Sequential(fl.LSTM(I, 5, proj_size=2, rng=rng), fl.Linear(2, 6, rng=rng))
    return {
        "one": fl.Sequential(*layers, fl.Linear(H, 33, rng=rng)),
        "two": fl.Sequential(*layers, fl.GRU(H, 6, rng=rng), fl.Linear(6, 2, rng=rng)),
        "nested": fl.Sequential(inner, Doubled(), fl.LSTM(6, [3, 4], rng=rng)),
    }


@pytest.mark.parametrize("name", ["one", "two", "nested"])
def test_sequential(kernels, rng, name):
    assert_each_as_alone(models(rng)[name], rng, numbers(rng, np.float32))


def test_sequential_of_indices(kernels, rng):
    model = fl.Sequential(fl.Embedding(9, I, rng=rng), fl.GRU(I, H, rng=rng))
    assert_each_as_alone(model, rng, lambda n: rng.integers(9, size=n))


def test_streams_join_and_leave(kernels, dtype, rng):
    """Sequences that begin at different ticks, in whatever row is free, as a list of them."""
    lstm = fl.LSTM(I, H, 2, dtype=dtype, learn_initial_state=True, rng=rng)
    sequences = [rng.standard_normal((T, I)).astype(dtype) for T in (4, 1, 6, 2, 5)]
    begin = [0, 0, 1, 3, 4]
    state, initial = lstm.zero_state(3), lstm.zero_state(1)
    row_of_stream, ys = {}, [[] for _ in sequences]
    for tick in range(9):
        for k, sequence in enumerate(sequences):
            if tick == begin[k]:
                free = min({0, 1, 2} - set(row_of_stream.values()))
                row_of_stream[k] = free
                for part, first in zip(state, initial, strict=True):
                    part[:, free] = first[:, 0]
            elif tick == begin[k] + len(sequence):
                del row_of_stream[k]
        now = list(row_of_stream)
        x = np.array([sequences[k][tick - begin[k]] for k in now], dtype)
        y = lstm.step(x, state, list(row_of_stream.values()))
        for k, row in zip(now, y, strict=True):
            ys[k].append(row)
    for y, expected in zip(map(np.array, ys), lstm(sequences)[0], strict=True):
        if kernels == "reference":  # BLAS gives a row of many other bits than one alone
            assert_close(y, expected, dtype)
        else:
            assert_same_bits(y, expected)


# The arrays.


def split(h, c):
    return np.split(np.concatenate([h, c], -1), 2, -1)


def rows_first(h, c):
    return [part.swapaxes(0, 1).copy().swapaxes(0, 1) for part in (h, c)]


def by_layer(h, c):
    both = np.stack([h, c], axis=1)
    return both[:, 0], both[:, 1]


def backwards(h, c):
    return [part[:, ::-1].copy()[:, ::-1] for part in (h, c)]


def interleaved(h, c):
    """The rows of the second layer between those of the first; no element is there twice."""
    result = []
    for part in (h, c):
        room, size = np.zeros(100 * H, part.dtype), part.itemsize
        result.append(as_strided(room, part.shape, (3 * H * size, 2 * H * size, size)))
        result[-1][...] = part
    return result


def subclass(h, c):
    return [part.view(type("Subclass", (np.ndarray,), {})) for part in (h, c)]


@pytest.mark.parametrize("form", [split, rows_first, by_layer, backwards, interleaved, subclass])
def test_states_in_other_strides(kernels, rng, form):
    lstm = fl.LSTM(I, H, 2, rng=rng)
    x, rows = rng.standard_normal((3, I)), [5, 0, 2]
    expected = random_zero_state(rng, lstm)
    state = tuple(form(*(part.copy() for part in expected)))
    y = lstm.step(x, state, rows)
    assert_same_bits(y, lstm.step(x, expected, rows))
    for part, expected_part in zip(state, expected, strict=True):
        assert_same_bits(np.asarray(part), expected_part)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.tolist(),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
    ],
)
@pytest.mark.parametrize(
    "rows",
    [[4, 1], np.array([4, 1], np.int8), np.array([4, 1], np.longlong), np.array([4, 0, 1])[::2]],
)
def test_x_and_rows_in_other_forms(kernels, rng, form, rows):
    gru = fl.GRU(I, H, rng=rng)
    x = rng.standard_normal((2, I)).astype(np.float32)
    state = random_zero_state(rng, gru)
    expected_state = state.copy()
    expected = gru.step(x, expected_state, np.array([4, 1]))
    assert_same_bits(gru.step(form(x), state, rows), expected)
    assert_same_bits(state, expected_state)


@pytest.mark.parametrize("strides", [(16, 16, 4), (0, 0, 0)])
def test_no_rows_at_all(kernels, strides):
    gru = fl.GRU(I, H)
    state = as_strided(np.zeros(1, np.float32), (1, 0, H), strides)
    out = as_strided(np.zeros(1, np.float32), (0, H), strides[1:])
    assert gru.step(np.empty((0, I)), state, None, out) is out
    assert gru.step(np.empty((0, I)), state, []).shape == (0, H)


def test_x_may_be_a_part_of_the_state(kernels, rng):
    lstm = fl.LSTM(H, H, 2, rng=rng)
    h, c = state = random_zero_state(rng, lstm)
    others = h.copy(), c.copy()
    expected = lstm.step(h[1, ::-1].copy(), others)
    assert_same_bits(lstm.step(h[1, ::-1], state), expected)
    assert_same_bits(h, others[0])


@pytest.mark.parametrize(
    "room",
    [
        lambda: np.full((3, H), 7, np.float32),
        lambda: np.full((3, 3 * H), 7, np.float32)[:, H : 2 * H],
        lambda: np.full((H, 3), 7, np.float32).T,
        lambda: np.full((3, H), 7, np.float32)[::-1],
    ],
)
def test_out(kernels, rng, room):
    lstm = fl.LSTM(I, H, rng=rng)
    state = random_zero_state(rng, lstm)
    others = tuple(part.copy() for part in state)
    x, rows, out = rng.standard_normal((3, I)), [6, 2, 3], room()
    assert lstm.step(x, state, rows, out) is out
    assert_same_bits(out, lstm.step(x, others, rows))
    if out.base is not None and out.base.shape == (3, 3 * H):
        assert (out.base[:, :H] == 7).all()
        assert (out.base[:, 2 * H :] == 7).all()
    model = models(rng)["two"]
    state, out = model.zero_state(2), np.zeros((2, 2), np.float32)
    others = model.zero_state(2)
    assert model.step(x[:2], state, None, out) is out
    assert_same_bits(out, model.step(x[:2], others))


def test_no_array_is_made(compiled, rng):
    """With `out` a step takes less memory than without, by all of y; nothing is left of it."""
    lstm = fl.LSTM(I, 64, 2, rng=rng)
    state, x = lstm.zero_state(1000), rng.standard_normal((1000, I)).astype(np.float32)
    out = lstm.step(x, state)
    peaks, threads = [], fl.get_num_threads()
    fl.set_num_threads(1)  # each thread has scratch memory of its own
    lstm.step(x, state)
    tracemalloc.start()
    for target in (None, out):
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        lstm.step(x, state, None, target)
        after, peak = tracemalloc.get_traced_memory()
        assert after - before < 0.1 * out.nbytes
        peaks.append(peak - before)
    tracemalloc.stop()
    fl.set_num_threads(threads)
    assert peaks[1] < peaks[0] - 0.9 * out.nbytes


def test_threads_that_step_rows_of_their_own(kernels, rng):
    lstm = fl.LSTM(I, H, rng=rng)
    x = rng.standard_normal((30, B, I)).astype(np.float32)
    state, expected = lstm.zero_state(B), lstm.zero_state(B)
    for step in x:
        lstm.step(step, expected)

    def run(rows):
        for step in x:
            lstm.step(step[rows], state, rows)

    workers = [
        threading.Thread(target=copy_context().run, args=(run, rows))  # in the same backend
        for rows in ([0, 3, 4], [6, 1], [2, 5])
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for part, expected_part in zip(state, expected, strict=True):
        assert_same_bits(part, expected_part)


def test_new_weights_are_used(kernels, rng):
    lstm = fl.LSTM(I, H, rng=rng)
    x, state = np.ones((2, I)), lstm.zero_state(2)
    lstm.step(x, state)
    lstm.load_state_dict({name: 2 * array for name, array in lstm.state_dict().items()})
    expected = lstm(x[None], tuple(part.copy() for part in state))[0][0]
    assert_close(lstm.step(x, state), expected, np.float32)


# zero_state.


@pytest.mark.parametrize("options", ONE_WAY.values(), ids=ONE_WAY)
def test_zero_state(rng, dtype, options):
    layer = example(rng, B=1, I=I, **{"H": H, "dtype": dtype, **options}).layer
    state = layer.zero_state(B)
    y, final = layer(np.zeros((1, B, I)))
    again = layer(np.zeros((1, B, I)), state)
    for array, form in zip(arrays_in(state), arrays_in(final), strict=True):
        assert array.shape == form.shape
        assert array.dtype == dtype
        assert array.flags.writeable
        assert array.any() == layer.learn_initial_state
    assert_same_bits(again[0], y)
    for array, form in zip(arrays_in(again[1]), arrays_in(final), strict=True):
        assert_same_bits(array, form)
    assert all(array.shape[-2] == 0 for array in arrays_in(layer.zero_state(0)))
    for array in arrays_in(state):
        array += 1
    assert not any(
        np.array_equal(*pair)
        for pair in zip(arrays_in(state), arrays_in(layer.zero_state(B)), strict=True)
    )


@pytest.mark.parametrize(("rows", "error"), [(-1, ValueError), (2.5, TypeError), (None, TypeError)])
def test_rows_of_zero_state(rows, error):
    for layer in (fl.LSTM(I, H), fl.LSTMCell(I, H), fl.Sequential(fl.GRU(I, H))):
        with pytest.raises(error, match="B"):
            layer.zero_state(rows)


# What is refused, before anything changes.

READ_ONLY = np.zeros((2, H), np.float32)
READ_ONLY.flags.writeable = False
CALLS = {
    "rows twice": ({"rows": [1, 1]}, ValueError, "rows"),
    "rows twice, not side by side": ({"x": np.ones((3, I)), "rows": [4, 1, 4]}, ValueError, "rows"),
    "rows twice, in an array": ({"rows": np.array([3, 3])}, ValueError, "rows"),
    "row too large": ({"rows": [0, B]}, ValueError, "rows"),
    "row too large, in an array": ({"rows": np.array([0, B])}, ValueError, "rows"),
    "row below 0": ({"rows": np.array([0, -1])}, ValueError, "rows"),
    "enormous row": ({"rows": [0, 2**70]}, (TypeError, ValueError), "rows"),
    "too few rows": ({"rows": [0]}, ValueError, "rows"),
    "too many rows": ({"rows": [0, 1, 2]}, ValueError, "rows"),
    "all rows for some": ({"rows": None}, ValueError, "rows"),
    "rows of floats": ({"rows": [0.0, 1.0]}, TypeError, "rows"),
    "rows of bools": ({"rows": [True, False]}, TypeError, "rows"),
    "a mask": ({"rows": np.arange(B) < 2}, TypeError, "rows"),
    "a mask of n": ({"rows": np.array([True, False])}, TypeError, "rows"),
    "rows of two axes": ({"rows": [[0, 1]]}, ValueError, "rows"),
    "one number for rows": ({"rows": 1}, ValueError, "rows"),
    "features": ({"x": np.ones((2, I + 1))}, ValueError, "x"),
    "x with steps": ({"x": np.ones((1, 2, I))}, ValueError, "x"),
    "x without rows": ({"x": np.ones(I)}, ValueError, "x"),
    "complex x": ({"x": np.ones((2, I), complex)}, TypeError, "x"),
    "no state": ({"state": lambda h, c: None}, ValueError, "state"),
    "h alone": ({"state": lambda h, c: h}, ValueError, "state"),
    "three arrays": ({"state": lambda h, c: (h, c, c)}, ValueError, "state"),
    "lists": ({"state": lambda h, c: (h.tolist(), c)}, TypeError, "state: h"),
    "states of two streams": ({"state": lambda h, c: [(h, c), (h, c)]}, TypeError, "state"),
    "another dtype": ({"state": lambda h, c: (h, c.astype(float))}, TypeError, "state: c"),
    "other bytes": ({"state": lambda h, c: (h, c.astype(">f4"))}, TypeError, "state: c"),
    "masked": ({"state": lambda h, c: (np.ma.array(h), c)}, TypeError, "state: h"),
    "other sizes": ({"state": lambda h, c: (h, c[..., 1:])}, ValueError, "state: c"),
    "other rows": ({"state": lambda h, c: (h, c[..., 1:, :])}, ValueError, "state"),
    "without layers": ({"state": lambda h, c: (h[0], c[0])}, ValueError, "state"),
    "read-only": ({"state": lambda h, c: (h, read_only(c))}, ValueError, "state: c"),
    "strided": ({"state": lambda h, c: (np.repeat(h, 2, -1)[..., ::2], c)}, ValueError, "state: h"),
    "broadcast": ({"state": lambda h, c: (h, one_row(c))}, ValueError, "state: c"),
    "h is c": ({"state": lambda h, c: (h, h)}, ValueError, "state"),
    "h within c": ({"state": lambda h, c: overlapping(h, c)}, ValueError, "state"),
    "out of another shape": ({"out": np.zeros((3, H), np.float32)}, ValueError, "out"),
    "out of another dtype": ({"out": np.zeros((2, H))}, TypeError, "out"),
    "read-only out": ({"out": READ_ONLY}, ValueError, "out"),
    "out is a list": ({"out": [[0.0] * H] * 2}, TypeError, "out"),
    "out of one row": (
        {"out": as_strided(np.zeros(H, np.float32), (2, H), (0, 4))},
        ValueError,
        "out",
    ),
}


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def one_row(array):
    strides = (*array.strides[:-2], 0, array.strides[-1])
    return as_strided(array.copy(), array.shape, strides)


def overlapping(h, c):
    memory = np.zeros(h.size + 1, h.dtype)
    return memory[:-1].reshape(h.shape), memory[1:].reshape(c.shape)


def assert_refused(layer, error, match, state, x, rows, out):
    arrays = [a for a in (*arrays_in(state), out) if isinstance(a, np.ndarray)]
    before = [np.array(array) for array in arrays]
    with pytest.raises(error, match=match):
        layer.step(x, state, rows, out)
    for array, expected in zip(arrays, before, strict=True):
        assert_same_bits(np.array(array), expected)


@pytest.mark.parametrize(("changed", "error", "match"), CALLS.values(), ids=CALLS)
def test_what_is_refused(kernels, rng, changed, error, match):
    lstm = fl.LSTM(I, H, rng=rng)
    arguments = {"x": np.ones((2, I)), "state": lambda *state: state, "rows": [4, 1], "out": None}
    arguments |= changed
    state = arguments.pop("state")(*random_zero_state(rng, lstm))
    assert_refused(lstm, error, match, state=state, **arguments)


WIDTHS = {
    "rows twice": {"rows": [1, 1]},
    "features": {"x": np.ones((2, I + 1))},
    "one array": {"state": lambda h, c: (h[0], c)},
    "too few": {"state": lambda h, c: (h, c[:1])},
    "read-only": {"state": lambda h, c: (h, [c[0], read_only(c[1])])},
    "other rows": {"state": lambda h, c: (h, [c[0], c[1][:, 1:]])},
    "h is c": {"state": lambda h, c: (h, h)},
    "out of another shape": {"out": np.zeros((2, H), np.float32)},
}


@pytest.mark.parametrize("changed", WIDTHS.values(), ids=WIDTHS)
def test_what_is_refused_of_layers_of_several_widths(kernels, rng, changed):
    lstm = fl.LSTM(I, [H, H + 1], rng=rng)
    arguments = {"x": np.ones((2, I)), "state": lambda *state: state, "rows": [4, 1], "out": None}
    arguments |= changed
    state = arguments.pop("state")(*random_zero_state(rng, lstm))
    assert_refused(lstm, ValueError, next(iter(changed)), state=state, **arguments)


class Interrupted(Leaky):
    """A cell whose steps raise while `now` is True."""

    now = False

    def pack(self, kernels, parameters, backward):
        made = super().pack(kernels, parameters, backward)
        step = made.step

        def or_raise(*arguments):
            if self.now:
                raise KeyboardInterrupt
            return step(*arguments)

        made.step = or_raise
        return made


@pytest.mark.parametrize("rows", [None, [4, 1]], ids=str)
def test_a_step_that_is_interrupted_leaves_every_layer(kernels, rng, rows, monkeypatch):
    stack = Stack([[Leaky(I, H)], [Interrupted(H, H + 1)]], reverse=(False,), rng=0)
    x, state = rng.standard_normal((2 if rows else B, I)), stack.zero_state(B)
    y = stack.step(x, state, rows)
    kept = [array.copy() for array in arrays_in(state)]
    monkeypatch.setattr(Interrupted, "now", True)
    with pytest.raises(KeyboardInterrupt):
        stack.step(x, state, rows)
    for array, expected in zip(arrays_in(state), kept, strict=True):
        assert_same_bits(array, expected)
    monkeypatch.setattr(Interrupted, "now", False)
    assert not (stack.step(x, state, rows) == y).all()


@pytest.mark.parametrize("layer", [fl.LSTMCell, fl.GRU], ids=["LSTMCell", "GRU"])
@pytest.mark.parametrize("of", ["x", "state", "rows of the state"])
def test_out_that_overlaps(kernels, rng, layer, of):
    layer = layer(H, H, rng=rng)
    state, memory = random_zero_state(rng, layer), np.ones((3, H), np.float32)
    x, out = memory[:2], memory[1:]
    if of != "x":
        x, first = x.copy(), arrays_in(state)[0]
        out = first.reshape(B, H)[3:5] if of == "state" else first.reshape(B, H)[::2][:2]
    assert_refused(layer, ValueError, "out", state, x, [0, 1], out)


def test_out_beside_x_and_the_state(kernels, rng):
    """Columns of one array share no memory."""
    gru = fl.GRU(I, H, rng=rng)
    table = np.zeros((1, B, H + I + H), np.float32)
    state, x, out = table[..., :H], table[0, :, H : H + I], table[0, :, H + I :]
    x[...] = rng.standard_normal(x.shape)
    expected = gru.step(x.copy(), state.copy())
    assert gru.step(x, state, None, out) is out
    assert_same_bits(out, expected)
    assert_same_bits(state[0], expected)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"hidden_size": [4, 5]}], ids=str)
def test_both_directions(kernels, options):
    layer = fl.LSTM(**{"input_size": I, "hidden_size": H, "bidirectional": True, **options})
    state = layer.zero_state(2)
    assert_refused(layer, ValueError, "bidirectional", state, np.ones((2, I)), None, None)
    model = fl.Sequential(fl.GRU(I, I), layer)
    state = model.zero_state(2)
    assert_refused(model, ValueError, "bidirectional", state, np.ones((2, I)), None, None)


STATES = {
    "too few": lambda a, b: (a,),
    "None": lambda a, b: (a, None),
    "another dtype": lambda a, b: (a, b.astype(float)),
    "read-only": lambda a, b: (a, read_only(b)),
    "other rows": lambda a, b: (a, b[:, 1:]),
    "twice the same": lambda a, b: (a, a),
    "overlapping": lambda a, b: overlapping(a, b),
}


@pytest.mark.parametrize("change", STATES.values(), ids=STATES)
def test_states_of_a_sequential(kernels, rng, change):
    """An error about the second layer leaves the state of the first as it was."""
    model = fl.Sequential(fl.GRU(H, H, rng=rng), fl.RNN(H, H, rng=rng), fl.Linear(H, 2, rng=rng))
    state = change(*random_zero_state(rng, model))
    assert_refused(model, (ValueError, TypeError), "state", state, np.ones((2, H)), [0, 2], None)


OUTS = {
    "shape": lambda state: np.zeros((2, 3), np.float32),
    "dtype": lambda state: np.zeros((2, 2)),
    "read-only": lambda state: read_only(np.zeros((2, 2), np.float32)),
    "the state": lambda state: state[0][0, :2, :2],
}


@pytest.mark.parametrize("make", OUTS.values(), ids=OUTS)
def test_out_of_a_sequential(kernels, rng, make):
    for last in ((fl.Linear(H, 2, rng=rng),), (fl.GRU(H, 2, rng=rng), fl.Dropout(0.1))):
        model = fl.Sequential(fl.GRU(H, H, rng=rng), *last)
        state = random_zero_state(rng, model)
        out, x = make(state), np.ones((2, H))
        assert_refused(model, (ValueError, TypeError), "out", state, x, [0, 2], out)
