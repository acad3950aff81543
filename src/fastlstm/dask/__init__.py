"""Predictions for more sequences than one process holds, by Dask.

Examples
--------
>>> import dask.array as da, fastlstm as fl
>>> import fastlstm.dask
>>> model = fl.Sequential(fl.LSTM(3, 5, rng=0), fl.Last(), fl.Linear(5, 2, rng=0))
>>> fastlstm.dask.predict(model, da.ones((1000, 7, 3), chunks=(400, 7, 3)))
dask.array<predict, shape=(1000, 2), dtype=float32, chunksize=(400, 2), chunktype=numpy.ndarray>
"""

try:
    import dask.array
    import dask.bag  # noqa: F401
except ImportError as error:
    from fastlstm.checks import missing

    raise missing("fastlstm.dask", "dask", "dask") from error

from fastlstm.dask.scoring import predict

__all__ = ["predict"]
