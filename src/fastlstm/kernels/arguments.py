"""The groups of arguments that kernels take, and the functions of a kernel module.

T steps, B rows (sequences of the batch), I inputs, H hidden units, P outputs (H, or the size of the
projection), L layers, D directions. The order of gates is i, f, g, o (LSTM) and r, z, n (GRU).
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Packed: TypeAlias = Any  # a cell's weights and options, in the form of one build
Stack: TypeAlias = Any  # packed cells, ready for calls
State: TypeAlias = Any  # one array, or a tuple with an array for each part; None for zeros


def no_memory(x: Array, outputs: int) -> MemoryError:
    """The error of a call with x [..., I], whose result [..., outputs] or scratch has no memory."""
    bytes = x.size // max(x.shape[-1], 1) * outputs * x.itemsize
    return MemoryError(f"x: expected memory for {bytes} bytes and more, got none; shape {x.shape}")


class Kind(IntEnum):
    """The number that stands for an activation in the arguments of kernels."""

    SIGMOID = 0
    TANH = 1
    RELU = 2
    AFFINE = 3
    LEAKY_RELU = 4
    THRESHOLDED_RELU = 5
    SCALED_TANH = 6
    HARD_SIGMOID = 7
    ELU = 8
    SOFTSIGN = 9
    SOFTPLUS = 10


class Activation(NamedTuple):
    """An activation and its parameters."""

    kind: int
    alpha: float = 0.0
    beta: float = 0.0


class LayerNorm(NamedTuple):
    """LN(W x) * input_gain + LN(R h) * hidden_gain + bias, and LN(c) * cell_gain + cell_bias."""

    input_gain: Array  # [4H]
    hidden_gain: Array  # [4H]
    cell_gain: Array  # [H]
    cell_bias: Array | None  # [H]


class LSTMWeights(NamedTuple):
    W_ih: Array  # [4H, I]
    W_hh: Array  # [4H, P]
    bias_ih: Array | None = None  # [4H]; both biases or neither
    bias_hh: Array | None = None  # [4H]
    W_hr: Array | None = None  # [P, H]; without a projection P is H
    peepholes: Array | None = None  # [3H]: of i, f, o
    norm: LayerNorm | None = None


class LSTMOptions(NamedTuple):
    gate: Activation
    candidate: Activation
    output: Activation
    clip: float = np.inf  # bound of the preactivations of gates and candidate
    coupled: bool = False  # whether the forget gate is 1 - i
    zoneout_h: float = 0.0  # 0 to 1: fraction of the old h that inference keeps
    zoneout_c: float = 0.0  # 0 to 1: fraction of the old c that inference keeps


class GRUWeights(NamedTuple):
    W_ih: Array  # [3H, I]
    W_hh: Array  # [3H, H]
    bias_ih: Array | None = None  # [3H]; both biases or neither
    bias_hh: Array | None = None  # [3H]


class GRUOptions(NamedTuple):
    gate: Activation
    candidate: Activation
    clip: float = np.inf
    linear_before_reset: bool = True  # True: r * (R_n h + b), as torch; False: R_n (r * h)


class RNNWeights(NamedTuple):
    W_ih: Array  # [H, I]
    W_hh: Array  # [H, H]
    bias_ih: Array | None = None  # [H]; both biases or neither
    bias_hh: Array | None = None  # [H]


class RNNOptions(NamedTuple):
    activation: Activation
    clip: float = np.inf


class Masks(NamedTuple):
    """The random numbers of one cell in a training call; None for those it does not use.

    Attributes
    ----------
    recurrent : array (B, P), optional
        Factors of the h that R multiplies, for all steps.
    kept_h : bool array (T, B, P), optional
        Where zoneout keeps the old h.
    kept_c : bool array (T, B, H), optional
        Where zoneout keeps the old c.
    """

    recurrent: Array | None = None
    kept_h: Array | None = None
    kept_c: Array | None = None


class Thresholds(NamedTuple):
    """Limits from which a layer runs on several threads; see `fastlstm.engine.prepared`."""

    parallel_work: int
    step_work: int
    few_rows: int
    row_weights: int
    lanes: int


class Saved(NamedTuple):
    """The arrays that `forward` saves of one layer for `backward`."""

    y: Array  # [T, B, D * P]; for the last layer, the result in the caller's form
    cells: tuple[tuple[Array, ...], ...]  # by direction; see each cell's `SAVED`


def kept(array: Array) -> Array:
    """Return `array` if nobody can change it, since its memory is a bytes object; else such a copy.

    The y that a `forward` of training returns is such an array. So a layer above need not copy it.
    """
    base: Any = array.base
    while type(base) is np.ndarray:
        base = base.base
    return array if type(base) is bytes else np.ndarray(array.shape, array.dtype, array.tobytes())


def has_own_elements(array: Array) -> bool:
    """Whether no two elements of `array` share memory."""
    if array.size == 0:
        return True
    axes = sorted(zip(map(abs, array.strides), array.shape, strict=True))
    reach = array.itemsize  # of all axes with smaller strides
    for step, n in axes:
        if n > 1 and step < reach:
            break
        reach += (n - 1) * step
    else:
        return True
    places = np.zeros(1, np.intp)
    for step, n in axes:
        places = np.add.outer(places, step * np.arange(n)).ravel()
    return bool((np.diff(np.sort(places)) >= array.itemsize).all())


class Rule(NamedTuple):
    """One step of an optimizer for a parameter p with gradient g, element by element.

    ::

        g += decay * p;  d = g
        mean = beta1 * mean + (1 - beta1) * g;  d = mean
        square = beta2 * square + (1 - beta2) * g²;  d /= √square + eps
        velocity = momentum * velocity + d;  d = velocity
        p = shrink * p - lr * d

    The lines of running means that an optimizer does without are left out. If `centered`, d is g in
    the second line, and the third has √(square - mean²). If `nesterov`, the fourth has
    d += momentum * velocity.
    """

    lr: float
    decay: float = 0.0
    shrink: float = 1.0
    beta1: float = 0.0
    beta2: float = 0.0
    eps: float = 0.0
    momentum: float = 0.0
    centered: bool = False
    nesterov: bool = False


# The running means of a parameter, in the order of MOMENTS; None for those that an optimizer does
# without.
Moments: TypeAlias = tuple[Array | None, Array | None, Array | None]
MOMENTS = "mean", "square", "velocity"


class Kernels(Protocol):
    """The functions of a build for one dtype; `reference` describes each of them."""

    def tanh(self, x: Array, /) -> Array: ...
    def sigmoid(self, x: Array, /) -> Array: ...
    def activate(self, kind: int, alpha: float, beta: float, x: Array, /) -> Array: ...
    def activation_slope(self, kind: int, alpha: float, beta: float, x: Array, /) -> Array: ...

    def pack(self, matrix: Array, /) -> Array: ...
    def linear(self, x: Array, packed: Array, outputs: int, bias: Array | None, /) -> Any: ...
    def weight_gradient(
        self, dz: Array, x: Array, dW: Array, db: Array | None = None, /
    ) -> None: ...
    def update(self, rule: Rule, p: Array, moments: Moments, g: Array, /) -> Any: ...

    def pack_lstm(
        self, weights: LSTMWeights, options: LSTMOptions, backward: bool = False
    ) -> Packed: ...
    def pack_gru(
        self, weights: GRUWeights, options: GRUOptions, backward: bool = False
    ) -> Packed: ...
    def pack_rnn(
        self, weights: RNNWeights, options: RNNOptions, backward: bool = False
    ) -> Packed: ...
    def stack(
        self,
        cells: Sequence[Packed],
        reverse: Sequence[bool],
        batch_first: bool,
        one_step: bool,
        threads: int,
        thresholds: Thresholds,
        /,
    ) -> Stack: ...
    def forward(
        self,
        stack: Stack,
        x: Any,
        state: State = None,
        lengths: Any = None,
        resets: Any = None,
        out: Any = None,
        masks: Sequence[Masks | None] | None = None,
        keep: bool = False,
    ) -> Any: ...
    def step(
        self, stack: Stack, x: Any, state: State, rows: Any = None, out: Any = None
    ) -> Any: ...
    def backward(
        self,
        stack: Stack,
        x: Array,
        state: State,
        lengths: Array | None,
        resets: Array | None,
        masks: Sequence[Masks | None] | None,
        saved: tuple[Saved, ...],
        dy: Any,
        dstate: State,
        with_x: bool = True,
        sums: Any = None,
        into: Any = None,
        /,
    ) -> Any: ...
    def new_sums(self, stack: Stack, steps: int, B: int, /) -> Any: ...
