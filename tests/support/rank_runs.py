"""Training runs that one process and several ranks do alike."""

import numpy as np

import fastlstm as fl


def data(rows=37, longest=11, seed=0):
    """Ragged sequences, their running sums, and a weight for each."""
    rng = np.random.default_rng(seed)
    x = [rng.standard_normal((n, 3)) for n in rng.integers(1, longest, rows)]
    return x, [one.cumsum(axis=0) for one in x], rng.uniform(0.1, 3, rows)


def model(dtype=np.float64, p=0.2, rng=0):
    return fl.Sequential(
        fl.LSTM(*(3, 5, 2), dropout=p, zoneout=(p, p), recurrent_dropout=p, dtype=dtype, rng=rng),
        fl.Dropout(p),
        fl.Linear(5, 3, dtype=dtype, rng=rng),
    )


def error(pred, target):
    return np.abs(pred - target).mean(axis=-1)


def trainer(comm=None, dtype=np.float64, *, p=0.2, loss="mse", **options):
    options = {"schedule": fl.schedules.linear(0.02, 20), "clip_norm": 0.5, "seed": 3} | options
    return fl.Trainer(model(dtype, p), loss, fl.optim.Adam(1e-2), comm=comm, **options)


def fit(comm=None, dtype=np.float64, *, rows=37, deterministic=False, **options):
    """Train on ragged rows with dropout, clipping, a schedule, weights and validation."""
    x, y, weight = data(rows)
    one = trainer(comm, dtype, deterministic=deterministic)
    options = {"epochs": 3, "batch_size": 7, "validation": 0.2, "metrics": error} | options
    history = one.fit(x, y, sample_weight=weight, progress=False, **options)
    return one, history


def distance(model, other):
    """The largest difference of an entry, in units of the largest entry of its array."""
    ours, theirs = (
        one.state_dict() if isinstance(one, fl.Module) else one for one in (model, other)
    )
    return max(
        float(np.abs(ours[name] - theirs[name]).max() / np.abs(ours[name]).max()) for name in ours
    )
