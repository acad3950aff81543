"""Losses. Each returns its value and the gradient of the prediction.

Common arguments: `mask` says which positions count, and `sample_weight` how much. The loss is
Σ w·l / Σ w over the positions that count, where l is the loss of a position and w its weight,
accumulated in float64. Numbers at positions that do not count, or whose weight is 0, are ignored,
even NaN, and their gradient is exactly zero.

``loss.parts(…)`` takes the arguments of a loss and returns Σ w·l, Σ w and the gradient of Σ w·l.
Parts of several batches add up, which means do not. Σ w may be 0.
"""

import inspect
import math
from collections.abc import Callable
from functools import wraps
from typing import Any, Protocol, cast

import numpy as np

from fastlstm.checks import (
    check_shape,
    quiet,
    read_array,
    read_bools,
    read_flag,
    read_floats,
    read_integers,
    read_number,
)

FLOAT64 = np.dtype(np.float64)


class _Positions:
    """The positions that count in arrays of shape (*shape, ...), and their weights."""

    def __init__(self, shape: tuple[int, ...], mask: Any, sample_weight: Any):
        self.shape = shape
        self.kept = None if mask is None else self._spread("mask", read_bools("mask", mask))
        self.weights = None  # [positions that count], float64; None for 1 each
        if sample_weight is None:
            return
        each = self._spread("sample_weight", read_array("sample_weight", sample_weight, FLOAT64))
        counted = each if self.kept is None else each[self.kept]
        if not (np.isfinite(counted) & (counted >= 0)).all():
            raise ValueError("sample_weight: expected finite numbers of at least 0")
        self.kept = each > 0 if self.kept is None else self.kept & (each > 0)
        self.weights = each[self.kept]

    def _spread(self, name: str, array: np.ndarray) -> np.ndarray:
        """`array` repeated along the later axes of `shape`; weights also along axes of length 1."""
        leading = self.shape[: array.ndim]
        fits = array.ndim <= len(self.shape) and all(
            own == size or (own == 1 and name == "sample_weight")
            for own, size in zip(array.shape, leading, strict=True)
        )
        if not fits:
            raise ValueError(
                f"{name}: expected shape {self.shape} or a leading part of it, got {array.shape}"
            )
        later = (1,) * (len(self.shape) - array.ndim)
        return np.broadcast_to(array.reshape(array.shape + later), self.shape)

    def of(self, array: np.ndarray) -> np.ndarray:
        """The positions of `array` that count, [count, ...]; a view if that is possible."""
        if self.kept is None:
            return array.reshape(math.prod(self.shape), *array.shape[len(self.shape) :])
        counted: np.ndarray = array[self.kept]
        return counted

    def back(self, counted: np.ndarray) -> np.ndarray:
        """An array of which `of` would give `counted`, with zeros at the other positions."""
        full = (*self.shape, *counted.shape[1:])
        if self.kept is None:
            return counted.reshape(full)
        array = np.zeros(full, counted.dtype)
        array[self.kept] = counted
        return array


class Loss(Protocol):
    """A loss."""

    def __call__(self, *args: Any, **options: Any) -> tuple[float, np.ndarray]:
        """Return the loss, a mean, and the gradient of the prediction."""

    def parts(self, *args: Any, **options: Any) -> tuple[float, float, np.ndarray]:
        """Return Σ w·l, Σ w, and the gradient of Σ w·l, of the same arguments as a call."""


# The losses of positions and their slopes, [count] and [count, ...]; and what each position counts
# in the mean beside its sample weight, if that is not 1.
_Terms = tuple[_Positions, np.ndarray, np.ndarray, np.ndarray | None]


def _loss(terms: Callable[..., _Terms]) -> Loss:
    """Make a loss, the weighted mean, of a function of its terms."""

    def parts(*args: Any, divide: bool = False, **options: Any) -> tuple[float, float, np.ndarray]:
        with quiet():
            positions, values, slopes, counts = terms(*args, **options)
            weights = positions.weights
            if weights is not None:
                values = values * weights
                counts = weights if counts is None else counts * weights
            weight = float(len(values) if counts is None else counts.sum())
            if divide and not weight:
                raise ValueError("mask: expected to keep something, but nothing is left to average")
            divisor = weight if divide else 1.0
            if weights is not None:
                factors = (weights / divisor).astype(slopes.dtype)
                slopes *= factors.reshape(-1, *(1,) * (slopes.ndim - 1))
            elif divide:
                slopes /= divisor
            return float(values.sum()), weight, positions.back(slopes)

    @wraps(terms)
    def mean(*args: Any, **options: Any) -> tuple[float, np.ndarray]:
        total, weight, gradient = parts(*args, divide=True, **options)
        return total / weight, gradient

    mean.parts = parts  # type: ignore[attr-defined]
    returned = tuple[float, np.ndarray]
    mean.__annotations__ = {**terms.__annotations__, "return": returned}
    signature = inspect.signature(terms).replace(return_annotation=returned)
    mean.__signature__ = signature  # type: ignore[attr-defined]
    return cast(Loss, mean)


@_loss
def mse(
    pred: Any, target: Any, mask: Any = None, sample_weight: Any = None, *, broadcast: bool = False
) -> _Terms:
    """Return the mean of (pred - target)² over the positions that count.

    Parameters
    ----------
    pred : array of any shape
    target : array of pred's shape
    mask : bool array or None
        pred's shape or a leading part of it, ``pred.shape[:k]``: True, or 1, for positions that
        count.
    sample_weight : array or None
        The weight of each position, at least 0: pred's shape or a leading part of it, where an axis
        may be 1. (N,) are weights of sequences if the sequences are pred's first axis, and (1, N)
        if they are its second.
    broadcast : bool
        Whether target may have any shape that broadcasts to pred's.

    Returns
    -------
    loss : float
        Σ w·l / Σ w, accumulated in float64.
    d_pred : array
        Gradient of the loss, in pred's shape and dtype; exactly zero where a position does not
        count.

    Raises
    ------
    ValueError
        A shape does not fit, a weight is negative, or no position counts.
    TypeError
        An array does not hold real numbers, or the mask no bools, nor 0 and 1.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> loss, d_pred = fl.losses.mse([1.0, 2.0, 3.0], [0.0, 2.0, np.nan], [True, True, False])
    >>> loss, d_pred.tolist()
    (0.5, [1.0, 0.0, 0.0])
    """
    positions, error = _errors(pred, target, mask, sample_weight, broadcast)
    return positions, np.square(error, dtype=np.float64), 2 * error, None


@_loss
def mae(
    pred: Any, target: Any, mask: Any = None, sample_weight: Any = None, *, broadcast: bool = False
) -> _Terms:
    """Return the mean of ``|pred - target|`` over the positions that count.

    Parameters
    ----------
    pred, target, mask, sample_weight, broadcast
        As of `mse`.

    Returns
    -------
    loss, d_pred
        As of `mse`; the gradient is 0 where pred equals target.

    Examples
    --------
    >>> import fastlstm as fl
    >>> loss, d_pred = fl.losses.mae([3.0, 1.0], [1.0, 1.0])
    >>> loss, d_pred.tolist()
    (1.0, [0.5, 0.0])
    """
    positions, error = _errors(pred, target, mask, sample_weight, broadcast)
    return positions, np.abs(error, dtype=np.float64), np.sign(error), None


@_loss
def huber(
    pred: Any,
    target: Any,
    mask: Any = None,
    sample_weight: Any = None,
    *,
    delta: float = 1.0,
    broadcast: bool = False,
) -> _Terms:
    """Return the mean of Huber's loss (1964) over the positions that count.

    With e = pred - target, it is ``e² / 2`` where ``|e| ≤ δ``, and ``δ (|e| - δ / 2)`` elsewhere.

    Parameters
    ----------
    pred, target, mask, sample_weight, broadcast
        As of `mse`.
    delta : float
        δ, above 0.

    Returns
    -------
    loss, d_pred
        As of `mse`.

    Examples
    --------
    >>> import fastlstm as fl
    >>> loss, d_pred = fl.losses.huber([3.0, 0.5], [0.0, 0.0])  # 2.5 and 0.125
    >>> loss, d_pred.tolist()
    (1.3125, [0.5, 0.25])
    """
    delta = read_number("delta", delta, 0, np.inf, open_below=True, open_above=True)
    positions, error = _errors(pred, target, mask, sample_weight, broadcast)
    size = np.abs(error, dtype=np.float64)
    inner = np.minimum(size, delta)
    return positions, inner * (size - inner / 2), np.clip(error, -delta, delta), None


@_loss
def cross_entropy(
    logits: Any,
    labels: Any,
    mask: Any = None,
    sample_weight: Any = None,
    *,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
) -> _Terms:
    """Return the mean of -log softmax(logits)[label] over the positions that count.

    Parameters
    ----------
    logits : array (..., classes)
    labels : integer array (...)
        From 0 to classes - 1. At positions that do not count, any number, even -1.
    mask, sample_weight
        As of `mse`, in labels' shape or a leading part of it.
    class_weight : array (classes,) or None
        At least 0. The weight of a position is multiplied by that of its label, so the loss is
        divided by the sum of both (torch).
    label_smoothing : float in [0, 1]
        ε: the loss of a position becomes 1 - ε times that of its label, plus ε times the mean over
        all classes, each times its own weight (Szegedy et al. 2016; torch).

    Returns
    -------
    loss : float
        In nats, accumulated in float64.
    d_logits : array
        Gradient of the loss, in logits' shape and dtype; exactly zero where a position does not
        count.

    Raises
    ------
    ValueError
        A shape does not fit, a label that counts is not a class, a weight is negative, or no
        position counts.
    TypeError
        The logits are not real numbers, the labels not integers, or the mask no bools,
        nor 0 and 1.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> loss, d_logits = fl.losses.cross_entropy(np.zeros((3, 2)), [0, 1, 1])
    >>> round(loss, 4), d_logits.shape  # the logarithm of 2 classes
    (0.6931, (3, 2))
    """
    logits = read_floats("logits", logits)
    if logits.ndim == 0:
        raise ValueError("logits: expected shape (..., classes), got ()")
    classes = logits.shape[-1]
    labels = read_integers("labels", labels)
    check_shape("labels", labels, *logits.shape[:-1])
    smoothing = read_number("label_smoothing", label_smoothing, 0, 1)
    positions = _Positions(labels.shape, mask, sample_weight)
    label = positions.of(labels)
    if label.size and not 0 <= label.min() <= label.max() < classes:
        raise ValueError(f"labels: expected 0 to {classes - 1}, got {label.min()} to {label.max()}")
    score = positions.of(logits)  # [count, classes]
    if label.size:
        score = score - score.max(axis=1, keepdims=True)  # so that exp cannot overflow
    at_label = np.arange(len(label)), label
    softmax = np.exp(score)
    # In float64: for a good prediction the sum is just above 1, and its logarithm is the loss.
    total = softmax.sum(axis=1, dtype=np.float64)
    log_total = np.log(total)
    values = log_total - score[at_label]
    softmax /= total[:, None].astype(logits.dtype)
    if class_weight is None and not smoothing:
        softmax[at_label] -= 1
        return positions, values, softmax, None
    by_class = _read_class_weight(class_weight, classes)
    counts = by_class[label]
    values *= (1 - smoothing) * counts
    wanted = np.zeros(score.shape)  # the weight of -log softmax of each class, [count, classes]
    if smoothing:
        wanted += smoothing / classes * by_class
        smooth = np.zeros(score.shape)
        np.multiply(log_total[:, None] - score, by_class, out=smooth, where=by_class > 0)
        values += smoothing / classes * smooth.sum(axis=1)
    wanted[at_label] += (1 - smoothing) * counts
    slopes = softmax * wanted.sum(axis=1, keepdims=True) - wanted
    return positions, values, slopes.astype(logits.dtype), counts


@_loss
def binary_cross_entropy(
    logits: Any,
    target: Any,
    mask: Any = None,
    sample_weight: Any = None,
    *,
    broadcast: bool = False,
) -> _Terms:
    """Return the mean of -t log σ(z) - (1 - t) log(1 - σ(z)) over the positions that count.

    Parameters
    ----------
    logits : array of any shape
        z, before the sigmoid.
    target : array of logits' shape
        t, from 0 to 1; bools too.
    mask, sample_weight, broadcast
        As of `mse`.

    Returns
    -------
    loss, d_logits
        As of `mse`.

    Examples
    --------
    >>> import fastlstm as fl
    >>> loss, d_logits = fl.losses.binary_cross_entropy([0.0, 0.0], [1.0, 0.0])
    >>> round(loss, 4), d_logits.tolist()
    (0.6931, [-0.25, 0.25])
    """
    logits, target = _pair("logits", logits, target, broadcast)
    positions = _Positions(logits.shape, mask, sample_weight)
    z, t = (positions.of(array).astype(np.float64) for array in (logits, target))
    if not ((t >= 0) & (t <= 1)).all():
        raise ValueError(f"target: expected numbers from 0 to 1, got {t.min():g} to {t.max():g}")
    small = np.exp(-np.abs(z))
    values = np.zeros(z.shape)  # where t is 0 or 1, one of the two terms is left out: z may be ±inf
    for share, sign in ((t, -1), (1 - t, 1)):
        softplus = np.maximum(sign * z, 0) + np.log1p(small)
        np.add(values, share * softplus, out=values, where=share > 0)
    sigmoid, opposite = (np.where(s * z >= 0, 1.0, small) / (1 + small) for s in (1, -1))
    slopes = (1 - t) * sigmoid - t * opposite  # not σ(z) - t: it would lose small numbers' digits
    return positions, values, slopes.astype(logits.dtype), None


def _errors(
    pred: Any, target: Any, mask: Any, sample_weight: Any, broadcast: Any
) -> tuple[_Positions, np.ndarray]:
    """The positions, and pred - target at those that count, [count]."""
    pred, target = _pair("pred", pred, target, broadcast)
    positions = _Positions(pred.shape, mask, sample_weight)
    return positions, positions.of(pred) - positions.of(target)


def _pair(name: str, pred: Any, target: Any, broadcast: Any) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and target, in the prediction's shape and dtype."""
    pred = read_floats(name, pred)
    target = read_array("target", target, pred.dtype)
    if not read_flag("broadcast", broadcast):
        if target.shape != pred.shape:
            raise ValueError(
                f"target: expected {name}'s shape {pred.shape}, got {target.shape}; "
                "broadcast=True repeats a smaller one"
            )
        return pred, target
    try:
        return pred, np.broadcast_to(target, pred.shape)
    except ValueError:
        raise ValueError(
            f"target: expected a shape that broadcasts to {name}'s {pred.shape}, got {target.shape}"
        ) from None


def _read_class_weight(class_weight: Any, classes: int) -> np.ndarray:
    if class_weight is None:
        return np.ones(classes)
    weights = read_array("class_weight", class_weight, FLOAT64)
    check_shape("class_weight", weights, classes)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("class_weight: expected finite numbers of at least 0")
    return weights
