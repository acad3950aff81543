"""Layers without a recurrence: Linear, Embedding, Dropout."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import (
    as_array,
    as_floats,
    as_integers,
    check_shape,
    flag,
    float_dtype,
    generator,
    real_number,
    whole_number,
)
from fastlstm.kernels import kernels
from fastlstm.layers.inputs import rows_contiguous
from fastlstm.layers.module import Gradients, Module, Parameters
from fastlstm.layers.tape import Tape, check_tape


@dataclass(slots=True, eq=False)
class LinearTape(Tape):
    parameters: Parameters
    x: np.ndarray  # [..., I]


@dataclass(slots=True, eq=False)
class EmbeddingTape(Tape):
    indices: np.ndarray


@dataclass(slots=True, eq=False)
class DropoutTape(Tape):
    keep: np.ndarray  # bool, in the input's shape
    scale: float
    dtype: np.dtype


class Linear(Module):
    """y = x · Wᵀ + b, the same for every row: its result does not depend on the other rows.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and of y.
    bias : bool
        Whether b is there; without it, the attribute `bias` is None.
    dtype : float32 or float64
    rng : None, seed or Generator
        Source of the initial values, uniform in ±1/√in_features as torch.nn.Linear's.

    Attributes
    ----------
    weight : array (out_features, in_features)
    bias : array (out_features,) or None
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        self.in_features = whole_number("in_features", in_features)
        self.out_features = whole_number("out_features", out_features)
        self.dtype = float_dtype("dtype", dtype)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if flag("bias", bias):
            shapes["bias"] = (self.out_features,)
        else:
            self.bias = None
        uniform = generator("rng", rng).uniform
        bound = self.in_features**-0.5
        self._parameters = Parameters(
            {n: uniform(-bound, bound, shape).astype(self.dtype) for n, shape in shapes.items()}
        )

    def __call__(self, x: Any) -> np.ndarray:
        """Apply the layer.

        Parameters
        ----------
        x : array (..., in_features)

        Returns
        -------
        y : array (..., out_features)

        Raises
        ------
        ValueError
            The last axis is not in_features long.
        TypeError
            Not real or integer numbers.
        """
        return self._apply(self._parameters, self._read(x))

    def forward(self, x: Any) -> tuple[np.ndarray, LinearTape]:
        """As a call, with the tape for `backward`."""
        tape = LinearTape(self, self._parameters, self._read(x))
        return self._apply(tape.parameters, tape.x), tape

    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Gradients of x, `weight` and `bias`, from that of y in y's shape.

        Raises
        ------
        ValueError
            The tape is another layer's or was used, or dy's shape is not y's.
        """
        tape = check_tape(tape, LinearTape, self)
        dy = as_array("dy", dy, self.dtype)
        check_shape("dy", dy, *tape.x.shape[:-1], self.out_features)
        tape.used = True
        k = kernels(self.dtype)
        weight = tape.parameters["weight"]
        transposed = tape.parameters.derive(("transposed", k), lambda: k.pack(weight.T))
        dx, dweight = np.empty(tape.x.shape, self.dtype), np.empty_like(weight)
        dz = _as_steps(dy)
        k.product(dz, transposed, _as_steps(dx))
        k.weight_gradient(dz, _as_steps(tape.x), dweight)
        params = {"weight": dweight}
        if "bias" in tape.parameters:
            params["bias"] = dz[0].sum(axis=0)
        return Gradients(x=dx, params=params)

    def _read(self, x: Any) -> np.ndarray:
        array = as_array("x", x, self.dtype)
        if array.ndim == 0 or array.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {array.shape}")
        return array

    def _apply(self, parameters: Parameters, x: np.ndarray) -> np.ndarray:
        k = kernels(self.dtype)
        packed = parameters.derive(("weight", k), lambda: k.pack(parameters["weight"]))
        y = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        k.product(_as_steps(x), packed, _as_steps(y), parameters.get("bias"))
        return y

    def __repr__(self) -> str:
        return (
            f"Linear(in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={'bias' in self._parameters})"
        )


class Embedding(Module):
    """A table of vectors: y = weight[x].

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        How many vectors, and how long each is.
    dtype : float32 or float64
    rng : None, seed or Generator
        Source of the initial values, N(0, 1) as torch.nn.Embedding's.

    Attributes
    ----------
    weight : array (num_embeddings, embedding_dim)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        self.num_embeddings = whole_number("num_embeddings", num_embeddings)
        self.embedding_dim = whole_number("embedding_dim", embedding_dim)
        self.dtype = float_dtype("dtype", dtype)
        shape = (self.num_embeddings, self.embedding_dim)
        weight = generator("rng", rng).standard_normal(shape).astype(self.dtype)
        self._parameters = Parameters({"weight": weight})

    def __call__(self, x: Any) -> np.ndarray:
        """Look up vectors.

        Parameters
        ----------
        x : integer array of any shape
            Indices from 0 to num_embeddings - 1.

        Returns
        -------
        y : array (*x.shape, embedding_dim)

        Raises
        ------
        ValueError
            An index is negative or too large.
        TypeError
            Not integers.
        """
        return self._parameters["weight"].take(self._read(x), axis=0)

    def forward(self, x: Any) -> tuple[np.ndarray, EmbeddingTape]:
        """As a call, with the tape for `backward`."""
        indices = self._read(x)
        return self._parameters["weight"].take(indices, axis=0), EmbeddingTape(self, indices)

    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Gradient of `weight`, from that of y in y's shape; indices have none, so x is None.

        Raises
        ------
        ValueError
            The tape is another layer's or was used, or dy's shape is not y's.
        """
        tape = check_tape(tape, EmbeddingTape, self)
        dy = as_array("dy", dy, self.dtype)
        check_shape("dy", dy, *tape.indices.shape, self.embedding_dim)
        tape.used = True
        dweight = np.zeros((self.num_embeddings, self.embedding_dim), self.dtype)
        # Equal indices brought together, in the order they came in, so that sums are reproducible.
        order = np.argsort(tape.indices, axis=None, kind="stable")
        used, starts = np.unique(tape.indices.ravel()[order], return_index=True)
        dweight[used] = np.add.reduceat(dy.reshape(-1, self.embedding_dim)[order], starts, axis=0)
        return Gradients(params={"weight": dweight})

    def _read(self, x: Any) -> np.ndarray:
        indices = as_integers("x", x)
        if indices.size and not 0 <= indices.min() <= indices.max() < self.num_embeddings:
            raise ValueError(
                f"x: expected indices from 0 to {self.num_embeddings - 1}, "
                f"got {indices.min()} to {indices.max()}"
            )
        return indices

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim})"


class Dropout(Module):
    """In training (`forward`), zero each number with probability p and scale the rest by 1/(1 - p).

    A call is inference and gives x back. Srivastava et al. 2014, JMLR 15; scaled while training
    ("inverted"), so that nothing is left to do afterwards.

    Parameters
    ----------
    p : float in [0, 1]
    rng : None, seed or Generator
        Source of the masks.
    """

    def __init__(self, p: float = 0.5, *, rng: Any = None):
        self.p = real_number("p", p, 0, 1)
        self._rng = generator("rng", rng)
        self._parameters = Parameters({})

    def __call__(self, x: Any) -> np.ndarray:
        """x, an array of any shape. Float32 stays, other real dtypes become float64."""
        return as_floats("x", x)

    def forward(self, x: Any) -> tuple[np.ndarray, DropoutTape]:
        """x with zeros in random places, and the tape for `backward`."""
        array = as_floats("x", x)
        keep = self._rng.random(array.shape) >= self.p
        scale = 1 / (1 - self.p) if self.p < 1 else 0.0
        tape = DropoutTape(self, keep, scale, array.dtype)
        return _dropped(array, tape), tape

    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Gradient of x, from that of y in y's shape.

        Raises
        ------
        ValueError
            The tape is another layer's or was used, or dy's shape is not y's.
        """
        tape = check_tape(tape, DropoutTape, self)
        dy = as_array("dy", dy, tape.dtype)
        check_shape("dy", dy, *tape.keep.shape)
        tape.used = True
        return Gradients(x=_dropped(dy, tape))

    def __repr__(self) -> str:
        return f"Dropout(p={self.p})"


def _as_steps(array: np.ndarray) -> np.ndarray:
    """[..., K] as the kernels take it: [1, M, K]."""
    return rows_contiguous(array.reshape(1, -1, array.shape[-1]))


def _dropped(array: np.ndarray, tape: DropoutTape) -> np.ndarray:
    # Not a product with the mask: what is dropped may be infinite.
    result = np.zeros(array.shape, array.dtype)
    np.multiply(array, tape.scale, out=result, where=tape.keep)
    return result
