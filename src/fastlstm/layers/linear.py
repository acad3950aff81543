"""The linear layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import (
    check_shape,
    memory_for,
    no_memory_for,
    read_array,
    read_dtype,
    read_flag,
    read_generator,
    read_size,
)
from fastlstm.kernels import kernels
from fastlstm.kernels.arguments import Kernels, kept
from fastlstm.module import (
    Gradients,
    Module,
    Output,
    Parameters,
    Tape,
    check_tape,
    describe_backward,
)


@dataclass(slots=True, eq=False)
class LinearTape(Tape):
    parameters: Parameters
    kernels: Kernels
    x: np.ndarray  # [..., I], contiguous


class Linear(Module):
    """y = x · Wᵀ + b. In a compiled build, a row's bits do not depend on the other rows.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of the last axis of x and of y.
    bias : bool
        Whether there is a b. Without it, the attribute `bias` is None.
    dtype : float32 or float64
    rng : None, seed or Generator
        Source of the initial values, which are uniform in ±1/√in_features as in torch.nn.Linear.

    Attributes
    ----------
    weight : array (out_features, in_features)
    bias : array (out_features,) or None

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> fl.Linear(3, 2, rng=0)(np.ones((7, 5, 3))).shape
    (7, 5, 2)
    """

    acts_on_steps = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
        rng: Any = None,
    ):
        self.in_features = read_size("in_features", in_features)
        self.out_features = read_size("out_features", out_features)
        self.dtype = read_dtype("dtype", dtype)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if read_flag("bias", bias):
            shapes["bias"] = (self.out_features,)
        else:
            self.bias = None
        uniform = read_generator("rng", rng).uniform
        bound = self.in_features**-0.5
        with memory_for("in_features, out_features", *shapes.values()):
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
            x does not hold real or integer numbers.
        """
        k, parameters = kernels(self.dtype), self._parameters
        packed, outputs, bias = self._packed(k, parameters)
        try:
            y: np.ndarray = k.linear(x, packed, outputs, bias)
        except MemoryError as error:
            raise no_memory_for("x", (*x.shape[:-1], outputs)) from error
        return y if y is not NotImplemented else self(self._read(x))

    def forward(self, x: Any) -> tuple[np.ndarray, LinearTape]:
        """Apply the layer as a call does, and return a tape.

        Parameters
        ----------
        x : array (..., in_features)

        Returns
        -------
        y : array (..., out_features)
        tape : LinearTape
            The argument of one `backward`.
        """
        k, parameters = kernels(self.dtype), self._parameters
        packed, own = self._packed(k, parameters), None
        try:
            y = k.linear(x, *packed)
            if y is NotImplemented:
                x = own = self._read(x)
                y = k.linear(own, *packed)
            return y, LinearTape(self, parameters, k, kept(x) if own is None else own)
        except MemoryError as error:
            raise no_memory_for("x", (*np.shape(x)[:-1], self.out_features)) from error

    @describe_backward
    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Return the gradients of x, `weight` and `bias`."""
        tape = check_tape(tape, LinearTape, self)
        dy = read_array("dy", dy, self.dtype)
        check_shape("dy", dy, *tape.x.shape[:-1], self.out_features)
        tape.claim()
        k, weight = tape.kernels, tape.parameters["weight"]
        transposed = tape.parameters.derive((k, "transposed"), lambda: k.pack(weight.T))
        dy = np.ascontiguousarray(dy)
        rows, x = dy.reshape(-1, self.out_features), tape.x.reshape(-1, self.in_features)
        try:
            dx = k.linear(dy, transposed, self.in_features, None)
            params = {"weight": np.empty_like(weight)}
        except MemoryError as error:
            raise no_memory_for("dy", tape.x.shape, weight.shape) from error
        if "bias" in tape.parameters:
            params["bias"] = np.empty(self.out_features, self.dtype)
        k.weight_gradient(rows, x, params["weight"], params.get("bias"))
        return Gradients(x=dx, params=params)

    @property
    def _inputs(self) -> int | None:
        return self.in_features

    def _output(self, before: Output) -> Output:
        return before._replace(features=self.out_features, dtype=self.dtype, reverse=(False,))

    def _packed(self, k: Kernels, parameters: Parameters) -> tuple[Any, ...]:
        """The packed weight, the number of its rows, and the bias."""
        try:
            packed: tuple[Any, ...] = parameters.derived[k, "packed"]
        except KeyError:
            own = k.pack(parameters["weight"]), self.out_features, parameters.get("bias")
            packed = parameters.derive((k, "packed"), lambda: own)
        return packed

    def _read(self, x: Any) -> np.ndarray:
        """A contiguous copy of x, checked."""
        array = read_array("x", x, self.dtype)
        if array.ndim == 0 or array.shape[-1] != self.in_features:
            raise ValueError(f"x: expected shape (..., {self.in_features}), got {array.shape}")
        with memory_for("x", array.shape):
            return np.array(array, order="C", subok=False)

    def _argument(self, name: str, default: Any) -> Any:
        return "bias" in self._parameters if name == "bias" else super()._argument(name, default)

    def __repr__(self) -> str:
        return (
            f"Linear(in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={'bias' in self._parameters})"
        )
