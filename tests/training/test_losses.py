"""Losses against plain loops, torch and finite differences."""

import warnings
from math import exp, log

import numpy as np
import pytest
from compare import assert_close
from slopes import assert_slope

from fastlstm import losses

SHAPE = 3, 4, 2


def masks(rng):
    """Every leading part of SHAPE, none of them all true."""
    return [
        None,
        np.array(True),
        np.array([True, False, True]),
        np.arange(12).reshape(3, 4) % 3 > 0,
        rng.permutation(np.arange(24) % 2 > 0).reshape(SHAPE),
    ]


def kept(mask, index):
    return mask is None or bool(mask[index[: mask.ndim]])


def mse_by_loops(pred, target, mask):
    squares = [
        (float(pred[index]) - float(target[index])) ** 2
        for index in np.ndindex(pred.shape)
        if kept(mask, index)
    ]
    return sum(squares) / len(squares)


def cross_entropy_by_loops(logits, labels, mask):
    terms = []
    for index in np.ndindex(labels.shape):
        if kept(mask, index):
            scores = [float(score) for score in logits[index]]
            highest = max(scores)
            total = sum(exp(score - highest) for score in scores)
            terms.append(log(total) + highest - scores[labels[index]])
    return sum(terms) / len(terms)


def where(mask, shape):
    return np.array([kept(mask, index) for index in np.ndindex(shape)]).reshape(shape)


@pytest.mark.parametrize("which", range(5))
def test_mse_by_loops(rng, dtype, which):
    mask = masks(rng)[which]
    pred, target = rng.standard_normal((2, *SHAPE)).astype(dtype)
    loss, d_pred = losses.mse(pred, target, mask)
    assert type(loss) is float
    assert d_pred.dtype == dtype
    np.testing.assert_allclose(loss, mse_by_loops(pred, target, mask), rtol=1e-6)
    pred, target = pred.astype(np.float64), target.astype(np.float64)
    _, d_pred = losses.mse(pred, target, mask)
    assert_slope(d_pred, lambda: losses.mse(pred, target, mask)[0], pred)


@pytest.mark.parametrize("which", range(4))
def test_cross_entropy_by_loops(rng, dtype, which):
    mask = masks(rng)[which]
    logits = (3 * rng.standard_normal((3, 4, 5))).astype(dtype)
    labels = rng.integers(0, 5, (3, 4))
    loss, d_logits = losses.cross_entropy(logits, labels, mask)
    assert type(loss) is float
    assert d_logits.dtype == dtype
    np.testing.assert_allclose(loss, cross_entropy_by_loops(logits, labels, mask), rtol=1e-6)
    logits = logits.astype(np.float64)
    _, d_logits = losses.cross_entropy(logits, labels, mask)
    assert_slope(d_logits, lambda: losses.cross_entropy(logits, labels, mask)[0], logits)


@pytest.mark.parametrize("which", range(1, 5))
def test_mse_of_what_is_masked_out(rng, dtype, which):
    mask = masks(rng)[which]
    pred, target = rng.standard_normal((2, *SHAPE)).astype(dtype)
    expected_loss, expected = losses.mse(pred, target, mask)
    out = ~where(mask, SHAPE)
    for filler in (np.nan, np.inf, 1e30):
        pred[out], target[out] = filler, -filler
        loss, d_pred = losses.mse(pred, target, mask)
        assert loss == expected_loss
        np.testing.assert_array_equal(d_pred, expected)
        assert (d_pred[out] == 0).all()


@pytest.mark.parametrize("which", range(1, 4))
def test_cross_entropy_of_what_is_masked_out(rng, dtype, which):
    mask = masks(rng)[which]
    logits = rng.standard_normal((3, 4, 5)).astype(dtype)
    labels = rng.integers(0, 5, (3, 4))
    expected_loss, expected = losses.cross_entropy(logits, labels, mask)
    out = ~where(mask, (3, 4))
    for filler, label in ((np.nan, -1), (np.inf, 5), (-np.inf, -(2**62))):
        logits[out], labels[out] = filler, label
        loss, d_logits = losses.cross_entropy(logits, labels, mask)
        assert loss == expected_loss
        np.testing.assert_array_equal(d_logits, expected)
        assert (d_logits[out] == 0).all()


def test_as_torch(rng, dtype):
    torch = pytest.importorskip("torch")
    pred, target = rng.standard_normal((2, 30, 40, 7)).astype(dtype)
    labels = rng.integers(0, 7, (30, 40))
    mask = rng.random((30, 40)) < 0.6
    theirs = torch.tensor(pred, requires_grad=True)
    for (loss, gradient), their_loss in (
        (losses.mse(pred, target), torch.nn.functional.mse_loss(theirs, torch.tensor(target))),
        (
            losses.cross_entropy(pred, labels, mask),
            torch.nn.functional.cross_entropy(
                theirs.reshape(-1, 7),
                torch.tensor(np.where(mask, labels, -1).reshape(-1)),
                ignore_index=-1,
            ),
        ),
    ):
        (their_gradient,) = torch.autograd.grad(their_loss, theirs)
        np.testing.assert_allclose(loss, their_loss.item(), rtol=1e-5)
        assert_close(gradient, their_gradient.numpy(), dtype)


@pytest.mark.parametrize("shape", [(), (2,), (1, 4, 1), (3, 1, 2)])
def test_mse_broadcasts_the_target(rng, shape):
    pred, target = rng.standard_normal(SHAPE), rng.standard_normal(shape)
    loss, d_pred = losses.mse(pred, target)
    full = np.empty(SHAPE)
    full[...] = target
    assert loss == losses.mse(pred, full)[0]
    np.testing.assert_array_equal(d_pred, losses.mse(pred, full)[1])


def test_any_strides_and_kinds(rng):
    pred, target = rng.integers(-5, 5, (2, *SHAPE))
    loss, d_pred = losses.mse(pred.tolist(), target)
    assert d_pred.dtype == np.float64
    turned = losses.mse(pred.T.copy().T, np.asfortranarray(target), np.ones((4, 3), bool).T)
    assert turned[0] == loss
    np.testing.assert_array_equal(turned[1], d_pred)
    labels = rng.integers(0, 2, (4, 3)).astype(np.uint8)
    expected = losses.cross_entropy(pred.astype(float), labels.T)
    actual = losses.cross_entropy(pred.T.astype(float).T, labels.T.tolist())
    assert actual[0] == expected[0]
    np.testing.assert_array_equal(actual[1], expected[1])


def test_inputs_stay(rng):
    pred, target = rng.standard_normal((2, *SHAPE))
    labels, mask = rng.integers(0, 2, SHAPE[:2]), np.ones(SHAPE[:1], bool)
    for array in (pred, target, labels, mask):
        array.flags.writeable = False
    for gradient in (losses.mse(pred, target, mask)[1], losses.cross_entropy(pred, labels)[1]):
        assert gradient.flags.writeable
        assert not np.shares_memory(gradient, pred)


def test_one_position_without_axes():
    loss, d_logits = losses.cross_entropy([0.0, 0.0, 0.0, 0.0], 2)
    np.testing.assert_allclose(loss, log(4))
    np.testing.assert_allclose(d_logits, [0.25, 0.25, -0.75, 0.25])
    assert losses.mse(3.0, 1.0)[0] == 4
    assert losses.mse(3.0, 1.0)[1] == 4


def test_cross_entropy_is_stable(dtype):
    logits = np.array([[1e30, 0, -1e30], [-np.inf, 1, 1], [700, 800, 900]], dtype)
    loss, d_logits = losses.cross_entropy(logits, [0, 1, 1])
    np.testing.assert_allclose(loss, (0 + log(2) + 100) / 3, rtol=1e-6)
    expected = np.array([[0, 0, 0], [0, -0.5, 0.5], [0, -1, 1]]) / 3
    np.testing.assert_allclose(d_logits, expected, atol=1e-7)


def test_cross_entropy_of_a_good_prediction(dtype):
    """Where the softmax rounds to 1 in float32, the loss is still a small number and not zero."""
    loss, _ = losses.cross_entropy(np.array([0, -20], dtype), 0)
    np.testing.assert_allclose(loss, exp(-20), rtol=1e-6)


@pytest.mark.parametrize("size", [1.0, 2e38, 1e200, 1e308, np.inf, np.nan])
def test_no_warning_of_numbers_of_any_size(dtype, size):
    """Not even with `-W error`; the numbers are what IEEE arithmetic gives."""
    if dtype == np.float32 and 2e38 < size < np.inf:
        size = 2e38
    pred = np.array([[size, -size], [-size, 1.0]], dtype)
    with warnings.catch_warnings(), np.errstate(all="warn"):
        warnings.simplefilter("error")
        mse, d_mse = losses.mse(pred, -pred)
        entropy, d_entropy = losses.cross_entropy(pred, [0, 1])
    with np.errstate(all="ignore"):
        error = pred + pred
        np.testing.assert_array_equal(d_mse, error * dtype.type(0.5))
        np.testing.assert_allclose(mse, np.mean(np.square(error, dtype=np.float64)), rtol=1e-12)
    if 1 < size < np.inf:
        assert entropy == 0
        np.testing.assert_array_equal(d_entropy, 0)
    if not np.isfinite(size):
        assert np.isnan(entropy)


def test_losses_accumulate_in_float64():
    pred = np.full((3000, 1000), 0.1, np.float32)
    loss, _ = losses.mse(pred, 0)
    np.testing.assert_allclose(loss, float(np.float32(0.1)) ** 2, rtol=1e-12)
    loss, _ = losses.mse(np.array([1e25], np.float32), 0)
    np.testing.assert_allclose(loss, 1e50, rtol=1e-6)
    logits = np.zeros((3_000_000, 2), np.float32)
    loss, _ = losses.cross_entropy(logits, np.zeros(len(logits), int))
    np.testing.assert_allclose(loss, log(2), rtol=1e-12)


P = np.ones(SHAPE)
LABELS = np.ones(SHAPE[:2], int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: losses.mse(P, np.ones((3, 4))),
            ValueError,
            r"target: .*\(3, 4, 2\), got \(3, 4\)",
        ),
        (lambda: losses.mse(P, np.ones((5, 3, 4, 2))), ValueError, "target: "),
        (lambda: losses.mse(np.ones(2), P), ValueError, "target: "),
        (lambda: losses.mse(P, None), TypeError, "target: "),
        (lambda: losses.mse(P + 1j, P), TypeError, "pred: "),
        (lambda: losses.mse([[1.0], [1.0, 2.0]], P), ValueError, "pred: "),
        (lambda: losses.mse(np.ma.ones(2), 0), TypeError, "pred: .*masked"),
        (lambda: losses.mse(P, P, np.ones((4, 2), bool)), ValueError, r"mask: .*got \(4, 2\)"),
        (lambda: losses.mse(P, P, np.ones((3, 1), bool)), ValueError, "mask: "),
        (lambda: losses.mse(P, P, np.ones((3, 4, 2, 1), bool)), ValueError, "mask: "),
        (lambda: losses.mse(P, P, np.ones(3)), TypeError, "mask: .*float64"),
        (lambda: losses.mse(P, P, np.ones(3, int)), TypeError, "mask: "),
        (lambda: losses.mse(P, P, np.zeros(3, bool)), ValueError, "mask: .*nothing"),
        (lambda: losses.mse(P[:0], P[:0]), ValueError, "mask: .*nothing"),
        (
            lambda: losses.cross_entropy(P, LABELS.T),
            ValueError,
            r"labels: .*\(3, 4\), got \(4, 3\)",
        ),
        (lambda: losses.cross_entropy(P, P), TypeError, "labels: .*float64"),
        (lambda: losses.cross_entropy(P, LABELS > 0), TypeError, "labels: .*bool"),
        (lambda: losses.cross_entropy(P, LABELS + 1), ValueError, "labels: .*0 to 1, got 2 to 2"),
        (lambda: losses.cross_entropy(P, LABELS - 2), ValueError, "labels: .*got -1 to -1"),
        (lambda: losses.cross_entropy(1.0, 0), ValueError, "logits: "),
        (lambda: losses.cross_entropy(P[..., :0], LABELS), ValueError, "labels: "),
        (lambda: losses.cross_entropy(P + 0j, LABELS), TypeError, "logits: "),
        (lambda: losses.cross_entropy(P, LABELS, P > 0), ValueError, "mask: "),
        (lambda: losses.cross_entropy(P, LABELS, LABELS), TypeError, "mask: "),
        (lambda: losses.cross_entropy(P, LABELS, LABELS < 0), ValueError, "mask: .*nothing"),
        (lambda: losses.cross_entropy(P[:0], LABELS[:0]), ValueError, "mask: .*nothing"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
