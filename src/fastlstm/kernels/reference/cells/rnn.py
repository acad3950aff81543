"""The plain recurrent network (Elman 1990): h' = f(W x + R h + b)."""

from fastlstm.kernels.arguments import Array, Masks, RNNOptions, RNNWeights
from fastlstm.kernels.reference.cells.weights import read_array, read_biases, read_hidden_size
from fastlstm.kernels.reference.core.activations import (
    activate_clipped,
    check_kind,
    slope_clipped,
)
from fastlstm.kernels.reference.core.cell import Parts, Term

SAVED = ("slopes",)  # [T, B, 1, H]: the slope of f by its argument


class RNN:
    """A plain recurrent cell with any activation f, whose argument may be clipped."""

    def __init__(self, weights: RNNWeights, options: RNNOptions):
        check_kind(options.activation)
        self.activation, self.clip = options.activation, float(options.clip)
        self.dtype = weights.W_ih.dtype
        H = read_hidden_size(weights, 1)
        self.inputs, self.sizes = weights.W_ih.shape[1], (H,)
        self.W = read_array("W_ih", weights.W_ih, (H, self.inputs), self.dtype)
        self.R = read_array("W_hh", weights.W_hh, (H, H), self.dtype)
        bias_ih, bias_hh = read_biases(weights, H)
        self.bias = bias_ih + bias_hh
        self.names: tuple[str, ...] = ("weight_ih", "weight_hh")
        if weights.bias_ih is not None:
            self.names += ("bias_ih", "bias_hh")

    def step(self, x: Array, state: Parts, masks: Masks | None) -> tuple[Parts, Parts]:
        (h,) = state
        z = x @ self.W.T + h @ self.R.T + self.bias
        slope = slope_clipped(self.activation, self.clip, z)
        return (activate_clipped(self.activation, self.clip, z),), (slope[:, None],)

    def step_backward(
        self, x: Array, state: Parts, saved: Parts, d_state: Parts, masks: Masks
    ) -> tuple[Array, Parts, dict[str, Term]]:
        (h,) = state
        dz = d_state[0] * saved[0][:, 0]
        terms: dict[str, Term] = {
            "weight_ih": (dz, x),
            "weight_hh": (dz, h),
            "bias_ih": dz,
            "bias_hh": dz,
        }
        return dz @ self.W, (dz @ self.R,), terms


def pack_rnn(weights: RNNWeights, options: RNNOptions, backward: bool = False) -> RNN:
    """Pack a plain recurrent network's weights and options for `stack`.

    `backward` has no effect: a cell in Python always serves for forward and backward.
    """
    return RNN(weights, options)
