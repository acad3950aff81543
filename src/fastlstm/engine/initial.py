"""Initial values of parameters."""

from collections.abc import Mapping
from typing import Any

import numpy as np

INITS = ("torch", "keras")


def undrawn(dtype: Any = np.float32) -> "np.random.Generator":
    """Return a generator that draws nothing: for layers whose parameters are set at once.

    Matrices of the initial values "torch" are then views of one number, which take no memory.
    """

    class Undrawn(np.random.Generator):  # here, since numpy.random takes 10 ms to import
        def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
            if not isinstance(size, tuple) or len(size) < 2:  # biases, of which cells set parts
                return np.full(() if size is None else size, low, np.float64)
            number = np.array(low, dtype)
            number.flags.writeable = False
            return np.broadcast_to(number, size)

    return Undrawn(np.random.PCG64(0))


def initial(
    shapes: Mapping[str, tuple[int, ...]], H: int, init: str, rng: "np.random.Generator"
) -> dict[str, np.ndarray]:
    """Draw every parameter in the order of `shapes`; returns float64 arrays by name.

    "torch": U(-1/√H, 1/√H) for all. "keras": Glorot-uniform matrices (Glorot & Bengio 2010), an
    orthogonal weight_hh (Saxe et al. 2014), zero biases.
    """
    arrays = {}
    for name, shape in shapes.items():
        if init != "keras":
            arrays[name] = rng.uniform(-(H**-0.5), H**-0.5, shape)
        elif name == "weight_hh":
            arrays[name] = _orthogonal(rng, shape)
        elif len(shape) == 2:
            limit = (6 / sum(shape)) ** 0.5
            arrays[name] = rng.uniform(-limit, limit, shape)
        else:
            arrays[name] = np.zeros(shape)
    return arrays


def read_init(init: str, known: tuple[str, ...] = INITS) -> str:
    if not isinstance(init, str) or init not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"init: expected one of {names}, got {init!r}")
    return init


def _orthogonal(rng: "np.random.Generator", shape: tuple[int, ...]) -> np.ndarray:
    """A matrix [N, K] with orthonormal columns, or with orthonormal rows if N < K."""
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.sign(np.diag(r))
    return q if shape[0] >= shape[1] else q.T
