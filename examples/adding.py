"""The adding problem: two marked numbers of a long sequence, added (Hochreiter & Schmidhuber 1997).

The task is solved when the last 2,000 sequences were all right. An LSTM that remembers for about
`t_max` steps from the start does that in fewer sequences than the paper's; a plain RNN does not.
"""

import sys

import numpy as np

import fastlstm as fl


def make_batch(rng, T, rows=4):
    """Sequences of T to 1.1 T steps; a step is a number and a marker."""
    lengths, row = rng.integers(T, T + T // 10 + 1, rows), np.arange(rows)
    first, second = rng.integers(10, size=rows), rng.integers(T // 2 - 2, size=rows)
    second += second >= first  # among those that are not marked yet
    numbers, markers = rng.uniform(-1, 1, (rows, lengths.max())), np.zeros((rows, lengths.max()))
    markers[row, first] = markers[row, second] = 1
    markers[:, 0] = markers[row, lengths - 1] = -1  # so a mark on the first number is lost
    y = 0.5 + (numbers * (markers == 1)).sum(axis=1, keepdims=True) / 4
    return fl.training.Batch(np.stack([numbers, markers], axis=2), y, lengths)


def right(pred, target):
    return (abs(pred - target) < 0.04).all(axis=1)


class Solved:
    def on_epoch_end(self, run):
        return run.history["right"][-4:].sum() == 4  # epochs of 500 sequences


ADDING = {"sizes": (2, 1), "loss": "mse", "make_batch": make_batch, "right": right}


def solve(cell, T, budget, seed, sizes, loss, make_batch, right):
    """Train; return how many sequences it took, or None if `budget` was too few."""
    options = {"init": "chrono", "t_max": T} if cell is fl.LSTM else {}
    layer, dense = cell(sizes[0], 16, rng=seed, **options), fl.Linear(16, sizes[1], rng=seed)
    model, schedule = fl.Sequential(layer, fl.Last(), dense), fl.schedules.cosine(1e-2, budget // 4)
    trainer = fl.Trainer(model, loss, fl.optim.Adam(), schedule=schedule, clip_norm=1.0)

    def batches(epoch):  # new ones in every epoch
        rng = np.random.default_rng([seed, epoch])
        return (make_batch(rng, T) for _ in range(125))

    watch = {"metrics": right, "callbacks": Solved(), "progress": False}
    history = trainer.fit(batches, epochs=budget // 500, **watch)
    return 500 * history.epochs if history.stopped_by == "callback" else None


if __name__ == "__main__":
    T, budget = (12, 12_000) if "--quick" in sys.argv else (100, 74_000)
    for cell in (fl.LSTM, fl.RNN)[: 1 + (T == 100)]:
        took = solve(cell, T, budget, 0, **ADDING)
        print(f"T = {T}: {cell.__name__} needs {took or f'more than {budget}'} sequences")
        assert bool(took) == (cell is fl.LSTM)
