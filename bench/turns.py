"""Turns: one function is called over and over, then it is the next one's turn."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

Run = Callable[[], object]
BATCHES = 20  # the clock is read about so many times in a turn
MOST_ROUNDS = 1000


class Protocol(NamedTuple):
    """How a turn goes.

    Attributes
    ----------
    name : "hot" or "cold"
    seconds : float
        What the timed calls take together, at least.
    untimed : float or None
        Seconds of calls before those, at least one call; None for no call.
    pause : float
        Seconds before the turn, in which the threads of the engine before stop spinning.
    """

    name: str
    seconds: float
    untimed: float | None
    pause: float

    def describe(self) -> str:
        """One sentence."""
        text = f"{self.name.capitalize()} turns of at least {self.seconds * 1e3:g} ms"
        if self.pause:
            text += f", each after a pause of {self.pause:g} s"
        if self.untimed is None:
            return f"{text}."
        if self.untimed == 0:
            return f"{text}; one call before each is not timed."
        return f"{text}; calls of at least {self.untimed * 1e3:g} ms before each are not timed."


def protocol(*, cold: bool, threads: int = 1) -> Protocol:
    """Hot turns find the engine's data in the caches and the processor used to its code.

    Cold turns are so short that the engines before have pushed both out. With more threads than one
    they are as long as hot ones, since each has to pay for its pause.
    """
    pause = 0.25 if threads > 1 else 0.0
    if not cold:
        return Protocol("hot", 2e-2, 2e-3, pause)
    if pause:
        return Protocol("cold", 2e-2, 0.0, pause)
    return Protocol("cold", 5e-4, None, 0.0)


def batch_size(run: Run, how: Protocol) -> int:
    """How many calls to make between two looks at the clock; warms the engine up."""
    run()
    calls = 1
    while (seconds := _spend(run, 0, calls)) * calls * BATCHES < how.seconds / 2:
        calls *= 2
    return max(1, round(how.seconds / BATCHES / seconds))


def turn(run: Run, batch: int, how: Protocol) -> float:
    """Seconds a call."""
    if how.pause:
        time.sleep(how.pause)
    if how.untimed is not None:
        _spend(run, how.untimed, 1)
    return _spend(run, how.seconds, batch)


def medians(
    runs: Mapping[str, Run],
    how: Protocol,
    seconds: float,
    fewest: int,
    prepare: Callable[[str], object] = lambda name: None,
) -> dict[str, float]:
    """Median seconds a call of each of `runs`.

    In every round each has one turn, in an order drawn anew.

    Parameters
    ----------
    runs : mapping of name: function
    how : Protocol
    seconds : float
        For all rounds together.
    fewest : int
        Rounds that there are in any case.
    prepare : function of a name
        Called before each of its turns.
    """
    batches = {}
    for name, run in runs.items():
        prepare(name)
        batches[name] = batch_size(run, how)
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    gc.collect()
    end = time.perf_counter() + seconds
    for number in range(MOST_ROUNDS):
        if number >= fewest and time.perf_counter() > end:
            break
        shuffle(order)
        for name in order:
            prepare(name)
            times[name].append(turn(runs[name], batches[name], how))
    return {name: statistics.median(series) for name, series in times.items()}


def _spend(run: Run, seconds: float, batch: int) -> float:
    """Seconds a call, over batches of calls that take `seconds` together; at least one batch."""
    calls, start = 0, time.perf_counter()
    while True:
        for _ in range(batch):
            run()
        calls += batch
        passed = time.perf_counter() - start
        if passed >= seconds:
            return passed / calls
