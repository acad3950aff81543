"""Cells written in Python alone, led through time by the reference."""

import numpy as np
import pytest
from compare import assert_close
from kernel_case import THRESHOLDS, Case
from walks import walk

from fastlstm.kernels import reference
from fastlstm.kernels.arguments import Activation, RNNOptions, RNNWeights
from fastlstm.kernels.reference.core.activations import Kind


class Leaky:
    """The example of `PythonCell`."""

    names = ("weight", "decay")

    def __init__(self, weight, decay):
        self.weight, self.decay, self.dtype = weight, decay, weight.dtype
        self.sizes, self.inputs = (weight.shape[0],), weight.shape[1]

    def step(self, x, state, masks):
        return (self.decay * state[0] + x @ self.weight.T,), ()

    def step_backward(self, x, state, saved, d_state, masks):
        (d_h,) = d_state
        terms = {"weight": (d_h, x), "decay": d_h * state[0]}
        return d_h @ self.weight, (d_h * self.decay,), terms


def test_cell_from_outside(rng, dtype):
    """It is an RNN without activation, whose recurrent weights are a diagonal."""
    T, B, _, H = sizes = 6, 5, 3, 4
    steps = walk(rng, T, B, "ragged-resets-reverse")
    case = Case(rng, dtype, "RNN", "no bias", sizes, steps)
    W, decay = case.cells[0].weights.W_ih, rng.uniform(-1, 1, H).astype(dtype)
    identity = RNNOptions(Activation(Kind.AFFINE, 1.0, 0.0))
    rnn = reference.pack_rnn(RNNWeights(W, np.diag(decay).copy()), identity)
    results = []
    for cell in (rnn, Leaky(W, decay)):
        stack = reference.stack([cell], [True], False, False, 1, THRESHOLDS)
        inputs = case.x, case.state[0], steps.lengths, steps.resets
        y, final, saved, _ = reference.forward(stack, *inputs, keep=True)
        gradients = reference.backward(stack, *inputs, None, saved, case.dy, case.dstate[0])
        dx, dstate, (of_cell,) = gradients
        results.append([y, final, dx, dstate, *of_cell])
    results[0][-1] = results[0][-1].diagonal()
    for expected, actual in zip(*results, strict=True):
        assert_close(actual, expected, dtype)


def test_parts_of_the_state_that_are_not_saved(rng):
    """The walk finds part 1 before a step in saved[1] of the step before."""

    class Careless(Leaky):
        sizes = (4, 4)

        def __init__(self):
            self.weight, self.dtype, self.inputs = np.ones((4, 3)), np.dtype(np.float64), 3

        def step(self, x, state, masks):
            h = x @ self.weight.T
            return (h, state[1] + h), (h, state[1])

    stack = reference.stack([Careless()], [False], False, False, 1, THRESHOLDS)
    assert reference.forward(stack, np.zeros((2, 1, 3)))[0].shape == (2, 1, 4)
    with pytest.raises(ValueError, match=r"saved\[1\]"):
        reference.forward(stack, np.zeros((2, 1, 3)), keep=True)
