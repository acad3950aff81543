"""Clipping of gradients by their norm."""

from collections.abc import Sequence

import numpy as np

from fastlstm.checks import brief, quiet, read_number
from fastlstm.module import Gradients
from fastlstm.training.optim.base import check_params

CHUNK = 8192  # numbers whose float64 copies fit the first two caches


def clip_grad_norm(grads: Gradients | Sequence[Gradients], max_norm: float) -> float:
    """Scale gradients down to a global norm of at most `max_norm` (Pascanu et al. 2013).

    Parameters
    ----------
    grads : Gradients or list of Gradients
        All arrays in `params` are scaled in place, as one vector. `x` and `state` do not change.
    max_norm : float
        Above 0; infinity to measure the norm only.

    Returns
    -------
    norm : float
        The norm before the scaling, accumulated in float64. If it is not finite, nothing is scaled.

    Raises
    ------
    ValueError
        `max_norm` is not above 0.
    TypeError
        `grads` is not Gradients, or a gradient is not a writable array of floats.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> grads = fl.Gradients(params={"a": np.array([3.0]), "b": np.array([4.0])})
    >>> fl.optim.clip_grad_norm(grads, 1.0)
    5.0
    >>> grads.params["b"].tolist()
    [0.8]
    """
    measures = isinstance(max_norm, (float, np.floating)) and max_norm == np.inf
    if not measures:
        max_norm = read_number("max_norm", max_norm, 0, np.inf, open_below=True)
    group = [grads] if isinstance(grads, Gradients) else grads
    if not isinstance(group, (list, tuple)) or not all(isinstance(g, Gradients) for g in group):
        raise TypeError(f"grads: expected Gradients or a list of them, got {brief(grads)}")
    for k, gradients in enumerate(group):
        check_params("grads" if gradients is grads else f"grads[{k}]", gradients)
    every = [array for gradients in group for array in gradients.params.values()]
    for array in every:
        if (
            not isinstance(array, np.ndarray)
            or isinstance(array, np.ma.MaskedArray)
            or array.dtype.kind != "f"
            or not (array.flags.writeable or measures)
        ):
            raise TypeError("grads: expected params that are writable arrays of floats")
    with quiet():
        norm = _norm(every)
        if np.isfinite(norm) and norm > max_norm:
            for array in {id(array): array for array in every}.values():
                np.multiply(array, max_norm / norm, out=array, dtype=_wide(max_norm / norm, array))
    return norm


def _norm(arrays: Sequence[np.ndarray]) -> float:
    """The norm of all arrays together; their squares may be beyond float64's range."""
    square = sum(map(_square_sum, arrays), 0.0)
    if not 1e-280 < square < np.inf:
        largest = float(max((np.abs(array).max(initial=0) for array in arrays), default=0))
        if 0 < largest < np.inf:
            scaled = (np.divide(array, largest, dtype=np.float64) for array in arrays)
            return largest * float(np.sqrt(sum(np.square(array).sum() for array in scaled)))
    return float(np.sqrt(square))


def _square_sum(array: np.ndarray) -> float:
    """The sum of squares in float64, with float64 copies of few numbers at a time."""
    flat = array.reshape(-1)
    parts = (flat[start : start + CHUNK] for start in range(0, flat.size, CHUNK))
    wide = (part.astype(np.float64, copy=False) for part in parts)
    return sum((float(part @ part) for part in wide), 0.0)


def _wide(factor: float, array: np.ndarray) -> np.dtype:
    """The dtype in which `array` can be multiplied by `factor`."""
    if factor >= np.finfo(array.dtype).tiny:
        return array.dtype
    return np.dtype(np.float64)
