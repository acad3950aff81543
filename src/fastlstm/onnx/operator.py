"""The common part of the three operators: inputs, directions, layout, and gradients."""

import inspect
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from fastlstm.checks import check_shape, read_array, read_array_of, read_size
from fastlstm.engine.cell import Cell
from fastlstm.engine.reading.mask import read_lengths
from fastlstm.engine.reading.plan import RecurrentTape
from fastlstm.engine.reading.state import form_of, parts_of
from fastlstm.engine.stack import Stack
from fastlstm.layers.activations import read_clip
from fastlstm.module import Gradients, Module, Parameters, Tape, check_tape
from fastlstm.onnx.attributes import Activations, read_activations, read_direction, read_switch
from fastlstm.onnx.weights import from_layer, to_layer

HALF, SINGLE, DOUBLE = map(np.dtype, (np.float16, np.float32, np.float64))


@dataclass(slots=True, eq=False)
class OperatorTape(Tape):
    stack: Stack
    tape: RecurrentTape
    shapes: list[tuple[int, ...]]  # shapes of the outputs


class Operator(Module):
    """One of ONNX's recurrent operators as an object; its weights are its parameters.

    The axis of directions is 1 + layout in Y, and layout in the states.
    """

    gate_order: tuple[int, ...]  # for each of the layers' gates, its index in ONNX's order
    ACTIVATIONS: tuple[str, ...]  # the default activations of one direction
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
        self._reverse = read_direction(direction)
        directions, gates = len(self._reverse), len(self.gate_order)
        self.layout = int(read_switch("layout", layout))
        self.clip = read_clip("clip", clip)
        self.activations = read_activations(
            activations, activation_alpha, activation_beta, self.ACTIVATIONS, directions
        )
        arrays = {"W": read_array_of("W", W, HALF, SINGLE, DOUBLE)}
        self.dtype = arrays["W"].dtype
        for name, value in {"R": R, "B": B, "P": P}.items():
            if value is not None or name == "R":
                arrays[name] = read_array_of(name, value, self.dtype)
        H = _last_axis("R", arrays["R"], "hidden_size") if hidden_size is None else hidden_size
        self.hidden_size = H = read_size("hidden_size", H)
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
        self._parameters = Parameters(self._own(arrays))

    def _own(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the operator has of the arrays that were given: copies to compute with."""
        return {name: np.array(one, self._computed_in, order="C") for name, one in arrays.items()}

    def _cell(self, activations: Activations, parameters: Container[str]) -> Cell:
        """The cell of one direction, from the names of the arrays."""
        raise NotImplementedError

    def __call__(self, X: Any, sequence_lens: Any = None, initial_h: Any = None) -> Any:
        """Return the operator's outputs.

        Parameters
        ----------
        X : array (T, batch, input_size), or (batch, T, input_size) with layout=1
        sequence_lens : array (batch,) of ints, optional
            0 to T: the number of steps of every row; T if None.
        initial_h : array (directions, batch, hidden_size), optional
            (batch, directions, hidden_size) with layout=1; zeros if None.

        Returns
        -------
        Y : array (T, directions, batch, hidden_size)
            (batch, T, directions, hidden_size) with layout=1. Zeros where a row has ended.
        Y_h : array of initial_h's shape
            The state after the last step of every row; its initial state if a row has no step.

        Raises
        ------
        ValueError, TypeError
            An input has another shape, or another dtype than W.
        """
        return self._call(X, sequence_lens, initial_h)

    def forward(self, X: Any, sequence_lens: Any = None, initial_h: Any = None) -> Any:
        """Compute as a call does; returns ``(Y, Y_h), tape``, the tape for one backward."""
        return self._forward(X, sequence_lens, initial_h)

    def backward(self, tape: Any, dY: Any = None, dY_h: Any = None) -> Gradients:
        """Return the gradients of all inputs and parameters.

        Parameters
        ----------
        tape : OperatorTape
            From `forward`.
        dY, dY_h : arrays, optional
            Gradients of the outputs, in their shapes; None for zeros.

        Returns
        -------
        Gradients
            `x` is that of X, `state` that of initial_h, `params` those of W, R and B.
        """
        return self._backward(tape, dY, dY_h)

    def _call(self, X: Any, sequence_lens: Any, *initial: Any) -> tuple[np.ndarray, ...]:
        x, lengths, state = self._read(X, sequence_lens, initial)
        return self._outputs(*self._stack(self._parameters)(x, state, lengths=lengths))

    def _forward(
        self, X: Any, sequence_lens: Any, *initial: Any
    ) -> tuple[tuple[np.ndarray, ...], OperatorTape]:
        x, lengths, state = self._read(X, sequence_lens, initial)
        stack = self._stack(self._parameters)
        result, tape = stack.forward(x, state, lengths=lengths)
        outputs = self._outputs(*result)
        return outputs, OperatorTape(self, stack, tape, [array.shape for array in outputs])

    def _backward(self, tape: Any, *gradients: Any) -> Gradients:
        tape = check_tape(tape, OperatorTape, self)
        named = zip(self.OUTPUTS, gradients, tape.shapes, strict=True)
        dY, *dstate = (self._read_gradient("d" + name, *rest) for name, *rest in named)
        tape.claim()
        dy = dY if self.layout else dY.swapaxes(1, 2)  # the last axes are directions and units
        dy = dy.reshape(*dy.shape[:2], -1)
        grads = tape.stack.backward(tape.tape, dy, self._turned(dstate))
        return Gradients(
            self._cast(grads.x),
            form_of([*map(self._cast, parts_of(self._turned(parts_of(grads.state))))]),
            from_layer(grads.params, len(self._reverse), self.gate_order),
        )

    def _stack(self, parameters: Parameters) -> Stack:
        """The stack of these parameters; made once."""

        def make() -> Stack:
            return Stack(
                [[self._cell(activations, parameters) for activations in self.activations]],
                reverse=self._reverse,
                batch_first=bool(self.layout),
                dtype=self._computed_in,
                parameters=to_layer(parameters, self.gate_order),
            )

        stack: Stack = parameters.derive("stack", make)
        return stack

    def _read(
        self, X: Any, sequence_lens: Any, initial: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray | None, Any]:
        """X, the lengths, and the state in the stack's form, checked."""
        X = read_array_of("X", X, self.dtype)
        if X.ndim != 3 or X.shape[2] != self.input_size:
            axes = "batch_size, seq_length" if self.layout else "seq_length, batch_size"
            raise ValueError(f"X: expected shape ({axes}, {self.input_size}), got {X.shape}")
        T, batch = X.shape[:2][:: -1 if self.layout else 1]
        lengths = None
        if sequence_lens is not None:
            lengths = read_lengths("sequence_lens", sequence_lens, T, batch)
        sizes = [len(self._reverse), self.hidden_size]
        sizes.insert(1 - self.layout, batch)
        parts = []
        for name, value in zip(self.STATE, initial, strict=True):
            if value is None:
                parts.append(np.zeros(sizes, self._computed_in))
            else:
                parts.append(read_array_of(name, value, self.dtype))
                check_shape(name, parts[-1], *sizes)
        return X, lengths, self._turned(parts)

    def _read_gradient(self, name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
        if value is None:
            return np.zeros(shape, self._computed_in)
        array = read_array(name, value, self._computed_in)
        check_shape(name, array, *shape)
        return array

    def _outputs(self, y: np.ndarray, state: Any) -> tuple[np.ndarray, ...]:
        """The operator's outputs, from those of the stack."""
        by_direction = y.reshape(*y.shape[:2], len(self._reverse), self.hidden_size)
        Y = by_direction if self.layout else by_direction.swapaxes(1, 2)
        finals = (np.ascontiguousarray(part) for part in parts_of(self._turned(parts_of(state))))
        return self._cast(np.ascontiguousarray(Y)), *map(self._cast, finals)

    def _turned(self, parts: Sequence[np.ndarray]) -> Any:
        """A state, from the stack's form to the operator's or back: axes swap with layout=1."""
        return form_of([part.swapaxes(0, 1) if self.layout else part for part in parts])

    def _cast(self, array: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # a number too large for float16 becomes inf, as in NumPy
            return array.astype(self.dtype, copy=False)

    def __repr__(self) -> str:
        """The sizes, and the attributes that differ from their default."""
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
        directions = len(self._reverse)
        return read_activations(None, None, None, self.ACTIVATIONS, directions)


def _last_axis(name: str, array: np.ndarray, size: str) -> int:
    if array.ndim != 3 or not array.shape[2]:
        raise ValueError(f"{name}: expected shape (directions, rows, {size}), got {array.shape}")
    return int(array.shape[2])


AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


def takes_attributes_of(operator: type[Operator]) -> Callable[[AnyCallable], AnyCallable]:
    """Make `inspect.signature` show the keyword arguments of `operator` instead of ``**``."""

    def keywords(function: Callable[..., Any]) -> list[inspect.Parameter]:
        parameters = inspect.signature(function).parameters.values()
        return [one for one in parameters if one.kind is one.KEYWORD_ONLY]

    def show(function: AnyCallable) -> AnyCallable:
        signature = inspect.signature(function)
        inputs = [one for one in signature.parameters.values() if one.kind < one.KEYWORD_ONLY]
        inputs = [one for one in inputs if one.kind is not one.VAR_POSITIONAL]
        attributes = sorted(keywords(operator) + keywords(function), key=lambda one: one.name)
        shown = signature.replace(parameters=[*inputs, *attributes])
        function.__signature__ = shown  # type: ignore[attr-defined]
        return function

    return show
