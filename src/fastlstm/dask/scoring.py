"""Predictions for Dask arrays and bags."""

from typing import Any

import dask
import dask.array as da
import dask.bag as db
import numpy as np

from fastlstm.dask.scorer import Scorer


def predict(
    model: Any,
    X: Any,
    *,
    lengths: Any = None,
    mask: Any = None,
    method: str = "predict",
    batch_size: int | None = None,
    threads: int | None = 1,
) -> Any:
    """Predict, one task for each chunk of X; the bits are those of one process.

    Nothing of X is computed before the result is. With a `distributed.Client`, a copy of the model
    is sent to its workers now, once to each, and that client is to compute the result; without
    one, it is one key of the graph. Training the model later does not change the result.

    Parameters
    ----------
    model : Module or fitted estimator
        A Module of any layout; a recurrent one without its state. Of another library's estimators
        all that is needed is the method.
    X : dask array (N, T, ...) or dask bag of arrays (T_k, ...)
        An array has chunks along its first axis alone; their sizes may be unknown.
    lengths : array (N,) of ints, optional
        Steps of each row of an array, from dask or not; what is behind does not count.
    mask : bool array (N, T), optional
        False, or 0, at steps of an array to skip, from dask or not.
    method : str
        Of an estimator: "predict_proba", for example.
    batch_size : int, optional
        Rows of a chunk that a Module computes together; 32 if None.
    threads : int, optional
        The most threads of one task. Workers run as many tasks at once as they have cores, so more
        than one is for workers with one task on several cores. With None, it is the number of the
        worker's process (`get_num_threads`), and an estimator's own. Modules of one's own whose
        calls have no `threads`, and estimators within others, keep theirs, too.

    Returns
    -------
    dask array (N, ...), or of every step (N, T, ...); dask bag if X is one
        An array of the model's dtype, with the chunks of X along the first axis and one chunk
        along others. A bag has one result for each sequence: (...), or (T_k, ...).

    Raises
    ------
    ValueError, TypeError
        An argument does not fit. What depends on the values in X, `lengths` and `mask` is found
        when they are computed.

    Examples
    --------
    >>> import dask.bag, numpy as np, fastlstm as fl
    >>> model = fl.LSTM(3, 5, rng=0)
    >>> sequences = dask.bag.from_sequence([np.ones((n, 3)) for n in (4, 2, 9)])
    >>> predictions = fl.dask.predict(model, sequences)
    >>> [one.shape for one in predictions.compute(scheduler="threads")]
    [(4, 5), (2, 5), (9, 5)]
    """
    scorer = Scorer(model, method, batch_size, threads)
    if isinstance(X, db.Bag):
        for name, value in (("lengths", lengths), ("mask", mask)):
            if value is not None:
                raise ValueError(f"{name}: X is a bag, so expected None")
        return X.map_partitions(_predict_list, scorer=_shared(scorer))
    if not isinstance(X, da.Array):
        raise TypeError(f"X: expected a dask array or bag, got {type(X).__name__}")
    _check_chunks(X)
    rows = _read_rows("lengths", lengths, X, "iu"), _read_rows("mask", mask, X, "biuf")
    example = _of_zeros(scorer, X, rows)
    axes = tuple(range(X.ndim))
    new_axes = {X.ndim + k: size for k, size in enumerate(example.shape[1:])}
    arrays = [(one, None if one is None else axes[: one.ndim]) for one in (X, *rows)]
    return da.blockwise(
        _predict_array,
        (0, *new_axes),
        *(part for pair in arrays for part in pair),
        scorer=_shared(scorer),
        empty=example[:0],
        token="predict",
        new_axes=new_axes,
        align_arrays=False,
        concatenate=True,
        dtype=example.dtype,
        meta=np.empty((0,) * example.ndim, example.dtype),
    )


def _predict_array(x: Any, lengths: Any, mask: Any, *, scorer: Scorer, empty: np.ndarray) -> Any:
    return np.asarray(scorer(x, lengths, mask)) if len(x) else empty


def _predict_list(sequences: Any, *, scorer: Scorer) -> list[Any]:
    sequences = list(sequences)
    return list(scorer(sequences)) if sequences else []


def _shared(scorer: Scorer) -> Any:
    """What stands for the scorer in a graph, once for all tasks."""
    try:
        from distributed import default_client

        client = default_client()
    except (ImportError, ValueError):  # not installed; no client
        client = None
    if client is None or client.asynchronous:
        return dask.delayed(scorer, traverse=False)
    return client.scatter(scorer, broadcast=True, hash=False)


def _check_chunks(X: Any) -> None:
    if X.ndim < 2:
        raise ValueError(f"X: expected shape (N, T, ...), got {X.shape}")
    for axis, blocks in enumerate(X.chunks):
        if axis and len(blocks) > 1:
            raise ValueError(
                f"X: expected chunks along axis 0 alone, got {len(blocks)} along axis {axis}: "
                f"X.rechunk({{{axis}: -1}}) joins them"
            )
    if np.isnan(X.shape[1:]).any():
        raise ValueError(f"X: expected known sizes after axis 0, got {X.shape}")


def _read_rows(name: str, value: Any, X: Any, kinds: str) -> Any:
    """An array with a row for each row of X, as a dask array in the chunks of X."""
    if value is None:
        return None
    ndim, wanted = (2, "bools, or numbers 0 and 1") if name == "mask" else (1, "whole numbers")
    array = value if isinstance(value, da.Array) else np.asarray(value)
    if array.dtype.kind not in kinds:
        raise TypeError(f"{name}: expected {wanted}, got dtype {array.dtype}")
    shape = X.shape[:ndim]
    if array.ndim != ndim or not all(
        size == own or np.isnan(size) or np.isnan(own)
        for size, own in zip(array.shape, shape, strict=True)
    ):
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if not np.isnan([*shape, *array.shape]).any():
        return da.asarray(array).rechunk(X.chunks[:ndim])
    if not isinstance(array, da.Array) or array.numblocks != X.numblocks[:ndim]:
        raise ValueError(
            f"{name}: expected a dask array in the {X.numblocks[0]} chunks of X, whose sizes are "
            "unknown"
        )
    return array


def _of_zeros(scorer: Scorer, X: Any, rows: tuple[Any, Any]) -> np.ndarray:
    """The prediction for one sequence of zeros, for its shape and dtype."""
    x = np.zeros((1, *X.shape[1:]), X.dtype)
    lengths, mask = rows
    return np.asarray(
        scorer(
            x,
            None if lengths is None else np.array([x.shape[1]]),
            None if mask is None else np.ones(x.shape[:2], bool),
        )
    )
