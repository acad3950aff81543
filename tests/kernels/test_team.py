"""Threads that share every step of one kernel call: the same bits as one thread alone."""

import threading
import time
from functools import partial

import numpy as np
import pytest
from compare import assert_same_bits

from fastlstm import threads as pool
from fastlstm.kernels import kernels as functions

SIZES = {
    "T": 23,
    "B": 3,
    "I": 5,
    "H": 150,
}  # units in several panels of every build, the last not full


@pytest.fixture(params=[{}, {"ragged": True}, {"reverse": True, "resets": True}], ids=str)
def walk(request, rng):
    """rows, live, resets, reverse."""
    T, B = SIZES["T"], SIZES["B"]
    rows = live = resets = None
    if "ragged" in request.param:
        rows, live = np.array([2, 0, 1]), np.repeat([3, 2, 1, 0], [9, 6, 5, 3])
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

    def forward(self, team=None, invite=None):
        state = self.h0, self.c0
        kept = self.gates, self.cells, None
        final = self.h_n, self.c_n
        self.k.lstm_forward(
            self.x, self.packed, None, *state, self.y, *final, *self.walk, *kept, team, invite
        )

    def backward(self, team=None, invite=None):
        tape = self.gates, self.cells, self.c0
        state = self.dh, self.dc
        self.k.lstm_backward(
            *tape, self.dy, *state, self.recurrent, None, *self.walk, None, team, invite
        )

    def results(self):
        names = "y", "gates", "cells", "h_n", "c_n", "dh", "dc"
        return {name: getattr(self, name) for name in names}


def share(task, members, come_first):
    """`task` as the leader, and `members` beside it, all there when it begins or when they like."""
    team = np.zeros((members + 3, 8), np.int64)
    others = [threading.Thread(target=task, args=(team,)) for _ in range(members)]

    def invite():
        for thread in others:
            thread.start()
        while come_first and team[0, 0] < members:
            time.sleep(1e-4)

    try:
        task(team, invite)
    finally:
        team[0, 0], team[1, 0] = 2**32, -1
    for thread in others:
        thread.join(timeout=60)
        assert not thread.is_alive()
    return team


@pytest.mark.parametrize("come_first", [True, False])
@pytest.mark.parametrize("members", [1, 2, 4])
def test_same_bits(compiled, dtype, walk, members, come_first):
    alone, shared = Calls(dtype, walk), Calls(dtype, walk)
    alone.forward()
    team = share(shared.forward, members, come_first)
    if come_first:
        parts = members + 1
        assert all(team[2 : 2 + parts, 0] == SIZES["T"])  # each did its part of every step
    alone.backward()
    share(shared.backward, members, come_first)
    for name, expected in alone.results().items():
        assert_same_bits(shared.results()[name], expected, name)


def test_who_comes_late_or_is_too_many_does_nothing(compiled, dtype):
    case = Calls(dtype, (None, None, None, False))
    before = {name: array.copy() for name, array in case.results().items()}
    closed, full = np.zeros((4, 8), np.int64), np.zeros((4, 8), np.int64)
    closed[0, 0], closed[1, 0] = 2**32, -1
    full[0, 0] = 1  # the one follower it has room for has come
    for team in (closed, full):
        case.forward(team)
        case.backward(team)
    for name, expected in before.items():
        assert_same_bits(case.results()[name], expected, name)


def test_shape_of_a_team(compiled, dtype):
    case = Calls(dtype, (None, None, None, False))
    for team in (np.zeros((3, 8), np.int64), np.zeros((4, 7), np.int64)):
        with pytest.raises(ValueError, match="team"):
            case.forward(team)


def test_followers_go_when_the_leader_fails():
    left = threading.Event()

    def task(team, invite=None):
        if invite is not None:
            invite()
            raise KeyError("the leader")
        while team[1, 0] >= 0:
            time.sleep(1e-4)
        left.set()

    with pytest.raises(KeyError, match="the leader"):
        pool.run([partial(task)], 2, together=True)
    assert left.wait(timeout=60)
