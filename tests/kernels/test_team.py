"""Threads that share every step of one kernel call: the same bits as one thread alone."""

import numpy as np
import pytest
from compare import assert_same_bits

from fastlstm import threads as pool
from fastlstm.kernels import kernels as functions

_pool = pytest.importorskip("fastlstm.kernels._pool", reason="no compiled kernels")

ONE_CORE = pool.get_num_threads() == 1  # where nobody is called, whatever a kernel may use
# Long enough for others to come; units in several panels of every build, the last not full.
SIZES = {"T": 230, "B": 3, "I": 5, "H": 150}


@pytest.fixture(params=[{}, {"ragged": True}, {"reverse": True, "resets": True}], ids=str)
def walk(request, rng):
    """rows, live, resets, reverse."""
    T, B = SIZES["T"], SIZES["B"]
    rows = live = resets = None
    if "ragged" in request.param:
        rows, live = np.array([2, 0, 1]), np.repeat([3, 2, 1, 0], [90, 60, 50, 30])
    if "resets" in request.param:
        resets = rng.random((T, B)) < 0.2
    return rows, live, resets, "reverse" in request.param


class Calls:
    """One layer's forward and backward on arrays of their own."""

    def __init__(self, dtype, walk):
        rng = np.random.default_rng(3)
        T, B, I, H = SIZES.values()

        def normal(*shape):
            return rng.standard_normal(shape).astype(dtype)

        self.k, self.walk = functions(dtype), walk
        W, R = normal(4 * H, I), normal(4 * H, H) / 8
        self.packed, self.recurrent = self.k.pack_gates(W, R, normal(4 * H)), self.k.pack(R.T)
        self.x, self.h0, self.c0, self.dy = (
            normal(T, B, I),
            normal(B, H),
            normal(B, H),
            normal(T, B, H),
        )
        self.y, self.gates = np.full((T, B, H), 7, dtype), np.zeros((T, B, 4, H), dtype)
        self.cells = np.zeros((T, B, H), dtype)
        self.h_n, self.c_n, self.dh, self.dc = (normal(B, H) for _ in range(4))

    def forward(self, threads=1):
        state = self.h0, self.c0
        kept = self.gates, self.cells, None
        final = self.h_n, self.c_n
        self.k.lstm_forward(
            self.x, self.packed, None, *state, self.y, *final, *self.walk, *kept, threads
        )

    def backward(self, threads=1):
        tape = self.gates, self.cells, self.c0
        state = self.dh, self.dc
        self.k.lstm_backward(
            *tape, self.dy, *state, self.recurrent, None, *self.walk, None, threads
        )

    def results(self):
        names = "y", "gates", "cells", "h_n", "c_n", "dh", "dc"
        return {name: getattr(self, name).copy() for name in names}


@pytest.mark.parametrize("threads", [2, 3, 5])
def test_same_bits(compiled, dtype, walk, threads):
    alone = Calls(dtype, walk)
    alone.forward()
    forward = alone.results()
    alone.backward()
    helped = {"forward": 0, "backward": 0}
    for _ in range(50):
        shared = Calls(dtype, walk)
        before = _pool.visited()
        shared.forward(threads)
        helped["forward"] += _pool.visited() - before
        for name, expected in forward.items():
            assert_same_bits(shared.results()[name], expected, name)
        before = _pool.visited()
        shared.backward(threads)
        helped["backward"] += _pool.visited() - before
        for name, expected in alone.results().items():
            assert_same_bits(shared.results()[name], expected, name)
        if ONE_CORE or all(helped.values()):
            return
    pytest.fail(f"no thread came to help in 50 calls: {helped}")


def pieces(dtype, walk, threads):
    """A product and weights' gradients, large enough for others to come."""
    rng = np.random.default_rng(4)
    T, B, M, N, P = SIZES["T"], SIZES["B"], 150, 37, 21
    dz, x, y = (rng.standard_normal((T, B, n)).astype(dtype) for n in (M, N, P))
    k, (rows, live, resets, reverse) = functions(dtype), walk
    out = np.full((T, B, N), 7, dtype)
    packed = k.pack(rng.standard_normal((N, M)).astype(dtype))
    k.product(dz, packed, out, None, rows, live, False, threads)
    dW, dR, db = np.full((M, N), 7, dtype), np.full((M, P), 7, dtype), np.full(M, 7, dtype)
    h0 = rng.standard_normal((B, P)).astype(dtype)
    k.weight_gradient(dz, x, dW, y, h0, dR, rows, live, resets, reverse, db, threads)
    return out, dW, dR, db


@pytest.mark.parametrize("threads", [2, 3, 20])
def test_pieces_same_bits(compiled, dtype, walk, threads):
    alone, before = pieces(dtype, walk, 1), _pool.visited()
    for _ in range(200):
        for actual, expected in zip(pieces(dtype, walk, threads), alone, strict=True):
            assert_same_bits(actual, expected)
        if ONE_CORE or _pool.visited() > before:
            return
    pytest.fail("no thread came to help in 200 calls")


def test_bad_threads(compiled, dtype):
    case = Calls(dtype, (None, None, None, False))
    for threads in (0, -1):
        with pytest.raises(ValueError, match="threads"):
            case.forward(threads)
        with pytest.raises(ValueError, match="threads"):
            case.backward(threads)
