"""The measurements of `bench.scaling`, on the two ranks that it starts; rank 0 prints them as JSON.

What needs one rank is done by rank 0 while rank 1 sleeps, and in turns with what needs both.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from mpi4py import MPI

import fastlstm as fl

COMM = MPI.COMM_WORLD
CLASSES = 10
PAUSE = 0.25  # seconds in which the threads of the turn before stop spinning
ADDED = 2**23  # bytes of the arrays that are added


def main() -> None:
    """Measure what the first argument asks for."""
    asked = json.loads(sys.argv[1])
    rounds, steps, T, B, H = (asked[name] for name in ("rounds", "steps", "T", "B", "H"))
    counts = {H: sum(map(np.size, model(H).parameters().values())) for H in asked["sizes"]}
    buffers = sorted({*asked["buffers"], *(4 * count for count in counts.values())})
    runs = {f"reduce {size}": (2, reduction(size, asked["calls"])) for size in buffers}
    for size in counts:
        runs[f"alone {size}"] = 1, training(size, B, T, steps)
        runs[f"few {size}"] = 1, training(size, asked["few"], T, steps)
        runs[f"both {size}"] = 2, training(size, B, T, steps)
    runs["1 rank"] = 1, training(H, B, T, steps)
    runs["1 rank, 2 threads"] = 1, training(H, B, T, steps, threads=2)
    runs["2 ranks, one batch"] = 2, training(H, B, T, steps, comm=COMM)
    runs["2 ranks, two batches"] = 2, training(H, 2 * B, T, steps, comm=COMM)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (ranks, run) in runs.items():
            times[name].append(turn(ranks, run))
    found = {name: statistics.median(series) for name, series in times.items()}
    if COMM.rank == 0:
        print(json.dumps({"times": found, "parameters": counts, "add": addition()}))


def turn(ranks: int, run: Callable[[], float]) -> float:
    """Seconds of one step of `run`, on rank 0; other ranks run it too, or sleep."""
    time.sleep(PAUSE)
    COMM.Barrier()
    seconds = run() if COMM.rank < ranks else 0.0
    waiting = COMM.Ibarrier()
    while not waiting.Test():  # Barrier would keep a core busy
        time.sleep(1e-3)
    return seconds


def reduction(size: int, calls: int) -> Callable[[], float]:
    """Sums of `size` bytes of float32 in place, as a trainer's."""
    buffer = np.zeros(size // 4, np.float32)
    calls = max(3, min(calls, calls * 2**16 // size))

    def run() -> float:
        COMM.Allreduce(MPI.IN_PLACE, buffer)
        start = time.perf_counter()
        for _ in range(calls):
            COMM.Allreduce(MPI.IN_PLACE, buffer)
        return (time.perf_counter() - start) / calls

    return run


def model(H: int) -> fl.Sequential:
    """One LSTM layer of H units on H features, and classes."""
    return fl.Sequential(fl.LSTM(H, H, rng=0), fl.Last(), fl.Linear(H, CLASSES, rng=0))


def training(
    H: int, B: int, T: int, steps: int, *, threads: int = 1, comm: MPI.Comm | None = None
) -> Callable[[], float]:
    """Steps of a trainer, on batches of B rows; fewer of large models."""
    steps = max(2, min(steps, steps * 256 // H))
    shared = {} if comm is None else {"comm": comm}
    trainer = fl.Trainer(model(H), "cross_entropy", fl.optim.Adam(), clip_norm=1.0, **shared)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, T, H), dtype=np.float32)
    y = rng.integers(CLASSES, size=B)

    def run() -> float:
        fl.set_num_threads(threads)
        clock = Clock()
        trainer.fit([(x, y)] * (1 + steps), epochs=1, callbacks=clock, progress=False)
        return clock.seconds()

    return run


class Clock:
    """A callback that times steps; the first one warms up."""

    def __init__(self):
        self.times = []

    def on_step_end(self, run) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def seconds(self) -> float:
        """Seconds a step; 0 on ranks that have no callbacks."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1) if self.times else 0.0


def addition() -> float:
    """Seconds to add a byte of float32 to another,."""
    total, part = np.zeros(ADDED // 4, np.float32), np.ones(ADDED // 4, np.float32)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        total += part
        times.append(time.perf_counter() - start)
    return statistics.median(times) / ADDED


if __name__ == "__main__":
    main()
