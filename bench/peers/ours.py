"""fastlstm, in the form of its peers."""

from dataclasses import replace

import numpy as np

import fastlstm as fl
from bench.cases import FEWER_STEPS, MANY_STEPS
from bench.cells import CELLS
from bench.peers.base import Peer, Training, as_layers_take_it
from bench.problem import Problem, make_problem


class FastLSTM(Peer):
    """`fl.LSTM`, `fl.GRU` or `fl.RNN` as a caller has it: arrays in, new arrays out."""

    name = "fastlstm"
    requires = ("fastlstm",)
    trains = True
    cells = tuple(CELLS)

    def __init__(self, problem: Problem, threads: int):
        self.steps = problem.case.T
        self._threads = threads
        self.prepare()
        self._layer, self._x, self._dy = problem.layer, problem.x, problem.dy
        self._state = as_layers_take_it(problem.state)
        options = {"lengths": problem.lengths, "resets": problem.resets}
        self._options = {name: value for name, value in options.items() if value is not None}

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"fastlstm": fl.__version__, "numpy": np.__version__}

    def prepare(self) -> None:
        fl.set_num_threads(self._threads)

    def infer(self) -> np.ndarray:
        return self._layer(self._x, self._state, **self._options)[0]

    def train(self) -> Training:
        _, tape = self._layer.forward(self._x, self._state, **self._options)
        gradients = self._layer.backward(tape, self._dy)
        return gradients.x, gradients.params


def others(problem: Problem, threads: int) -> dict[str, FastLSTM]:
    """fastlstm doing `problem` in other ways, to be timed beside it; none counts as a peer."""
    found = {}
    if threads > 1:
        found["one thread"] = FastLSTM(problem, 1)
    if problem.resets is not None:
        found["no resets"] = FastLSTM(replace(problem, resets=None), threads)
    if problem.case.T == MANY_STEPS:
        found |= {f"T = {T}": FastLSTM(problem.first(T), threads) for T in FEWER_STEPS}
    if problem.case.variant:
        case = replace(problem.case, variant="")
        plain = make_problem(case, with_state=problem.state is not None)
        found["plain"] = FastLSTM(plain, threads)
    return found
