"""First calls and busy neighbors: `python -m bench.busy`.

Prints two tables for a layer of 256 units at batch 1, on one thread and on two. In fresh
processes: the first call beside the median of later ones. In one process, beside k busy
processes: mean, median and worst call. The threads take turns, so that both meet the same
neighbors.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np

import fastlstm as fl
from bench.origin import ROOT

SHAPE = T, B, I, H = 2000, 1, 8, 256
THREADS = (1, 2)
LATER = 9  # calls after the first


def calls(threads: int, count: int) -> list[float]:
    """Milliseconds of each of `count` calls."""
    fl.set_num_threads(threads)
    layer = fl.LSTM(I, H, rng=0)
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    layer(x[:1])  # packs the weights; too little work for a second thread
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        layer(x)
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


@contextmanager
def neighbors(count: int):
    """So many processes that do nothing but compute."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.2 if busy else 0)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def fresh(threads: int) -> list[float]:
    """`calls` in a process of its own."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "bench.busy", "--worker", str(threads)]
    environment = {**os.environ, "PYTHONPATH": path}
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8, help="fresh ones for each line")
    parser.add_argument("--rounds", type=int, default=20, help="turns of 10 calls")
    parser.add_argument("--neighbors", type=int, nargs="*", default=[0, 1, 2, 4])
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        print(json.dumps(calls(asked.worker, 1 + LATER)))
        return
    print(f"ms a call at (T, B, I, H) = {SHAPE}\n")
    print("neighbors  threads   first: median    worst   later: median")
    for count in asked.neighbors[:2]:
        with neighbors(count):
            for threads in THREADS:
                taken = [fresh(threads) for _ in range(asked.processes)]
                first = [each[0] for each in taken]
                later = statistics.median(one for each in taken for one in each[1:])
                print(
                    f"{count:9} {threads:8} {statistics.median(first):15.1f} {max(first):8.1f}"
                    f" {later:15.1f}"
                )
    print("\nneighbors  threads       mean    median     worst")
    for count in asked.neighbors:
        with neighbors(count):
            taken = {threads: [] for threads in THREADS}
            for _ in range(asked.rounds):
                for threads in THREADS:
                    taken[threads] += calls(threads, 10)
        for threads, times in taken.items():
            print(
                f"{count:9} {threads:8} {statistics.mean(times):10.1f}"
                f" {statistics.median(times):9.1f} {max(times):9.1f}"
            )


if __name__ == "__main__":
    main()
