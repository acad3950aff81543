"""Numba: the loop over steps as one writes it in NumPy, compiled; inference only."""

from functools import cache

import numpy as np

from bench.peers.base import Peer, refuse
from bench.problem import Problem


class Numba(Peer):
    """A function of (x, weights, h0, c0), compiled at the first call, before any is timed.

    Its `np.dot` is SciPy's BLAS. Without a state, h0 and c0 are None and it makes the zeros itself.
    """

    name = "numba"
    requires = ("numba", "scipy")

    def __init__(self, problem: Problem, threads: int):
        refuse(problem, "lengths", "resets", "proj_size")
        parameters = problem.layer.state_dict()
        suffixes = [name.removeprefix("weight_ih") for name in parameters if "weight_ih" in name]

        def transposed(kind):
            return tuple(np.ascontiguousarray(parameters[kind + suffix].T) for suffix in suffixes)

        biases = tuple(parameters["bias_ih" + at] + parameters["bias_hh" + at] for at in suffixes)
        weights = transposed("weight_ih"), transposed("weight_hh"), biases
        directions = 2 if problem.case.bidirectional else 1
        self._arguments = problem.x, *weights, *(problem.state or (None, None)), directions
        self._stack = _compiled()

    def infer(self) -> np.ndarray:
        return self._stack(*self._arguments)[0]


@cache
def _compiled():
    from numba import njit

    @njit(fastmath=True)
    def run(x, W, R, b, h, c, y, reverse):
        """Fill y [T, B, H], and h and c [B, H] with the final state; weights transposed."""
        T, B, I = x.shape
        H = h.shape[1]
        one = x.dtype.type(1)  # a plain 1 would turn float32 into float64
        z = (np.dot(x.reshape(T * B, I), W) + b).reshape(T, B, 4 * H)
        gates = np.empty((B, 4 * H), x.dtype)
        for n in range(T):
            t = T - 1 - n if reverse else n
            np.dot(h, R, gates)
            gates += z[t]
            for row in range(B):
                for j in range(H):
                    i = one / (one + np.exp(-gates[row, j]))
                    f = one / (one + np.exp(-gates[row, H + j]))
                    g = np.tanh(gates[row, 2 * H + j])
                    o = one / (one + np.exp(-gates[row, 3 * H + j]))
                    c[row, j] = f * c[row, j] + i * g
                    h[row, j] = o * np.tanh(c[row, j])
            y[t] = h

    @njit(fastmath=True)
    def stack(x, W, R, b, h0, c0, directions):
        """Output [T, B, directions * H] and final state of x [T, B, I]."""
        T, B, _ = x.shape
        H = R[0].shape[0]
        shape = len(R), B, H
        h = np.zeros(shape, x.dtype) if h0 is None else h0.copy()
        c = np.zeros(shape, x.dtype) if c0 is None else c0.copy()
        for layer in range(len(R) // directions):
            y = np.empty((T, B, directions * H), x.dtype)
            for direction in range(directions):
                at = layer * directions + direction
                out = y[:, :, direction * H : (direction + 1) * H]
                run(x, W[at], R[at], b[at], h[at], c[at], out, direction == 1)
            x = y
        return x, h, c

    return stack
