"""Pool and Last on arrays and lists: by loops, and by finite differences."""

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from slopes import assert_slope

import fastlstm as fl

T, B, F = 6, 4, 3
KINDS = ["last", "mean", "max"]
LENGTHS = [3, 0, 6, 1]
every_kind = pytest.mark.parametrize("kind", KINDS)


def pooled(kind, steps, half=None):
    """The vector of one sequence's valid steps [T, F], by loops; from `half` on, of a reverse."""
    y = np.zeros(steps.shape[1])
    for k in range(len(y) if len(steps) else 0):
        column = [float(step) for step in steps[:, k]]
        if kind == "last":
            y[k] = column[0] if half is not None and k >= half else column[-1]
        else:
            y[k] = max(column) if kind == "max" else sum(column) / len(column)
    return y


def some_mask(rng):
    mask = rng.random((T, B)) < 0.6
    mask[:, -1] = False  # a row without valid steps
    return mask


@every_kind
@pytest.mark.parametrize("how", ["whole", "lengths", "mask", "both"])
@pytest.mark.parametrize("bidirectional", [None, True])
def test_by_loops(rng, dtype, kind, how, bidirectional):
    x, valid, options = rng.standard_normal((T, B, 4)).astype(dtype), np.ones((T, B), bool), {}
    if how in ("lengths", "both"):
        options["lengths"] = LENGTHS
        valid &= np.arange(T)[:, None] < LENGTHS
    if how in ("mask", "both"):
        options["mask"] = some_mask(rng)
        valid &= options["mask"]
    x[~valid] = np.nan
    expected = [pooled(kind, x[valid[:, b], b], 2 if bidirectional else None) for b in range(B)]
    pool = fl.Pool(kind, bidirectional=bidirectional)
    y = pool(x, **options)
    assert_close(y, np.array(expected), dtype)
    assert_same_bits(pool.forward(x, **options)[0], y)
    rows_first = fl.Pool(kind, batch_first=True, bidirectional=bidirectional)
    options = {name: np.transpose(value) for name, value in options.items()}
    assert_same_bits(rows_first(x.swapaxes(0, 1), **options), y)
    for b in range(B):
        assert_same_bits(pool(x[valid[:, b], b]), y[b], f"row {b} alone")
    sequences = [x[valid[:, b], b] for b in range(B)]
    assert_same_bits(pool(sequences), y)


def test_mean_of_many_numbers(rng):
    """Sums in pairs keep float32's precision; a running sum would be off by 1e-4."""
    x = rng.uniform(0, 1, (200_000, 2)).astype(np.float32)
    np.testing.assert_allclose(fl.Pool("mean")(x), x.mean(axis=0, dtype=np.float64), rtol=1e-6)


@every_kind
@pytest.mark.parametrize("how", ["whole", "lengths", "mask", "list", "one", "batch first"])
def test_finite_differences(rng, kind, how):
    pool = fl.Pool(kind, batch_first=how == "batch first", bidirectional=True)
    x, options = rng.standard_normal((T, B, 4)), {}
    if how == "lengths":
        options["lengths"] = LENGTHS
    elif how == "mask":
        options["mask"] = some_mask(rng)
    elif how == "one":
        x = x[:, 0]
    given = [x[:length, b] for b, length in enumerate(LENGTHS)] if how == "list" else x
    y, tape = pool.forward(given, **options)
    dy = rng.standard_normal(y.shape)
    grads = pool.backward(tape, dy)
    assert grads.params == {}
    if how != "list":
        assert_slope(grads.x, lambda: np.vdot(dy, pool(x, **options)), x)
        return
    for dx, part in zip(grads.x, given, strict=True):
        assert_slope(dx, lambda: np.vdot(dy, pool(given)), part)


@every_kind
def test_gradients_at_steps_that_do_not_count(rng, kind):
    pool, mask = fl.Pool(kind), some_mask(rng)
    x = np.where(mask[..., None], rng.standard_normal((T, B, F)), np.nan)
    _, tape = pool.forward(x, mask=mask)
    dx = pool.backward(tape, np.where(mask.any(axis=0)[:, None], np.ones((B, F)), np.nan)).x
    assert not dx[~mask].any()
    np.testing.assert_allclose(dx.sum(axis=0), np.repeat(mask.any(axis=0)[:, None], F, axis=1))


@every_kind
def test_lengths_may_change_before_backward(rng, kind):
    pool, x, lengths = fl.Pool(kind), rng.standard_normal((T, B, F)), np.array(LENGTHS)
    y, tape = pool.forward(x, lengths=lengths)
    lengths[:] = 2
    expected = pool.backward(pool.forward(x, lengths=LENGTHS)[1], y)
    assert_same_bits(pool.backward(tape, y).x, expected.x)


def test_the_first_of_equal_maxima_has_the_gradient():
    pool = fl.Pool("max")
    _, tape = pool.forward(np.array([[1.0], [2.0], [2.0]]))
    np.testing.assert_array_equal(pool.backward(tape, [5.0]).x, [[0], [5], [0]])


@every_kind
def test_nothing_to_pool(kind):
    for shape, expected in (((0, B, F), (B, F)), ((T, 0, F), (0, F)), ((0, F), (F,))):
        y, tape = fl.Pool(kind).forward(np.ones(shape))
        assert (y.shape, y.any()) == (expected, False)
        assert tape.layer.backward(tape, y).x.shape == shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_tape_serves_once_and_survives_errors(rng, kind):
    pool, x = fl.Pool(kind), rng.standard_normal((T, B, F))
    y, tape = pool.forward(x)
    for dy, error in ((y[0], ValueError), (None, TypeError), (1j * y, TypeError)):
        with pytest.raises(error, match=r"^dy: "):
            pool.backward(tape, dy)
    with pytest.raises(ValueError, match=r"^tape: .* another layer"):
        fl.Pool(kind).backward(tape, y)
    pool.backward(tape, y)
    with pytest.raises(ValueError, match=r"^tape: .* one backward"):
        pool.backward(tape, y)


X = np.ones((T, B, F))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fl.Pool("sum"), ValueError, 'kind: expected "last", "mean" or "max", got .sum'),
        (lambda: fl.Pool(None), ValueError, "kind: "),
        (lambda: fl.Pool("max", batch_first=1), TypeError, "batch_first: "),
        (lambda: fl.Last(bidirectional="yes"), TypeError, "bidirectional: "),
        (lambda: fl.Last()(np.ones(3)), ValueError, r"x: .*\(3,\)"),
        (lambda: fl.Last()(np.ones((2, 3, 4, 5))), ValueError, "x: "),
        (lambda: fl.Last()([np.ones(3)]), ValueError, "x: "),
        (lambda: fl.Last()(1j * X), TypeError, "x: "),
        (lambda: fl.Last(bidirectional=True)(X), ValueError, "x: .* 2 directions, got 3"),
        (lambda: fl.Last()(X, lengths=[1, 2]), ValueError, "lengths: "),
        (lambda: fl.Last()(X, lengths=[T + 1] * B), ValueError, "lengths: "),
        (lambda: fl.Last()(X[:, 0], lengths=[1]), ValueError, "lengths: "),
        (lambda: fl.Last()(X, mask=np.full((T, B), 0.5)), ValueError, "mask: .*got 0.5"),
        (lambda: fl.Last()(X, mask=np.ones((B, T), bool)), ValueError, "mask: "),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
