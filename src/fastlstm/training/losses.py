"""Losses. Each returns its value and the gradient of the prediction."""

from typing import Any

import numpy as np

from fastlstm.checks import check_shape, quiet, read_array, read_bools, read_floats, read_integers


def mse(pred: Any, target: Any, mask: Any = None) -> tuple[float, np.ndarray]:
    """Return the mean of (pred - target)² over the positions that the mask keeps.

    Parameters
    ----------
    pred : array of any shape
    target : array that broadcasts to pred's shape
    mask : bool array or None
        pred's shape or a leading part of it, ``pred.shape[:k]``: True for positions that count.
        Numbers at other positions are ignored, even NaN.

    Returns
    -------
    loss : float
        Accumulated in float64.
    d_pred : array
        Gradient of the loss, in pred's shape and dtype; exactly zero where masked out.

    Raises
    ------
    ValueError
        A shape does not fit, or the mask keeps no position.
    TypeError
        An array does not hold real numbers, or the mask is not bool.
    """
    pred = read_floats("pred", pred)
    target = read_array("target", target, pred.dtype)
    try:
        target = np.broadcast_to(target, pred.shape)
    except ValueError:
        raise ValueError(
            f"target: expected a shape that broadcasts to pred's {pred.shape}, got {target.shape}"
        ) from None
    kept, count = _kept(mask, pred.shape)
    error = np.zeros(pred.shape, pred.dtype)
    with quiet():
        np.subtract(pred, target, out=error, where=kept)
        loss = np.square(error, dtype=np.float64).sum() / count
        error *= 2 / count
    return float(loss), error


def cross_entropy(logits: Any, labels: Any, mask: Any = None) -> tuple[float, np.ndarray]:
    """Return the mean of -log softmax(logits)[label] over the positions that the mask keeps.

    Parameters
    ----------
    logits : array (..., classes)
    labels : integer array (...)
        From 0 to classes - 1.
    mask : bool array or None
        labels' shape or a leading part of it: True for positions that count. Labels and logits at
        other positions are ignored, even a label of -1 or a logit of NaN.

    Returns
    -------
    loss : float
        In nats, accumulated in float64.
    d_logits : array
        Gradient of the loss, (softmax - one-hot) / (number of positions that count), in logits'
        shape and dtype; exactly zero where masked out.

    Raises
    ------
    ValueError
        A shape does not fit, a label that counts is not a class, or the mask keeps no position.
    TypeError
        The logits are not real numbers, the labels not integers, or the mask not bool.
    """
    logits = read_floats("logits", logits)
    if logits.ndim == 0:
        raise ValueError("logits: expected shape (..., classes), got ()")
    labels = read_integers("labels", labels)
    check_shape("labels", labels, *logits.shape[:-1])
    kept, count = _kept(mask, labels.shape)
    label, classes = labels[kept], logits.shape[-1]
    if not 0 <= label.min() <= label.max() < classes:
        raise ValueError(f"labels: expected 0 to {classes - 1}, got {label.min()} to {label.max()}")
    score = logits[kept]  # [count, classes]
    at_label = np.arange(count), label
    with quiet():
        score -= score.max(axis=1, keepdims=True)  # so that exp cannot overflow
        score_at_label = score[at_label]
        softmax = np.exp(score, out=score)
        # In float64: for a good prediction the sum is just above 1, and its logarithm is the loss.
        total = softmax.sum(axis=1, dtype=np.float64)
        loss = (np.log(total) - score_at_label).sum() / count
        softmax /= total[:, None].astype(logits.dtype)
        softmax[at_label] -= 1
        softmax /= count
    d_logits = np.zeros(logits.shape, logits.dtype)
    d_logits[kept] = softmax
    return float(loss), d_logits


def _kept(mask: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The mask, broadcast to `shape`, and how many positions it keeps."""
    mask = np.True_ if mask is None else read_bools("mask", mask)
    if mask.shape != shape[: mask.ndim]:
        raise ValueError(f"mask: expected shape {shape} or a leading part of it, got {mask.shape}")
    kept = np.broadcast_to(mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)
    count = int(np.count_nonzero(kept))
    if not count:
        raise ValueError("mask: expected to keep something, but nothing is left to average")
    return kept, count
