"""Engines checked against each other, then timed turn about."""

import gc
import random
import statistics
import time
from collections.abc import Callable

import numpy as np

from bench.peers import PEERS, CannotDoError, FastLSTM, Peer
from bench.problem import Problem

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
FEWEST_ROUNDS, MOST_ROUNDS = 3, 1000
# A turn holds as many calls as fill this time: short calls want a warm cache and branch predictor,
# as they have in use, and many of them to a reading of the clock. Where turns are bought with a
# pause, they last longer.
TURN, TURN_AFTER_PAUSE = 5e-4, 2e-2
PAUSE = 0.25  # seconds in which the threads of the engine before stop spinning


def build(problem: Problem, mode: str, threads: int, peers: list[str]) -> tuple[dict, dict]:
    """The engines that do `problem` in `mode` as fastlstm does, and why the others do not.

    Returns
    -------
    engines : dict of name: Peer
        fastlstm first.
    left_out : dict of name: reason
    """
    ours = FastLSTM(problem, threads)
    engines: dict[str, Peer] = {ours.name: ours}
    left_out: dict[str, str] = {}
    expected = _results(ours, mode)
    for name in peers:
        try:
            PEERS[name].check(problem.case, mode)
            peer = PEERS[name](problem, threads)
        except CannotDoError as reason:
            left_out[name] = str(reason)
            continue
        difference = _difference(expected, _results(peer, mode), TOLERANCE[problem.case.dtype])
        if difference:
            left_out[name] = difference
        else:
            engines[name] = peer
    return engines, left_out


def medians(
    engines: dict[str, Peer], mode: str, seconds: float, *, pause: bool
) -> dict[str, float]:
    """Median seconds a call of each engine.

    In every round each engine has one turn, in an order drawn anew.

    Parameters
    ----------
    engines : dict of name: Peer
    mode : "inference" or "training"
    seconds : float
        For all rounds together; there are at least `FEWEST_ROUNDS`.
    pause : bool
        Whether a pause and a call that is not timed come before each turn.
    """
    runs = {name: _run(engine, mode) for name, engine in engines.items()}
    turn = TURN_AFTER_PAUSE if pause else TURN
    calls = {}
    for name, engine in engines.items():
        engine.prepare()
        calls[name] = _calls(runs[name], turn)
    times: dict[str, list[float]] = {name: [] for name in runs}
    order, shuffle = list(runs), random.Random(0).shuffle
    gc.collect()
    end = time.perf_counter() + seconds
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        shuffle(order)
        for name in order:
            engines[name].prepare()
            if pause:
                time.sleep(PAUSE)
                runs[name]()
            times[name].append(_time(runs[name], calls[name]))
    return {name: statistics.median(series) for name, series in times.items()}


def _run(engine: Peer, mode: str) -> Callable[[], object]:
    return engine.infer if mode == "inference" else engine.train


def _time(run: Callable[[], object], calls: int) -> float:
    """Seconds a call."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def _calls(run: Callable[[], object], turn: float) -> int:
    """How many calls fill `turn` seconds; warms the engine up."""
    first = _time(run, 1)
    if first > 4 * turn:
        return 1
    return max(1, int(turn / min(_time(run, 1) for _ in range(3))))


def _results(engine: Peer, mode: str) -> dict[str, np.ndarray]:
    """Copies, since some engines write the next result over the last one."""
    if mode == "inference":
        return {"y": np.array(engine.infer())}
    dx, weights = engine.train()
    return {"dx": np.array(dx)} | {name: np.array(array) for name, array in weights.items()}


def _difference(expected: dict, actual: dict, tolerance: float) -> str | None:
    """What differs by more than rounding explains: more than `tolerance` of the largest value."""
    if expected.keys() != actual.keys():
        return f"DIFFERS: gives {sorted(actual)}, not {sorted(expected)}"
    for name, array in expected.items():
        if array.shape != actual[name].shape:
            return f"DIFFERS: {name} is {actual[name].shape}, not {array.shape}"
        difference = np.abs(array - actual[name]).max() / max(1, np.abs(array).max())
        if not difference < tolerance:
            return f"DIFFERS: {name} by {difference:.1e} of its largest value"
    return None
