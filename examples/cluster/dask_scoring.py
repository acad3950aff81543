"""A search and bulk scoring by two workers of Dask: python examples/cluster/dask_scoring.py

Which of three frequencies has a noisy wave? Dask's workers search for a learning rate and a size;
then they score more waves than any process holds, and keep nothing but the counts. (In a folder of
its own, since examples/distributed.py would hide the package `distributed`.)
"""

import sys

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

import fastlstm.dask
from fastlstm.sklearn import LSTMClassifier

CLASSES, STEPS = 3, 40


def waves(n, seed):
    """Waves (n, STEPS, 1) and their classes (n,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=n)
    phases = rng.uniform(0, 2 * np.pi, (n, 1))
    clean = np.sin((1 + labels[:, None]) * np.arange(STEPS) / 6 + phases)
    noisy = clean + rng.normal(0, 0.5, clean.shape)
    return noisy[:, :, None].astype(np.float32), labels


def block(block_info):
    """Waves of one chunk, made where they are scored; others read them from files."""
    begin, end = block_info[None]["array-location"][0]
    return waves(end - begin, seed=begin + 1)[0]


def main(quick):
    sequences, size, rows = (90, 2_000, 500) if quick else (300, 200_000, 10_000)
    x, labels = waves(sequences, seed=0)
    model = LSTMClassifier(max_epochs=30 if quick else 60, random_state=0)
    search = GridSearchCV(model, {"hidden_size": [16, 32], "lr": [5e-3, 2e-2]}, cv=3)
    chunks = ((rows,) * (size // rows), STEPS, 1)
    many = da.map_blocks(block, chunks=chunks, meta=np.empty((0, 0, 0), np.float32))
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster), parallel_config("dask"):
        search.fit(x, labels)
        found = fastlstm.dask.predict(search.best_estimator_, many)
        counts = da.bincount(found, minlength=CLASSES).compute()
        first = found[:100].compute()
    print(f"{search.best_score_:.0%} of the waves are right with {search.best_params_}")
    print(f"of {size} others, {counts} have these frequencies")
    alone = search.best_estimator_.predict(many[:100].compute())
    assert (first == alone).all(), "expected the bits of one process"
    assert search.best_score_ > (0.5 if quick else 0.9), "expected more right ones"


if __name__ == "__main__":  # the workers import this file
    main("--quick" in sys.argv)
