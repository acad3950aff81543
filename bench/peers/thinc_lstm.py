"""Thinc on the CPU, its own LSTM over the BLAS that it brings; inference only.

No peer in training, since its gradients (9.1.1) differ from the equations': the first step is left
out, a step's own output stands for the one before in the recurrent weights' gradient, and the
weights themselves are added to their gradients.
"""

import numpy as np

from bench.peers.base import CannotDoError, Peer, refuse
from bench.problem import Problem

GATE_ORDER = (1, 0, 3, 2)  # f, i, o, g


class Thinc(Peer):
    """`lstm_forward_inference` of its `NumpyOps`, without the packing that `thinc.api.LSTM` adds.

    One initial state serves all rows, so batches are left out where a state is given. The final
    cell state is not returned.
    """

    name = "thinc"
    requires = ("thinc",)

    def __init__(self, problem: Problem, threads: int):
        from thinc.api import NumpyOps

        refuse(problem, "lengths", "resets", "proj_size")
        case = problem.case
        if case.dtype != "float32":
            raise CannotDoError(f"no {case.dtype}")
        if case.B > 1 and problem.state:
            raise CannotDoError("no initial state for each row of a batch")
        directions = 2 if case.bidirectional else 1
        shape = case.layers, directions, case.H
        h0, c0 = problem.state or (np.zeros(shape, np.float32),) * 2
        # What it calls the first state is the cell's.
        state = c0.reshape(shape), h0.reshape(shape)
        rows = np.full(case.T, case.B, np.int32)  # of each step
        x = problem.x.reshape(case.T * case.B, case.I)
        self._arguments = _weights(problem), *state, x, rows
        self._ops = NumpyOps()
        self._shape = case.T, case.B, directions * case.H

    def infer(self) -> np.ndarray:
        return self._ops.lstm_forward_inference(*self._arguments).reshape(self._shape)


def _weights(problem: Problem) -> np.ndarray:
    """All in one row: W, its biases, R, its biases; of each layer and direction."""
    parameters = problem.layer.state_dict()
    suffixes = [name.removeprefix("weight_ih") for name in parameters if "weight_ih" in name]
    return np.concatenate(
        [
            np.split(parameters[kind + suffix], 4)[gate].ravel()
            for suffix in suffixes
            for kind in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
            for gate in GATE_ORDER
        ]
    )
