"""Losses against plain loops, torch and finite differences."""

import warnings
from math import exp, log

import numpy as np
import pytest
from compare import assert_close
from slopes import assert_slope

import fastlstm as fl
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
    loss, d_pred = losses.mse(pred, target, broadcast=True)
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
    loss, _ = losses.mse(pred, 0, broadcast=True)
    np.testing.assert_allclose(loss, float(np.float32(0.1)) ** 2, rtol=1e-12)
    loss, _ = losses.mse(np.array([1e25], np.float32), [0])
    np.testing.assert_allclose(loss, 1e50, rtol=1e-6)
    logits = np.zeros((3_000_000, 2), np.float32)
    loss, _ = losses.cross_entropy(logits, np.zeros(len(logits), int))
    np.testing.assert_allclose(loss, log(2), rtol=1e-12)


# One position's loss, from its definition; of the error, or of a logit and a target.
OF_A_POSITION = {
    "mse": lambda p, t: (p - t) ** 2,
    "mae": lambda p, t: abs(p - t),
    "huber": lambda p, t: (p - t) ** 2 / 2 if abs(p - t) <= 1 else abs(p - t) - 0.5,
    "binary_cross_entropy": lambda z, t: (
        -t * log(1 / (1 + exp(-z))) - (1 - t) * log(1 / (1 + exp(z)))
    ),
}
# Weights for every position of SHAPE, in each of the forms that are allowed.
WEIGHTS = [None, [0.5, 2, 0], [[1, 0.25, 3, 0.5]], np.arange(24).reshape(SHAPE) / 7]


@pytest.mark.parametrize("name", OF_A_POSITION)
@pytest.mark.parametrize("which_mask", [0, 3, 4])
@pytest.mark.parametrize("which", range(4))
def test_weighted_means_by_loops(rng, dtype, name, which_mask, which):
    mask, weights = masks(rng)[which_mask], WEIGHTS[which]
    pred = (2 * rng.standard_normal(SHAPE)).astype(dtype)
    target = rng.random(SHAPE).astype(dtype)
    each = np.ones(SHAPE)
    if weights is not None:
        each *= np.reshape(weights, np.shape(weights) + (1,) * (3 - np.ndim(weights)))
    each *= where(mask, SHAPE)
    terms = np.vectorize(OF_A_POSITION[name])(pred.astype(float), target.astype(float))
    loss, total = getattr(losses, name), each.sum()
    value, d_pred = loss(pred, target, mask, weights)
    np.testing.assert_allclose(value, (each * terms).sum() / total, rtol=2e-6)
    assert d_pred.dtype == dtype
    assert (d_pred[each == 0] == 0).all()
    assert ((d_pred != 0) == (each > 0)).all()
    spoiled = np.where(each > 0, pred, np.nan)
    assert loss(spoiled, target, mask, weights)[0] == value
    parts = loss.parts(pred, target, mask, weights)
    np.testing.assert_allclose(parts[:2], [(each * terms).sum(), total], rtol=2e-6)
    assert_close(parts[2], d_pred.astype(float) * total, dtype)
    pred = pred.astype(float)
    _, d_pred = loss(pred, target, mask, weights)
    assert_slope(d_pred, lambda: loss(pred, target, mask, weights)[0], pred)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("class_weight", [None, [0.5, 2, 0, 1, 3]])
def test_cross_entropy_with_weights_by_loops(rng, dtype, smoothing, class_weight):
    mask, weights = masks(rng)[3], rng.random((3, 4)).astype(dtype)
    logits = (3 * rng.standard_normal((3, 4, 5))).astype(dtype)
    labels = rng.integers(0, 5, (3, 4))
    of_class = class_weight or [1.0] * 5
    total = weight = 0.0
    for index in np.ndindex(labels.shape):
        if kept(mask, index):
            scores = [float(score) for score in logits[index]]
            normalizer = log(sum(map(exp, scores)))
            terms = [c * (normalizer - s) for c, s in zip(of_class, scores, strict=True)]
            mixed = (1 - smoothing) * terms[labels[index]] + smoothing * sum(terms) / 5
            total += float(weights[index]) * mixed
            weight += float(weights[index]) * of_class[labels[index]]
    options = {"class_weight": class_weight, "label_smoothing": smoothing}
    loss, d_logits = losses.cross_entropy(logits, labels, mask, weights, **options)
    np.testing.assert_allclose(loss, total / weight, rtol=2e-6)
    assert d_logits.dtype == dtype
    parts = losses.cross_entropy.parts(logits, labels, mask, weights, **options)
    np.testing.assert_allclose(parts[:2], [total, weight], rtol=2e-6)
    logits = logits.astype(float)
    _, d_logits = losses.cross_entropy(logits, labels, mask, weights, **options)
    assert_slope(
        d_logits, lambda: losses.cross_entropy(logits, labels, mask, weights, **options)[0], logits
    )


def test_parts_of_batches_add_up(rng):
    pred, target, weights = rng.standard_normal((3, 7, 4))
    weights = np.abs(weights)
    whole, d_whole = losses.mse(pred, target, sample_weight=weights)
    parts = [
        losses.mse.parts(pred[rows], target[rows], sample_weight=weights[rows])
        for rows in (slice(0, 2), slice(2, 7))
    ]
    total, weight = (sum(part[k] for part in parts) for k in (0, 1))
    np.testing.assert_allclose(total / weight, whole, rtol=1e-14)
    gradients = np.concatenate([part[2] for part in parts]) / weight
    np.testing.assert_allclose(gradients, d_whole, rtol=1e-13)


@pytest.mark.parametrize("name", [*OF_A_POSITION, "cross_entropy"])
def test_parts_of_nothing_are_zero(name):
    target = np.ones((3, 2), int if name == "cross_entropy" else float)
    pred = np.ones((3, 2, 2) if name == "cross_entropy" else (3, 2))
    total, weight, gradient = getattr(losses, name).parts(pred, target, np.zeros(3, bool))
    assert total == weight == 0
    assert gradient.shape == pred.shape
    assert not gradient.any()


def test_more_losses_as_torch(rng, dtype):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    pred, target = 2 * rng.standard_normal((2, 6, 5)).astype(dtype)
    labels, share = rng.integers(0, 5, 6), rng.random((6, 5)).astype(dtype)
    weights = rng.random(5).astype(dtype)
    theirs, their_labels = torch.tensor(pred, requires_grad=True), torch.tensor(labels)
    options = {"class_weight": weights, "label_smoothing": 0.2}
    their_options = {"weight": torch.tensor(weights), "label_smoothing": 0.2}
    for (loss, gradient), their_loss in (
        (losses.mae(pred, target), functional.l1_loss(theirs, torch.tensor(target))),
        (
            losses.huber(pred, target, delta=0.7),
            functional.huber_loss(theirs, torch.tensor(target), delta=0.7),
        ),
        (
            losses.binary_cross_entropy(pred, share),
            functional.binary_cross_entropy_with_logits(theirs, torch.tensor(share)),
        ),
        (
            losses.cross_entropy(pred, labels, **options),
            functional.cross_entropy(theirs, their_labels, **their_options),
        ),
    ):
        (their_gradient,) = torch.autograd.grad(their_loss, theirs)
        np.testing.assert_allclose(loss, their_loss.item(), rtol=1e-5)
        assert_close(gradient, their_gradient.numpy(), dtype)


def test_binary_cross_entropy_is_stable(dtype):
    logits = np.array([1e30, -np.inf, np.inf, -1e4, 80, -80], dtype)
    target = np.array([1, 0, 1, 1, 1, 0], dtype)
    loss, d_logits = losses.binary_cross_entropy(logits, target)
    np.testing.assert_allclose(loss, (1e4 + 2 * exp(-80)) / 6, rtol=1e-6)
    expected = np.array([0, 0, 0, -1, -exp(-80), exp(-80)]) / 6
    np.testing.assert_allclose(d_logits, expected, rtol=1e-6)


def test_two_steps_of_training(dtype):
    """A golden of tensorflow/tfjs (Apache-2.0): tfjs-layers/src/layers/recurrent_test.ts."""
    hard = ("hard_sigmoid", "tanh", "tanh")
    lstm = fl.LSTM(4, 1, bias=False, activations=hard, dtype=dtype)
    dense = fl.Linear(1, 1, bias=False, dtype=dtype)
    lstm.load_state_dict({name: 0 * array for name, array in lstm.parameters().items()})
    dense.load_state_dict({"weight": [[1.0]]})
    optimizers = fl.optim.SGD(lr=1.0), fl.optim.SGD(lr=1.0)
    for _ in range(2):
        (y, _), lstm_tape = lstm.forward(np.ones((3, 5, 4)))
        result, dense_tape = dense.forward(y[-1])
        _, dresult = losses.mse(result, np.ones((5, 1)))
        of_dense = dense.backward(dense_tape, dresult)
        dy = np.zeros_like(y)
        dy[-1] = of_dense.x
        optimizers[0].step(lstm, lstm.backward(lstm_tape, dy))
        optimizers[1].step(dense, of_dense)
    kernel = np.repeat([[0.11455188], [0.06545822], [0.8760446], [0.18237013]], 4, axis=1)
    recurrent = [[0.02831176], [0.01934617], [0.00025817], [0.05784169]]
    np.testing.assert_allclose(lstm.weight_ih_l0, kernel, atol=1e-5)
    np.testing.assert_allclose(lstm.weight_hh_l0, recurrent, atol=1e-5)
    np.testing.assert_allclose(dense.weight, [[1.4559253]], atol=1e-5)


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
        (lambda: losses.mse(np.ones((8, 8)), np.ones(8)), ValueError, "target: .*broadcast=True"),
        (lambda: losses.mae(P, 0), ValueError, "target: "),
        (lambda: losses.mse(P, np.ones((3, 4)), broadcast=True), ValueError, "target: "),
        (lambda: losses.mse(P, P, broadcast=1), TypeError, "broadcast: "),
        (lambda: losses.mse(P, P, sample_weight=P - 2), ValueError, "sample_weight: "),
        (lambda: losses.mse(P, P, sample_weight=[1, 2, np.nan]), ValueError, "sample_weight: "),
        (lambda: losses.mse(P, P, sample_weight=np.ones(4)), ValueError, "sample_weight: "),
        (lambda: losses.mse(P, P, sample_weight=P * 0), ValueError, "mask: .*nothing"),
        (lambda: losses.huber(P, P, delta=0), ValueError, "delta: "),
        (lambda: losses.binary_cross_entropy(P, P + 1), ValueError, "target: .*0 to 1"),
        (lambda: losses.binary_cross_entropy(P, LABELS), ValueError, "target: .*logits"),
        (lambda: losses.cross_entropy(P, LABELS, class_weight=[1]), ValueError, "class_weight: "),
        (
            lambda: losses.cross_entropy(P, LABELS, class_weight=[1, -1]),
            ValueError,
            "class_weight: ",
        ),
        (
            lambda: losses.cross_entropy(P, LABELS, label_smoothing=1.1),
            ValueError,
            "label_smoothing: ",
        ),
        (lambda: losses.mse(np.ones(2), P), ValueError, "target: "),
        (lambda: losses.mse(P, None), TypeError, "target: "),
        (lambda: losses.mse(P + 1j, P), TypeError, "pred: "),
        (lambda: losses.mse([[1.0], [1.0, 2.0]], P), ValueError, "pred: "),
        (lambda: losses.mse(np.ma.ones(2), 0), TypeError, "pred: .*masked"),
        (lambda: losses.mse(P, P, np.ones((4, 2), bool)), ValueError, r"mask: .*got \(4, 2\)"),
        (lambda: losses.mse(P, P, np.ones((3, 1), bool)), ValueError, "mask: "),
        (lambda: losses.mse(P, P, np.ones((3, 4, 2, 1), bool)), ValueError, "mask: "),
        (lambda: losses.mse(P, P, np.ones(3, complex)), TypeError, "mask: .*complex128"),
        (lambda: losses.mse(P, P, np.arange(3)), ValueError, "mask: .*got 2"),
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
        (lambda: losses.cross_entropy(P, LABELS, 2 * LABELS), ValueError, "mask: .*got 2"),
        (lambda: losses.cross_entropy(P, LABELS, LABELS < 0), ValueError, "mask: .*nothing"),
        (lambda: losses.cross_entropy(P[:0], LABELS[:0]), ValueError, "mask: .*nothing"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("kind", [int, np.float32])
@pytest.mark.parametrize("name", ["mse", "mae", "huber", "cross_entropy", "binary_cross_entropy"])
def test_a_mask_of_0_and_1(rng, name, kind):
    loss, pred = getattr(losses, name), rng.standard_normal(SHAPE)
    mask = rng.random(SHAPE[:2]) < 0.5
    mask[0, 0], mask[1, 1] = True, False
    shape = SHAPE[:2] if name == "cross_entropy" else SHAPE
    target = rng.integers(0, 2, shape)
    np.testing.assert_equal(loss(pred, target, mask.astype(kind)), loss(pred, target, mask))


def test_smoothing_ignores_classes_of_weight_0():
    """Even where their logit is -inf: 0 · inf would be NaN."""
    loss, slope = fl.losses.cross_entropy(
        [[0.0, 0.0, -np.inf]], [0], class_weight=[1, 1, 0], label_smoothing=0.3
    )
    assert loss == pytest.approx(0.9 * log(2))
    assert np.isfinite(slope).all()
