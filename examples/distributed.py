"""One model, trained by several processes: did the larger of two marked numbers come first?

    mpiexec -n 2 python -m mpi4py examples/distributed.py

By itself, or without mpi4py, it trains the same model alone: only rounding differs, which grows
with the number of steps and is small in float64.
"""

import sys

import numpy as np

import fastlstm as fl

try:
    from mpi4py import MPI
except (ImportError, RuntimeError):  # RuntimeError: there is mpi4py, but no MPI
    comm, rank, size = None, 0, 1
else:
    comm = MPI.COMM_WORLD
    rank, size = comm.rank, comm.size


def make(rng, count):
    """Return sequences (T_k, 2) of numbers and marks, and which of the two is larger."""
    x, labels = [], np.empty(count, int)
    for k, T in enumerate(rng.integers(8, 25, count)):
        one = np.stack([rng.uniform(-1, 1, T), np.zeros(T)], axis=1)
        first, second = np.sort(rng.choice(T, 2, replace=False))
        one[[first, second], 1] = 1
        labels[k] = one[first, 0] < one[second, 0]
        x.append(one)
    return x, labels


def main():
    count, epochs, bar = (1000, 8, 0.7) if "--quick" in sys.argv else (4000, 20, 0.95)
    rng = np.random.default_rng(0)  # so all ranks make the same data
    (x, labels), (new_x, new_labels) = make(rng, count), make(rng, count // 4)
    options = {"dtype": "float64", "rng": rank}  # the weights of rank 0 are everyone's
    lstm = fl.LSTM(2, 32, num_layers=2, dropout=0.1, **options)
    model = fl.Sequential(lstm, fl.Last(), fl.Linear(32, 2, **options))
    trainer = fl.Trainer(model, "cross_entropy", fl.optim.Adam(1e-2), clip_norm=1.0, comm=comm)
    trainer.fit(x, labels, epochs=epochs, batch_size=50)
    scores = trainer.evaluate(new_x, new_labels, metrics="accuracy")
    if rank == 0:
        print(f"{size} rank{'s' * (size > 1)}: loss {scores['loss']:.8f},", end=" ")
        print(f"{scores['accuracy']:.1%} of new sequences are right")
    assert scores["accuracy"] >= bar, f"expected an accuracy of {bar}"


if __name__ == "__main__":
    main()
