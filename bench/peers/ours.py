"""fastlstm, in the form of its peers."""

import numpy as np

import fastlstm as fl
from bench.peers.base import Peer, Training
from bench.problem import Problem


class FastLSTM(Peer):
    """`fl.LSTM` as a caller has it: arrays in, new arrays out."""

    name = "fastlstm"
    requires = ("fastlstm",)
    trains = True

    def __init__(self, problem: Problem, threads: int):
        fl.set_num_threads(threads)
        self._lstm, self._x, self._dy = problem.lstm, problem.x, problem.dy
        self._state = problem.h0, problem.c0
        options = {"lengths": problem.lengths, "resets": problem.resets}
        self._options = {name: value for name, value in options.items() if value is not None}

    @classmethod
    def versions(cls) -> dict[str, str]:
        return {"fastlstm": fl.__version__, "numpy": np.__version__}

    def infer(self) -> np.ndarray:
        return self._lstm(self._x, self._state, **self._options)[0]

    def train(self) -> Training:
        _, tape = self._lstm.forward(self._x, self._state, **self._options)
        gradients = self._lstm.backward(tape, self._dy)
        return gradients.x, gradients.params
