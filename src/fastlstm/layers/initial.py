"""How parameters begin."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastlstm.checks import real_number

ONES = ("weight_ln_ih", "weight_ln_hh", "weight_ln_c")
ZEROS = ("bias_ln_c", "initial_h", "initial_c")


def initial(
    shapes: Iterable[tuple[str, str, tuple[int, ...]]],  # kind, suffix, shape
    gates: int,
    init: str,
    rng: "np.random.Generator",
    dtype: np.dtype,
    forget_bias: float | None = None,
    t_max: float | None = None,
) -> dict[str, np.ndarray]:
    """Every parameter by name, drawn in the order of `shapes`."""
    arrays = {}
    for kind, suffix, shape in shapes:
        if kind == "weight_ih":
            H = shape[0] // gates
        if kind in ONES:
            array = np.ones(shape)
        elif kind in ZEROS:
            array = np.zeros(shape)
        elif init != "keras":
            array = rng.uniform(-(H**-0.5), H**-0.5, shape)
        elif kind == "weight_hh":
            array = _orthogonal(rng, shape)
        elif kind in ("weight_ih", "weight_hr"):
            limit = (6 / sum(shape)) ** 0.5
            array = rng.uniform(-limit, limit, shape)
        else:
            array = np.zeros(shape)
        if kind in ("bias_ih", "bias_hh"):
            # One bias carries what is asked of both.
            if forget_bias is not None:
                array[H : 2 * H] = forget_bias if kind == "bias_ih" else 0
            if t_max is not None:
                memory = np.log(rng.uniform(1, t_max - 1, H)) if kind == "bias_ih" else np.zeros(H)
                array[:H], array[H : 2 * H] = -memory, memory
        arrays[kind + suffix] = array.astype(dtype)
    return arrays


def read_init(
    init: Any, forget_bias: Any, t_max: Any, bias: bool, coupled: bool
) -> tuple[str, float | None, float | None]:
    """The arguments of `LSTM` that decide how its parameters begin, checked."""
    if init not in ("torch", "keras", "chrono"):
        raise ValueError(f"init: expected 'torch', 'keras' or 'chrono', got {init!r}")
    if forget_bias is not None:
        forget_bias = real_number("forget_bias", forget_bias, -np.inf, np.inf)
        for reason, refused in {
            "needs bias=True, got bias=False": not bias,
            "init='chrono' sets it, so expected None": init == "chrono",
            "coupled gates have none, so expected None": coupled,
        }.items():
            if refused:
                raise ValueError(f"forget_bias: {reason}")
    if init == "chrono":
        if not bias:
            raise ValueError("init: 'chrono' sets biases, so it needs bias=True")
        if t_max is None:
            raise ValueError("t_max: init='chrono' needs it, got None")
        t_max = real_number("t_max", t_max, 2, np.inf)
    elif t_max is not None:
        raise ValueError(f"t_max: only init='chrono' has one, so expected None, got {t_max!r}")
    if forget_bias is None and init == "keras":
        forget_bias = 1.0
    return init, forget_bias, t_max


def _orthogonal(rng: "np.random.Generator", shape: tuple[int, ...]) -> np.ndarray:
    """A matrix [N, K] with orthonormal columns, or rows where N < K."""
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.sign(np.diag(r))
    return q if shape[0] >= shape[1] else q.T
