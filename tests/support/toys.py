"""Cells from outside the package: each by the engine's public protocol, and as a plain equation."""

from dataclasses import dataclass

import numpy as np

from fastlstm.engine import Masks

# A cell with one array of state: h' = d ∗ h + (1 - d) ∗ tanh(W x + R h + b).


@dataclass(frozen=True)
class Leaky:
    """A `fastlstm.engine.Cell`."""

    inputs: int
    H: int
    state = ("h",)
    draws = False

    @property
    def sizes(self):
        return (self.H,)

    def shapes(self):
        H = self.H
        return {"weight_ih": (H, self.inputs), "weight_hh": (H, H), "bias": (H,), "decay": (H,)}

    def initial(self, rng):
        return {name: rng.uniform(-0.5, 0.5, shape) for name, shape in self.shapes().items()}

    def pack(self, kernels, parameters, backward):
        return LeakyStep(**parameters)

    def draw(self, rng, T, B):
        return None


class LeakyStep:
    """A `fastlstm.engine.PythonCell`."""

    names = ("weight_ih", "weight_hh", "bias", "decay")

    def __init__(self, weight_ih, weight_hh, bias, decay):
        self.W, self.R, self.bias, self.decay = weight_ih, weight_hh, bias, decay
        self.inputs, self.sizes, self.dtype = self.W.shape[1], bias.shape, bias.dtype

    def step(self, x, state, masks):
        (h,) = state
        new = np.tanh(x @ self.W.T + h @ self.R.T + self.bias)
        return (self.decay * h + (1 - self.decay) * new,), (new,)

    def step_backward(self, x, state, saved, d_state, masks):
        (h,), (new,), (dh,) = state, saved, d_state
        dz = dh * (1 - self.decay) * (1 - new * new)
        terms = {"weight_ih": (dz, x), "weight_hh": (dz, h), "bias": dz, "decay": dh * (h - new)}
        return dz @ self.W, (dh * self.decay + dz @ self.R,), terms


def leaky(x, h, weight_ih, weight_hh, bias, decay):
    """The same step for one row."""
    new = np.tanh(weight_ih @ x + weight_hh @ h + bias)
    return (decay * h + (1 - decay) * new,)


# A cell with two arrays of state, of different sizes: v' = d ∗ v + W x + R h, h' = tanh(Q v').


class Momentum(Leaky):
    state = ("h", "v")

    @property
    def sizes(self):
        return self.H, self.H + 1

    def shapes(self):
        P, N = self.sizes
        shapes = {"weight_ih": (N, self.inputs), "weight_hh": (N, P)}
        return shapes | {"weight_out": (P, N), "decay": (N,)}

    def pack(self, kernels, parameters, backward):
        return MomentumStep(**parameters)


class MomentumStep:
    names = ("weight_ih", "weight_hh", "weight_out", "decay")

    def __init__(self, weight_ih, weight_hh, weight_out, decay):
        self.W, self.R, self.Q, self.decay = weight_ih, weight_hh, weight_out, decay
        self.inputs, self.sizes, self.dtype = self.W.shape[1], self.Q.shape, decay.dtype

    def step(self, x, state, masks):
        h, v = state
        v = self.decay * v + x @ self.W.T + h @ self.R.T
        h = np.tanh(v @ self.Q.T)
        return (h, v), (h, v)

    def step_backward(self, x, state, saved, d_state, masks):
        (h_before, v_before), (h, v), (dh, dv) = state, saved, d_state
        dz = dh * (1 - h * h)
        dv = dv + dz @ self.Q
        terms = {
            "weight_ih": (dv, x),
            "weight_hh": (dv, h_before),
            "weight_out": (dz, v),
            "decay": dv * v_before,
        }
        return dv @ self.W, (dv @ self.R, dv * self.decay), terms


def momentum(x, h, v, weight_ih, weight_hh, weight_out, decay):
    v = decay * v + weight_ih @ x + weight_hh @ h
    return np.tanh(weight_out @ v), v


# A leaky cell with dropout of the h that R multiplies: in training, R misses half of the units.


class Forgetful(Leaky):
    draws = True

    def pack(self, kernels, parameters, backward):
        return ForgetfulStep(**parameters)

    def draw(self, rng, T, B):
        return Masks(recurrent=2.0 * rng.integers(2, size=(B, self.H)))


class ForgetfulStep(LeakyStep):
    def step(self, x, state, masks):
        (h,) = state
        met = h if masks is None else h * masks.recurrent
        new = np.tanh(x @ self.W.T + met @ self.R.T + self.bias)
        return (self.decay * h + (1 - self.decay) * new,), (new,)

    def step_backward(self, x, state, saved, d_state, masks):
        (h,), (new,), (dh,) = state, saved, d_state
        dz = dh * (1 - self.decay) * (1 - new * new)
        d_met = dz @ self.R
        terms = {"weight_ih": (dz, x), "weight_hh": (dz, h * masks.recurrent), "bias": dz}
        terms["decay"] = dh * (h - new)
        return dz @ self.W, (dh * self.decay + d_met * masks.recurrent,), terms


EQUATIONS = {Leaky: leaky, Momentum: momentum, Forgetful: leaky}  # in inference
