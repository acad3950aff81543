"""The long time lags of Hochreiter & Schmidhuber (1997): `python -m bench.longlag`.

The tasks, their criteria and the training are those of `examples/`. Each seed has weights and data
of its own, and as many sequences as the LSTM of the paper needed. Seconds are of one core's time.
"""

import argparse
import itertools
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from bench.arguments import names
from bench.limits import limit, usable_cores
from bench.origin import ROOT


class Task(NamedTuple):
    """What the LSTM of the paper needed, and what is wanted of fastlstm's."""

    sequences: int  # the paper's; each run has as many
    seeds: float  # share of the seeds that solve the task
    median: float | None = None  # of the sequences that they took
    seconds: float | None = None  # the longest run


TASKS = {
    "adding": Task(74_000, 1.0, 32_000, 15.0),
    "adding-500": Task(209_000, 1.0),
    "reber": Task(8_440, 0.9),
    "order": Task(31_390, 1.0, 8_000),
}
HEADER = f"{'':<20}{'solved':>8}{'median':>9}{'most':>9}{'paper':>9}{'s, most':>9}"


def main() -> int:
    """Train and print; returns the exit status: 1 if the LSTM does less than is wanted."""
    parser = argparse.ArgumentParser("python -m bench.longlag", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--tasks", type=names, default=list(TASKS), help="some of " + ", ".join(TASKS)
    )
    parser.add_argument("--cells", type=names, default=["LSTM", "RNN"], help="LSTM, GRU, RNN")
    parser.add_argument("--seeds", type=int, default=10, help="how many; default: 10")
    parser.add_argument("--sequences", type=int, help="at most, in place of the paper's")
    parser.add_argument("--processes", type=int, default=1, help="each on one core; default: 1")
    options = parser.parse_args()
    missed = []
    print(HEADER)
    with pool(options.processes) as workers:
        found = {}
        for name, cell in itertools.product(options.tasks, options.cells):
            budget = min(TASKS[name].sequences, options.sequences or TASKS[name].sequences)
            jobs = [(name, cell, budget, seed) for seed in range(options.seeds)]
            found[name, cell] = workers.starmap_async(timed, jobs, chunksize=1)
        for (name, cell), pending in found.items():
            runs = pending.get()
            print(row(name, cell, TASKS[name], runs), flush=True)
            if cell == "LSTM" and not reached(TASKS[name], runs):
                missed.append(name)
    if missed:
        print(f"less than is wanted: {', '.join(missed)}")
    return bool(missed)


Run = tuple[int | None, float]  # the sequences that it took, None if not solved; seconds


def pool(processes: int) -> Any:
    """Processes that have a core each, and solve."""
    context = multiprocessing.get_context("spawn")
    cores = context.Queue()
    for _, core in zip(range(processes), itertools.cycle(usable_cores()), strict=False):
        cores.put(core)
    return context.Pool(processes, _settle, (cores,))


def _settle(cores: Any) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores.get()})
    limit(1)
    _solvers.update(make_solvers())


_solvers: dict[str, Callable[..., int | None]] = {}  # of a process of the pool


def timed(name: str, cell: str, budget: int, seed: int) -> Run:
    """Solve a task once."""
    start = time.process_time()
    return _solvers[name](cell, budget, seed), time.process_time() - start


def row(name: str, cell: str, task: Task, runs: list[Run]) -> str:
    """A line of the table."""
    took = [count for count, _ in runs if count is not None]
    found = f"{statistics.median(took):>9,.0f}{max(took):>9,}" if took else f"{'-':>9}{'-':>9}"
    longest = max(seconds for _, seconds in runs)
    solved = f"{len(took)}/{len(runs)}"
    return f"{name + ', ' + cell:<20}{solved:>8}{found}{task.sequences:>9,}{longest:>9.1f}"


def reached(task: Task, runs: list[Run]) -> bool:
    """Whether the runs are as good as is wanted."""
    took = [count for count, _ in runs if count is not None]
    return (
        len(took) >= task.seeds * len(runs)
        and (task.median is None or statistics.median(took) <= task.median)
        and (task.seconds is None or max(seconds for _, seconds in runs) <= task.seconds)
    )


def make_solvers() -> dict[str, Any]:
    """For each task a function of the cell, the budget and the seed."""
    # Only now that this process is held to its core: these import NumPy.
    sys.path.insert(0, str(ROOT / "examples"))
    import adding
    import reber
    import temporal_order

    import fastlstm as fl

    fl.set_num_threads(1)

    def lag(T: int, task: dict[str, Any]) -> Callable[..., int | None]:
        return lambda cell, budget, seed: adding.solve(getattr(fl, cell), T, budget, seed, **task)

    return {
        "adding": lag(100, adding.ADDING),
        "adding-500": lag(500, adding.ADDING),
        "reber": lambda cell, budget, seed: reber.solve(getattr(fl, cell), budget, seed),
        "order": lag(100, temporal_order.ORDER),
    }


if __name__ == "__main__":
    sys.exit(main())
