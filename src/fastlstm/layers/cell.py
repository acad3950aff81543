"""One step of a recurrent layer as a module of its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.checks import as_array
from fastlstm.layers.module import Gradients, Module
from fastlstm.layers.recurrent import Recurrent, RecurrentTape


class RecurrentCell(Module):
    """One step of a recurrent layer, under the parameter names without "_l0"."""

    def __init__(self, layer: Recurrent):
        self._layer = layer
        self.input_size, self.hidden_size = layer.input_size, layer.hidden_size
        self.bias, self.dtype = layer.bias, layer.dtype
        super()._replace_parameters(_without_layer(layer.parameters()))

    def __call__(self, x: Any, state: Any = None) -> Any:
        """The next state."""
        result = self._layer._short_call(x, state, (-1, 0))
        if result is not None:
            return result[1]
        return _drop_axis(self._layer(self._one_step(x), _add_axis(state))[1])

    def forward(self, x: Any, state: Any = None) -> tuple[Any, RecurrentTape]:
        """Returns ``state, tape``."""
        (_, state), tape = self._layer.forward(self._one_step(x), _add_axis(state))
        return _drop_axis(state), tape

    def backward(self, tape: RecurrentTape, dstate: Any = None) -> Gradients:
        """Gradients of x, the state given and every parameter."""
        grads = self._layer.backward(tape, None, _add_axis(dstate))
        return Gradients(grads.x[0], _drop_axis(grads.state), _without_layer(grads.params))

    def _replace_parameters(self, arrays: Mapping[str, np.ndarray]) -> None:
        super()._replace_parameters(arrays)
        self._layer._replace_parameters({name + "_l0": array for name, array in arrays.items()})

    def _one_step(self, x: Any) -> np.ndarray:
        array = as_array("x", x, self.dtype)
        if array.ndim not in (1, 2) or array.shape[-1] != self.input_size:
            size = self.input_size
            raise ValueError(f"x: expected shape (batch, {size}) or ({size},), got {array.shape}")
        return array[None]

    def __repr__(self) -> str:
        return repr(self._layer).replace("(", "Cell(", 1)


def _without_layer(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removesuffix("_l0"): array for name, array in arrays.items()}


def _add_axis(state: Any) -> Any:
    """A cell's state as that of a layer of one."""
    if isinstance(state, (tuple, list)):
        return tuple(np.asarray(part)[None] for part in state)
    return state if state is None else np.asarray(state)[None]


def _drop_axis(state: Any) -> Any:
    return tuple(part[0] for part in state) if isinstance(state, tuple) else state[0]
