"""What the three operators share: inputs, directions, layout, and the way back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import as_array, check_shape, of_dtype, whole_number
from fastlstm.layers.activations import read_clip
from fastlstm.layers.inputs import read_lengths
from fastlstm.layers.module import Gradients, Module, Parameters
from fastlstm.layers.tape import RecurrentTape, Tape, check_tape
from fastlstm.onnx.attributes import Activations, read_activations, read_direction, read_switch
from fastlstm.onnx.direction import Direction
from fastlstm.onnx.weights import from_layers, to_layer

HALF, SINGLE, DOUBLE = map(np.dtype, (np.float16, np.float32, np.float64))


@dataclass(slots=True, eq=False)
class OperatorTape(Tape):
    runs: list[tuple[Direction, RecurrentTape]]  # by direction
    shapes: list[tuple[int, ...]]  # of the outputs


class Operator(Module):
    """One of ONNX's recurrent operators with its weights, which are its parameters.

    Directions are axis 1 + layout of Y and axis layout of the states.
    """

    GATES: tuple[int, ...]  # which of ONNX's gates each of the layers' is
    ACTIVATIONS: tuple[str, ...]  # of one direction, unless given
    STATE: tuple[str, ...] = ("initial_h",)
    OUTPUTS: tuple[str, ...] = ("Y", "Y_h")

    def __init__(
        self,
        W: Any,
        R: Any,
        B: Any,
        P: Any = None,
        *,
        activation_alpha: Any = None,
        activation_beta: Any = None,
        activations: Any = None,
        clip: float | None = None,
        direction: str = "forward",
        hidden_size: int | None = None,
        layout: int = 0,
    ):
        self.direction = direction
        self._reads_backwards = read_direction(direction)
        directions, gates = len(self._reads_backwards), len(self.GATES)
        self.layout = int(read_switch("layout", layout))
        self.clip = read_clip("clip", clip)
        self.activations = read_activations(
            activations, activation_alpha, activation_beta, self.ACTIVATIONS, directions
        )
        arrays = {"W": of_dtype("W", W, HALF, SINGLE, DOUBLE)}
        self.dtype = arrays["W"].dtype
        for name, value in {"R": R, "B": B, "P": P}.items():
            if value is not None or name == "R":
                arrays[name] = of_dtype(name, value, self.dtype)
        H = _last_axis("R", arrays["R"], "hidden_size") if hidden_size is None else hidden_size
        self.hidden_size = H = whole_number("hidden_size", H)
        self.input_size = _last_axis("W", arrays["W"], "input_size")
        for name, shape in {
            "R": (gates * H, H),
            "W": (gates * H, self.input_size),
            "B": (2 * gates * H,),
            "P": (3 * H,),
        }.items():
            if name in arrays:
                check_shape(name, arrays[name], directions, *shape)
        self._computed_in = SINGLE if self.dtype == HALF else self.dtype
        self._replace_parameters(
            {name: np.array(array, self._computed_in, order="C") for name, array in arrays.items()}
        )

    def _layer(self, activations: Activations, parameters: Parameters, **options: Any) -> Direction:
        """The layer that one direction is, without its parameters."""
        raise NotImplementedError

    def __call__(self, X: Any, sequence_lens: Any = None, initial_h: Any = None) -> Any:
        """The operator's outputs.

        Parameters
        ----------
        X : array (T, batch, input_size), or (batch, T, input_size) with layout=1
        sequence_lens : array (batch,) of ints, optional
            Steps of every row, zero allowed; all T where it is None.
        initial_h : array (directions, batch, hidden_size), optional
            (batch, directions, hidden_size) with layout=1; zeros where it is None.

        Returns
        -------
        Y : array (T, directions, batch, hidden_size)
            (batch, T, directions, hidden_size) with layout=1. Zeros where a row has ended.
        Y_h : array, shaped as initial_h
            After the last step of every row; what it began with where a row has no step.

        Raises
        ------
        ValueError, TypeError
            An input has another shape than these, or another dtype than W.
        """
        return self._call(X, sequence_lens, initial_h)

    def forward(self, X: Any, sequence_lens: Any = None, initial_h: Any = None) -> Any:
        """As a call, with the tape for `backward`: ``(Y, Y_h), tape``."""
        return self._forward(X, sequence_lens, initial_h)

    def backward(self, tape: Any, dY: Any = None, dY_h: Any = None) -> Gradients:
        """Gradients from those of the outputs, shaped as they are; None stands for zeros.

        Returns
        -------
        Gradients
            x of X, state of initial_h, and params of W, R and B.
        """
        return self._backward(tape, dY, dY_h)

    def _call(self, X: Any, sequence_lens: Any, *initial: Any) -> tuple[np.ndarray, ...]:
        x, lengths, states = self._read(X, sequence_lens, initial)
        layers = self._layers(self._parameters)
        pairs = zip(layers, states, strict=True)
        return self._outputs([layer(x, state, lengths=lengths) for layer, state in pairs])

    def _forward(
        self, X: Any, sequence_lens: Any, *initial: Any
    ) -> tuple[tuple[np.ndarray, ...], OperatorTape]:
        x, lengths, states = self._read(X, sequence_lens, initial)
        results, runs = [], []
        for layer, state in zip(self._layers(self._parameters), states, strict=True):
            result, tape = layer.forward(x, state, lengths=lengths)
            results.append(result)
            runs.append((layer, tape))
        outputs = self._outputs(results)
        return outputs, OperatorTape(self, runs, [array.shape for array in outputs])

    def _backward(self, tape: Any, *gradients: Any) -> Gradients:
        tape = check_tape(tape, OperatorTape, self)
        named = zip(self.OUTPUTS, gradients, tape.shapes, strict=True)
        dY, *dstates = (self._read_gradient("d" + name, *rest) for name, *rest in named)
        tape.used = True
        dys, states = _by_direction(dY, 1 + self.layout), self._by_layer(dstates)
        runs = zip(tape.runs, dys, states, strict=True)
        grads = [layer.backward(own, dy, state) for (layer, own), dy, state in runs]
        tape.runs.clear()
        dX = grads[0].x
        for own in grads[1:]:
            dX += own.x
        return Gradients(
            self._cast(dX),
            self._joined_states([own.state for own in grads]),
            from_layers([own.params for own in grads], self.GATES),
        )

    def _layers(self, parameters: Parameters) -> list[Direction]:
        """One for each direction, made once for these parameters."""

        def make() -> list[Direction]:
            options = {
                "input_size": self.input_size,
                "hidden_size": self.hidden_size,
                "bias": "B" in parameters,
                "batch_first": bool(self.layout),
                "clip": self.clip,
                "dtype": self._computed_in,
            }
            layers = []
            for direction, is_reverse in enumerate(self._reads_backwards):
                activations = self.activations[direction]
                layer = self._layer(activations, parameters, **options)
                layer.begin_with(to_layer(parameters, direction, self.GATES), is_reverse)
                layers.append(layer)
            return layers

        layers: list[Direction] = parameters.derive("layers", make)
        return layers

    def _read(
        self, X: Any, sequence_lens: Any, initial: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray | None, list[Any]]:
        """X, the lengths, and the state of every direction's layer."""
        X = of_dtype("X", X, self.dtype)
        if X.ndim != 3 or X.shape[2] != self.input_size:
            axes = "batch_size, seq_length" if self.layout else "seq_length, batch_size"
            raise ValueError(f"X: expected shape ({axes}, {self.input_size}), got {X.shape}")
        T, batch = X.shape[:2][:: -1 if self.layout else 1]
        lengths = None
        if sequence_lens is not None:
            lengths = read_lengths("sequence_lens", sequence_lens, T, batch)
        sizes = [len(self._reads_backwards), self.hidden_size]
        sizes.insert(1 - self.layout, batch)
        parts = []
        for name, value in zip(self.STATE, initial, strict=True):
            if value is None:
                parts.append(np.zeros(sizes, self._computed_in))
            else:
                parts.append(of_dtype(name, value, self.dtype))
                check_shape(name, parts[-1], *sizes)
        return X, lengths, self._by_layer(parts)

    def _read_gradient(self, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        if value is None:
            return np.zeros(shape, self._computed_in)
        array = as_array(name, value, self._computed_in)
        check_shape(name, array, *shape)
        return array

    def _outputs(self, results: Sequence[Any]) -> tuple[np.ndarray, ...]:
        """The operator's, from every direction's (y, state)."""
        ys, states = zip(*results, strict=True)
        state = self._joined_states(states)
        return self._joined(ys, 1 + self.layout), *(state if isinstance(state, tuple) else [state])

    def _by_layer(self, parts: Sequence[np.ndarray]) -> list[Any]:
        """States in the operator's form as every direction's layer has them: [1, batch, H]."""
        split = [_by_direction(part, self.layout) for part in parts]
        states = [tuple(array[None] for array in own) for own in zip(*split, strict=True)]
        return states if len(parts) > 1 else [h for (h,) in states]

    def _joined_states(self, states: Sequence[Any]) -> Any:
        if not isinstance(states[0], tuple):
            return self._joined([h[0] for h in states], self.layout)
        parts = zip(*states, strict=True)
        return tuple(self._joined([array[0] for array in part], self.layout) for part in parts)

    def _joined(self, arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
        joined = np.expand_dims(arrays[0], axis) if len(arrays) == 1 else np.stack(arrays, axis)
        return self._cast(joined)

    def _cast(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes inf, as in NumPy
            return array.astype(self.dtype, copy=False)

    def __repr__(self) -> str:
        """The sizes, and the attributes that are not at their default."""
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (
            ("direction", "forward"),
            ("activations", self._default_activations()),
            ("clip", None),
            ("input_forget", False),
            ("linear_before_reset", False),
            ("layout", 0),
        ):
            value = getattr(self, name, default)
            if value != default:
                text += f", {name}={value!r}"
        return f"onnx.{type(self).__name__}({text})"

    def _default_activations(self) -> list[Activations]:
        directions = len(self._reads_backwards)
        return read_activations(None, None, None, self.ACTIVATIONS, directions)


def _by_direction(array: np.ndarray, axis: int) -> list[np.ndarray]:
    return list(np.moveaxis(array, axis, 0))


def _last_axis(name: str, array: np.ndarray, size: str) -> int:
    if array.ndim != 3 or not array.shape[2]:
        raise ValueError(f"{name}: expected shape (directions, rows, {size}), got {array.shape}")
    return int(array.shape[2])
