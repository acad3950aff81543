"""Engines checked against each other, then timed turn about."""

import numpy as np

from bench import turns
from bench.peers import PEERS, CannotDoError, FastLSTM, Peer
from bench.problem import Problem
from bench.turns import Protocol

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
FEWEST_ROUNDS = 3


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
    expected = results(ours, mode)
    for name in peers:
        try:
            PEERS[name].check(problem.case, mode)
            peer = PEERS[name](problem, threads)
        except CannotDoError as reason:
            left_out[name] = str(reason)
            continue
        difference = _difference(expected, results(peer, mode), TOLERANCE[problem.case.dtype])
        if difference:
            left_out[name] = difference
        else:
            engines[name] = peer
    return engines, left_out


def results(engine: Peer, mode: str) -> dict[str, np.ndarray]:
    """Copies, since some engines write the next result over the last one."""
    if mode == "training":
        dx, weights = engine.train()
        return {"dx": np.array(dx)} | {name: np.array(array) for name, array in weights.items()}
    return {"y": np.array(engine.infer())}


def medians(engines: dict[str, Peer], mode: str, seconds: float, how: Protocol) -> dict[str, float]:
    """Median seconds a call of each engine, over rounds that take `seconds` together."""
    runs = {name: engine.call(mode) for name, engine in engines.items()}
    return turns.medians(
        runs, how, seconds, FEWEST_ROUNDS, prepare=lambda name: engines[name].prepare()
    )


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
