"""Searches of scikit-learn by one process and by several: `python -m bench.search`.

A search is `GridSearchCV` over the hidden sizes of an `LSTMClassifier`, without the last fit of the
best. With one thread a fit, processes are all that makes it faster; with the default, joblib gives
each process its share of the cores, so that processes and threads take turns, not each other's
cores. The workers have begun before, and all searches are timed turn about.
"""

import argparse
import random
import statistics
import sys
import time
from typing import Any

from bench.limits import usable_cores

HIDDEN = 48, 64, 56, 72
FOLDS, CLASSES, FEATURES = 4, 3, 8
WANTED = 1.7  # times as fast by two processes as by one, with one thread a fit


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.search", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--jobs", type=int, default=len(usable_cores()), help="default: this machine's cores")
    add("--rounds", type=int, default=5, help="default: 5")
    add("--sequences", type=int, default=300, help="default: 300")
    add("--steps", type=int, default=100, help="T; default: 100")
    add("--epochs", type=int, default=10, help="a fit; default: 10")
    options = parser.parse_args()
    jobs = 1, options.jobs
    x, y = problem(options.sequences, options.steps)
    print(
        f"GridSearchCV of LSTMClassifier, {len(HIDDEN) * FOLDS} fits of {options.epochs} epochs: "
        f"{options.sequences} sequences of {options.steps} steps. Seconds, medians of "
        f"{options.rounds}.",
        f"{'threads a fit':<16}{'1 process':>12}{f'{options.jobs} processes':>14}{'times':>8}"
        f"{'wanted':>8}{'threads of each':>18}",
        sep="\n",
    )
    searches = {
        (threads, n_jobs): search(threads, n_jobs, options.epochs)
        for threads in (1, None)
        for n_jobs in jobs
    }
    share = threads_of_workers(options.jobs)
    times: dict[Any, list[float]] = {key: [] for key in searches}
    scores = set()
    order, shuffle = list(searches), random.Random(0).shuffle
    for _ in range(options.rounds):
        shuffle(order)
        for key in order:
            start = time.perf_counter()
            searches[key].fit(x, y)
            times[key].append(time.perf_counter() - start)
            scores.add(tuple(searches[key].cv_results_["mean_test_score"]))
    for threads in (1, None):
        one, several = (statistics.median(times[threads, n_jobs]) for n_jobs in jobs)
        print(
            f"{threads or 'default':<16}{one:>12.2f}{several:>14.2f}{one / several:>8.2f}"
            f"{WANTED if threads == 1 else '':>8}{threads or share:>18}"
        )
    if len(scores) > 1:
        print(f"the scores DIFFER: {sorted(scores)}")
    return int(len(scores) > 1)


def problem(sequences: int, steps: int) -> tuple[Any, Any]:
    """Noisy waves whose frequency is the class."""
    import numpy as np

    rng = np.random.default_rng(0)
    y = np.arange(sequences) % CLASSES
    phases = rng.uniform(0, 2 * np.pi, (sequences, 1, FEATURES))
    waves = np.sin((1 + y[:, None, None]) * np.arange(steps)[:, None] / 8 + phases)
    return (waves + rng.standard_normal(waves.shape)).astype(np.float32), y


def search(threads: int | None, n_jobs: int, epochs: int) -> Any:
    """A search that has not begun."""
    from sklearn.model_selection import GridSearchCV

    from fastlstm.sklearn import LSTMClassifier

    model = LSTMClassifier(max_epochs=epochs, random_state=0, threads=threads)
    grid = {"hidden_size": list(HIDDEN)}
    return GridSearchCV(model, grid, cv=FOLDS, n_jobs=n_jobs, refit=False, error_score="raise")


def threads_of_workers(n_jobs: int) -> int:
    """Start the workers; returns the number of threads that each finds."""
    from joblib import Parallel, delayed

    import fastlstm.sklearn  # noqa: F401 (so that the workers import it, too)

    return max(Parallel(n_jobs)(delayed(_get_num_threads)() for _ in range(4 * n_jobs)))


def _get_num_threads() -> int:
    import fastlstm.sklearn

    time.sleep(0.2)  # so that every worker gets a task
    return fastlstm.get_num_threads()


if __name__ == "__main__":
    sys.exit(main())
