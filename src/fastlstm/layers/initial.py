"""How parameters begin."""

from collections.abc import Iterable

import numpy as np


def initial(
    init: str,
    hidden_size: int,
    shapes: Iterable[tuple[str, str, tuple[int, ...]]],
    rng: "np.random.Generator",
    dtype: np.dtype,
) -> dict[str, np.ndarray]:
    """Values for a recurrent layer's parameters, given as (kind, suffix, shape).

    "torch" is U(-1/√H, 1/√H) for all. "keras" is Glorot-uniform weight_ih (Glorot & Bengio 2010),
    orthogonal weight_hh (Saxe et al. 2014) and zero biases.
    """
    if init not in ("torch", "keras"):
        raise ValueError(f"init: expected 'torch' or 'keras', got {init!r}")
    arrays = {}
    for kind, suffix, shape in shapes:
        if init == "torch":
            bound = hidden_size**-0.5
            array = rng.uniform(-bound, bound, shape)
        elif kind == "weight_hh":
            array = orthogonal(rng, shape)
        elif kind == "weight_ih":
            limit = (6 / sum(shape)) ** 0.5
            array = rng.uniform(-limit, limit, shape)
        else:
            array = np.zeros(shape)
        arrays[kind + suffix] = array.astype(dtype)
    return arrays


def orthogonal(rng: "np.random.Generator", shape: tuple[int, ...]) -> np.ndarray:
    """A matrix [N, K] with orthonormal columns, or rows where N < K."""
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q *= np.sign(np.diag(r))
    return q if shape[0] >= shape[1] else q.T
