"""The common part of the recurrent layers: torch's arguments and their descriptions."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from fastlstm.checks import memory_for, read_flag, read_size
from fastlstm.engine.cell import Cell
from fastlstm.engine.initial import initial
from fastlstm.engine.stack import Stack
from fastlstm.kernels.arguments import Masks

SHARED = {
    "input_size": """int
        Features of the input, I.""",
    "hidden_size": """int or list of int
        Hidden units, H; a list has one number for each layer. If layers differ, each part of a
        state is a list of arrays (directions, B, H_k), one for each layer.""",
    "num_layers": """int
        Number of layers; the input of a layer is the output of the layer below.""",
    "bias": """bool or "single"
        Whether there are biases. "single": only bias_ih is trained, as in libraries with one bias;
        bias_hh begins as zero, and its gradient is given as zero.""",
    "batch_first": """bool
        Whether x and the output are (B, T, features) instead of (T, B, features).""",
    "dropout": """float in [0, 1]
        In training, the probability that a value between layers is zeroed. The output of the last
        layer is never dropped.""",
    "bidirectional": """bool
        Whether each layer has a second direction, which reads x from the end. The output has the
        features of both, forward first.""",
    "clip": """float, optional
        Bound of the arguments of gates and candidate: they are limited to ±clip (ONNX), after
        peepholes are added.""",
    "learn_initial_state": """bool
        Whether the initial state of calls without a state is a parameter. The state after a reset
        is zero in any case.""",
    "dtype": """float32 or float64
        Dtype of parameters, results and arithmetic; x and states of other dtypes are cast to
        it.""",
    "rng": """None, seed or numpy.random.Generator
        Source of initial values and of all random numbers in training.""",
}

AnyClass = TypeVar("AnyClass", bound=type)


def read_bias(value: Any) -> Any:
    """Read the argument `bias`: a bool or "single"."""
    if isinstance(value, str) and value == "single":
        return value
    if isinstance(value, str):
        raise ValueError(f'bias: expected True, False or "single", got {value!r}')
    return read_flag("bias", value)


def untrained(bias: Any) -> tuple[str, ...]:
    """The parameters of a cell that stay as they are in training."""
    return ("bias_hh",) if bias == "single" else ()


def describe_shared(page: AnyClass, shared: Mapping[str, str] = SHARED) -> AnyClass:
    """Put the shared descriptions in place of lines "name : ..." of a class's docstring."""
    text = inspect.getdoc(page) or ""
    for name, description in shared.items():
        lines = inspect.cleandoc(description).split("\n")
        text = text.replace(f"{name} : ...", f"{name} : " + "\n    ".join(lines))
    page.__doc__ = text
    return page


class HiddenCell:
    """The common part of cells whose only state is h."""

    GATES: int
    state: tuple[str, ...] = ("h",)
    draws = False

    def __init__(self, inputs: int, H: int, bias: Any, options: Any, init: str = "torch"):
        self.inputs, self.H = inputs, H
        self.bias, self.options, self.init = bias, options, init

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.H,)

    @property
    def untrained(self) -> tuple[str, ...]:
        return untrained(self.bias)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        rows, H = self.GATES * self.H, self.H
        biases = {"bias_ih": (rows,), "bias_hh": (rows,)} if self.bias else {}
        return {"weight_ih": (rows, self.inputs), "weight_hh": (rows, H), **biases}

    def initial(self, rng: "np.random.Generator") -> dict[str, np.ndarray]:
        return initial(self.shapes(), self.H, self.init, rng)

    def draw(self, rng: "np.random.Generator", T: int, B: int) -> Masks | None:
        return None


class Recurrent(Stack):
    """A stack of cells under the arguments of torch's recurrent layers."""

    def __init__(
        self,
        cell: Callable[[int, int], Cell],  # takes the numbers of inputs and of hidden units
        *,
        input_size: int,
        hidden_size: Any,
        num_layers: int,
        bidirectional: bool,
        **options: Any,  # arguments of Stack
    ):
        self.input_size = read_size("input_size", input_size)
        self.num_layers = read_size("num_layers", num_layers)
        self.bidirectional = read_flag("bidirectional", bidirectional)
        self.hidden_size: int | list[int] = _read_hidden_size(hidden_size)
        widths = self.hidden_size
        if not isinstance(widths, list):
            # An error now, by name, if memory lacks for so many layers: each has objects of about
            # 2 kB, and rows of weights.
            least = self.num_layers, 500 + 2 * widths
            with memory_for("num_layers, hidden_size", least):
                np.empty(least, np.float32)
            widths = [widths] * self.num_layers
        elif self.num_layers not in (1, len(widths)):
            raise ValueError(
                f"num_layers: hidden_size gives {len(widths)} layers, got {self.num_layers}"
            )
        self.num_layers = len(widths)
        reverse = (False, True) if self.bidirectional else (False,)
        cells, inputs = [], self.input_size
        for width in widths:
            cells.append([cell(inputs, width) for _ in reverse])
            inputs = len(reverse) * cells[-1][0].sizes[0]
        super().__init__(cells, reverse=reverse, **options)

    def _argument(self, name: str, default: Any) -> Any:
        if name == "num_layers" and isinstance(self.hidden_size, list):
            return default  # the length of the list is the number of layers
        return super()._argument(name, default)


def _read_hidden_size(hidden_size: Any) -> int | list[int]:
    """Read the width of all layers, or a list of the width of each."""
    if not isinstance(hidden_size, (list, tuple)):
        return read_size("hidden_size", hidden_size)
    if not hidden_size:
        raise ValueError("hidden_size: expected at least one layer, got none")
    return [read_size("hidden_size", width) for width in hidden_size]
