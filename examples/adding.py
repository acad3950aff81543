"""The adding problem: two marked numbers of a long sequence, added (Hochreiter & Schmidhuber 1997).

A step holds a number and a marker. An LSTM solves the task when its last 2,000 sequences were all
right. A plain RNN of equal size gets as many sequences as the paper's LSTM needed, and does not.
"""

import sys

import numpy as np

import fastlstm as fl


def make_batch(rng, T, rows=4):
    """Sequences of T to 1.1 T steps, sequences first."""
    lengths, row = rng.integers(T, T + T // 10 + 1, rows), np.arange(rows)
    first, second = rng.integers(10, size=rows), rng.integers(T // 2 - 2, size=rows)
    second += second >= first  # among those that are not marked yet
    numbers, markers = rng.uniform(-1, 1, (rows, lengths.max())), np.zeros((rows, lengths.max()))
    markers[row, first] = markers[row, second] = 1
    markers[:, 0] = markers[row, lengths - 1] = -1  # so a mark on the first number is lost
    added = (numbers * (markers == 1)).sum(axis=1, keepdims=True)
    return fl.training.Batch(np.stack([numbers, markers], axis=2), 0.5 + added / 4, lengths)


def right(pred, target):
    return (abs(pred - target) < 0.04).all(axis=1)


class Solved:
    """Stops when four epochs of 500 sequences were all right."""

    def on_epoch_end(self, run):
        return run.history["right"][-4:].sum() == 4


def solve(model, T=100, budget=74_000, seed=0, loss="mse", make_batch=make_batch, right=right):
    """Train on new sequences; return how many it took, or None if `budget` was too few."""
    schedule = fl.schedules.cosine(1e-2, budget // 4)
    trainer = fl.Trainer(model, loss, fl.optim.Adam(), schedule=schedule, clip_norm=1.0)

    def batches(epoch):
        rng = np.random.default_rng([seed, epoch])
        return (make_batch(rng, T) for _ in range(125))

    options = {"metrics": right, "callbacks": Solved(), "progress": False}
    history = trainer.fit(batches, epochs=budget // 500, **options)
    return 500 * history.epochs if history.stopped_by == "callback" else None


if __name__ == "__main__":
    T, budget = (20, 20_000) if "--quick" in sys.argv else (100, 74_000)
    for layer in (fl.LSTM(2, 16, init="chrono", t_max=T, rng=0), fl.RNN(2, 16, rng=0)):
        took = solve(fl.Sequential(layer, fl.Last(), fl.Linear(16, 1, rng=0)), T, budget)
        print(f"T = {T}: {type(layer).__name__} needs {took or f'more than {budget}'} sequences")
        assert (took is not None) == isinstance(layer, fl.LSTM)
