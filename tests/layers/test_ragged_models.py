"""A `Sequential` of a ragged batch: every row is computed as if alone, in every layer."""

import numpy as np
import pytest
from compare import assert_gradients_close
from models import Recurrent, Residual, Swap
from slopes import assert_slope_along

import fastlstm as fl

F8 = np.dtype(np.float64)
LENGTHS = {"unequal": [5, 0, 7, 3], "equal": [4, 4, 4, 4], "as many as rows": [4, 2, 4, 1]}


class Scale(fl.Module):
    """Acts on steps, and says so."""

    acts_on_steps = True

    def __call__(self, x):
        assert x.ndim == 2
        return x / np.abs(x).sum(axis=-1, keepdims=True)  # of zeros it would be NaN

    def forward(self, x):
        return 2 * x, None

    def backward(self, tape, dresult):
        assert dresult.ndim == 2
        return self.collect(x=2 * dresult)


def text_model(rng, **layout):
    return fl.Sequential(
        fl.Embedding(9, 3, dtype=F8, rng=rng),
        fl.Dropout(0.0),
        fl.Linear(3, 4, dtype=F8, rng=rng),
        fl.LSTM(4, 5, bidirectional=True, dtype=F8, rng=rng, **layout),
        fl.Sequential(fl.Linear(10, 2, dtype=F8, rng=rng), fl.Dropout(0.0)),
        fl.GRU(2, 3, dtype=F8, rng=rng, **layout),
        fl.Linear(3, 2, dtype=F8, rng=rng),
    )


def number_model(rng, **layout):
    return fl.Sequential(
        fl.Dropout(0.0),
        fl.Linear(3, 4, dtype=F8, rng=rng),
        fl.Sequential(
            fl.RNN(4, 5, dtype=F8, rng=rng, **layout), fl.Linear(5, 3, dtype=F8, rng=rng)
        ),
    )


def dense_model(rng, **layout):
    return fl.Sequential(
        fl.Linear(3, 4, dtype=F8, rng=rng),
        fl.Sequential(fl.Dropout(0.0), fl.Linear(4, 2, dtype=F8, rng=rng)),
    )


def one_layer(rng, **layout):
    return fl.Sequential(fl.LSTM(3, 4, dtype=F8, rng=rng, bidirectional=True, **layout))


def own_model(rng, **layout):
    return fl.Sequential(
        Residual(3, rng=rng), Recurrent(3, rng=rng), fl.Linear(3, 2, dtype=F8, rng=rng)
    )


MODELS = [text_model, number_model, dense_model, one_layer, own_model]
every_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


def sequences_of(rng, make, lengths):
    if make is text_model:
        return [rng.integers(0, 9, length) for length in lengths]
    return [rng.standard_normal((length, 3)) for length in lengths]


def result_of(model, result):
    return result if model.is_recurrent else (result, None)


def leaves(state):
    if isinstance(state, tuple):
        return [array for part in state for array in leaves(part)]
    return [] if state is None else [state]


def train_alone(model, x, dy):
    """The result and gradients of one sequence, in a batch of its own, [T, 1, ...]."""
    result, tape = model.forward(x[:, None])
    y, state = result_of(model, result)
    return y[:, 0], state, model.backward(tape, dy[:, None])


def close(actual, expected, what):
    assert_gradients_close(actual, expected, F8, what, slack=100)


def check_rows(model, sequences, y_rows, state, dx_rows, params, dys):
    """Rows of a result are those of each sequence alone; and gradients their sums."""
    sums = {name: np.zeros_like(array) for name, array in params.items()}
    for k, (x, dy) in enumerate(zip(sequences, dys, strict=True)):
        y, final, grads = train_alone(model, x, dy)
        close(y_rows[k], y, f"y {k}")
        for a, b in zip(leaves(state), leaves(final), strict=True):
            close(a[:, k : k + 1], b, f"state {k}")
        if dx_rows is not None:
            close(dx_rows[k], grads.x[:, 0], f"dx {k}")
        for name, array in grads.params.items():
            sums[name] += array
    for name, array in params.items():
        close(array, sums[name], name)


def outputs(model, x):
    return result_of(model, model(x[:, None]))[0].shape[-1]


@every_model
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_list(kernels, rng, make, lengths, batch_first):
    if make is own_model and batch_first:
        pytest.skip("its layers have one layout")
    model = make(rng, batch_first=batch_first)
    one = make(rng)
    one.load_state_dict(model.state_dict())
    xs = sequences_of(rng, make, lengths)
    called, called_state = result_of(model, model(xs))
    result, tape = model.forward(xs)
    ys, state = result_of(model, result)
    assert isinstance(ys, list)
    for a, b in zip(called + leaves(called_state), ys + leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
    dys = [rng.standard_normal((len(x), outputs(one, xs[0]))) for x in xs]
    grads = model.backward(tape, dys)
    assert (grads.x is None) == (make is text_model)
    check_rows(one, xs, ys, state, grads.x, grads.params, dys)


@pytest.mark.parametrize(
    "make", [text_model, number_model, one_layer, own_model], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("how", ["lengths", "mask", "both", "list and mask"])
def test_what_is_left_out_may_hold_anything(kernels, rng, make, how):
    T, B, model = 7, 4, make(rng)
    mask, lengths = np.ones((T, B), bool), np.array([5, 0, 7, 3])
    options = {}
    if how != "lengths":
        mask = rng.random((T, B)) < 0.6
        options["mask"] = mask
    if how in ("lengths", "both"):
        options["lengths"] = lengths
        mask = mask & (np.arange(T)[:, None] < lengths)
    x = np.stack(sequences_of(rng, make, [T] * B), axis=1)
    xs = [x[mask[:, row], row] for row in range(B)]
    full = rng.standard_normal((T, B, outputs(model, x[:, 0])))
    dys = [full[mask[:, row], row] for row in range(B)]
    x[~mask], dy = -1 if make is text_model else np.nan, full.copy()
    dy[~mask] = np.nan
    if how == "list and mask":
        given = list(x.swapaxes(0, 1))
        (ys, state), tape = model.forward(given, mask=list(mask.T))
        grads = model.backward(tape, list(dy.swapaxes(0, 1)))
        y, dx = np.stack(ys, axis=1), grads.x and np.stack(grads.x, axis=1)
        called = np.stack(model(given, mask=list(mask.T))[0], axis=1)
    else:
        (y, state), tape = model.forward(x, **options)
        grads = model.backward(tape, dy)
        called, dx = model(x, **options)[0], grads.x
    np.testing.assert_array_equal(called, y)
    assert not y[~mask].any()
    y_rows = [y[mask[:, row], row] for row in range(B)]
    dx_rows = None
    if dx is not None:
        assert not dx[~mask].any()
        dx_rows = [dx[mask[:, row], row] for row in range(B)]
    check_rows(model, xs, y_rows, state, dx_rows, grads.params, dys)


@pytest.mark.parametrize("tail", ["recurrent", "dropout", "linear"])
@pytest.mark.parametrize("how", ["array", "list", "lengths"])
def test_masked_steps_repeat_outputs(rng, tail, how):
    """The whole model's, as one layer does: in each direction, while there are two."""
    T, B = 7, 4
    lstm = fl.LSTM(3, 4, bidirectional=True, dtype=F8, rng=rng)
    more = {"dropout": [fl.Dropout(0.0)], "linear": [fl.Linear(8, 2, dtype=F8, rng=rng)]}
    model = fl.Sequential(fl.Linear(3, 3, dtype=F8, rng=rng), lstm, *more.get(tail, []))
    x, mask = rng.standard_normal((T, B, 3)), rng.random((T, B)) < 0.5
    mask[:, 1] = False
    ends = np.array([T, T, 5, 3]) if how == "lengths" else np.full(B, T)
    options = {"mask": mask, "masked_output": "repeat"}
    if how == "lengths":
        options["lengths"] = ends
    kept = mask & (np.arange(T)[:, None] < ends)
    expected = model(x, mask=kept)[0]
    halves = [slice(None)] if tail == "linear" else [slice(4), slice(4, None)]
    for row in range(B):
        for part, order in zip(halves, (range(T), reversed(range(T))), strict=False):
            shown = np.zeros_like(expected[0, row, part])
            for t in order:
                shown = expected[t, row, part] if kept[t, row] else shown
                expected[t, row, part] = shown if t < ends[row] else 0
    if how == "list":
        options["mask"] = list(mask.T)

    def given():
        return list(x.swapaxes(0, 1)) if how == "list" else x

    def array(y):
        return np.stack(y, axis=1) if how == "list" else y

    (y, _), tape = model.forward(given(), **options)
    np.testing.assert_array_equal(array(y), expected)
    np.testing.assert_array_equal(array(model(given(), **options)[0]), expected)
    dy = rng.standard_normal(expected.shape)
    dx = array(model.backward(tape, list(dy.swapaxes(0, 1)) if how == "list" else dy).x)
    assert_slope_along(dx, lambda: np.vdot(dy, array(model(given(), **options)[0])), x, rng)


def test_one_sequence_with_a_mask(kernels, rng):
    model = text_model(rng)
    x, mask = rng.integers(0, 9, 7), np.array([0, 1, 1, 0, 0, 1, 0], bool)
    expected, _ = model(x[mask])
    x[~mask] = -1
    y, _ = model(x, mask=mask)
    np.testing.assert_array_equal(y[mask], expected)
    assert not y[~mask].any()


def test_resets_reach_every_layer(kernels, rng):
    """A list of one row with two sequences in it, the second of which begins at a masked step."""
    model = fl.Sequential(
        fl.Linear(3, 4, dtype=F8, rng=rng), fl.LSTM(4, 5, dtype=F8, rng=rng), fl.RNN(5, 2, dtype=F8)
    )
    x, mask, resets = rng.standard_normal((8, 3)), np.ones(8, bool), np.zeros(8, bool)
    mask[[0, 4, 5]] = False
    resets[4] = True
    (y,), _ = model([x], mask=[mask], resets=[resets])
    first, _ = model([x[1:4]])
    second, _ = model([x[6:]])
    close(y[1:4], first[0], "first")
    close(y[6:], second[0], "second")


def test_modules_that_act_on_steps(kernels, rng):
    model = fl.Sequential(Scale(), fl.LSTM(3, 4, dtype=F8, rng=rng), Scale())
    xs = [rng.standard_normal((length, 3)) for length in (3, 1, 5)]
    ys, _ = model(xs)
    for x, y in zip(xs, ys, strict=True):
        close(y, model(x)[0], "y")
    (ys, _), tape = model.forward(xs)
    dxs = model.backward(tape, ys).x
    assert [dx.shape for dx in dxs] == [(3, 3), (1, 3), (5, 3)]


def test_a_list_of_no_sequences(kernels, rng):
    for make in MODELS[:-1]:
        model = make(rng)
        result, tape = model.forward([])
        assert result_of(model, result)[0] == []
        assert not any(array.any() for array in model.backward(tape, []).params.values())


LISTS = fl.Sequential(fl.Dropout(0.0), fl.Linear(3, 4), fl.LSTM(4, 2))
BOTH = fl.Sequential(fl.LSTM(3, 4, batch_first=True), Swap(), fl.Sequential(fl.LSTM(4, 2)))
ONES = np.ones((4, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: LISTS([ONES, ONES[:, :2]]), ValueError, r"x\[1\]: .*\(steps, 3\), got \(4, 2\)"),
        (lambda: LISTS([ONES, ONES[0]]), ValueError, r"x\[1\]: .*\(steps, 3\), got \(3,\)"),
        (lambda: LISTS([ONES, 1j * ONES]), TypeError, r"x\[1\]: expected real"),
        (lambda: LISTS([ONES, 1.0]), ValueError, r"x\[1\]: .*\(steps, 3\), got \(\)"),
        (lambda: LISTS([ONES], lengths=[4]), ValueError, "lengths: a list"),
        (lambda: LISTS([ONES], mask=np.ones((4, 1), bool)), ValueError, "mask: expected a list"),
        (lambda: LISTS([ONES], mask=[np.ones(3, bool)]), ValueError, r"mask\[0\]: .*\(4,\)"),
        (lambda: LISTS([ONES], mask=["1111"]), TypeError, r"mask\[0\]: expected bools, or numbers"),
        (lambda: LISTS([ONES], mask=[2 * ONES[:, 0]]), ValueError, r"mask\[0\]: .* got 2"),
        (lambda: LISTS([ONES], masked_output="last"), ValueError, "masked_output: "),
        (lambda: LISTS.forward(ONES, masked_output=None), ValueError, "masked_output: "),
        (lambda: LISTS[:2]([ONES], masked_output="repeat"), ValueError, "masked_output: no layer"),
        (lambda: LISTS([ONES], resets=[np.ones(3, bool)]), ValueError, r"resets\[0\]: .*\(4,\)"),
        (
            lambda: LISTS(np.ones((4, 2, 5)), lengths=[1, 2]),
            ValueError,
            r"x: .*\(steps, batch, 3\) or \(steps, 3\), got \(4, 2, 5\)",
        ),
        (
            lambda: LISTS.backward(LISTS.forward([ONES, ONES])[1], [ONES[:, :2]]),
            ValueError,
            "dy: expected a list of 2",
        ),
        (
            lambda: LISTS.backward(LISTS.forward([ONES])[1], [ONES]),
            ValueError,
            r"dy\[0\]: .*\(4, 2\), got \(4, 3\)",
        ),
        (
            lambda: LISTS.backward(LISTS.forward(np.ones((4, 2, 3)), lengths=[1, 2])[1], ONES),
            ValueError,
            r"dy: .*\(4, 2, 2\), got \(4, 3\)",
        ),
        (lambda: BOTH([ONES]), ValueError, "batch_first: "),
        (lambda: BOTH(np.ones((4, 4, 3)), lengths=[4] * 4), ValueError, "batch_first: "),
        (lambda: BOTH(np.ones((4, 4, 3)), mask=np.ones((4, 4), bool)), ValueError, "batch_first: "),
        (lambda: BOTH(np.ones((4, 4, 3)), resets=np.eye(4) > 0), ValueError, "batch_first: "),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_a_tuple_for_a_module_of_ones_own(rng):
    class Pair(fl.Module):
        def __call__(self, x):
            return x[0] + x[1]

    model = fl.Sequential(Pair(), fl.LSTM(3, 2, rng=rng))
    x = np.ones((4, 2, 3), np.float32)
    np.testing.assert_array_equal(model((x, x))[0], model[1](2 * x)[0])


class Shift(fl.Module):
    """Takes whole batches."""

    def __init__(self):
        self.define(shift=np.zeros(3))

    def __call__(self, x):
        return x + self.shift

    def forward(self, x):
        return x + self.shift, None

    def backward(self, tape, dresult):
        return self.collect(x=dresult, shift=dresult.sum(axis=(0, 1)))


def test_a_module_of_ones_own_gets_no_gradient_of_padding():
    """What stands in dy after a row's end does not count."""
    model = fl.Sequential(fl.LSTM(2, 3, dtype=F8, rng=0), Shift())
    _, tape = model.forward(np.ones((4, 2, 2)), lengths=[4, 1])
    grads = model.backward(tape, np.ones((4, 2, 3)))
    np.testing.assert_array_equal(grads.params["1.shift"], [5, 5, 5])
