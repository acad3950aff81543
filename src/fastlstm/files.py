"""Models as files: the arrays in the format safetensors, the architecture as JSON beside them.

The architecture is the class of every module with the arguments of its constructor. A class is
found by its name among the layers of this package and the modules that the caller gives, so a file
can run no code.
"""

import inspect
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.checks import read_size
from fastlstm.engine.initial import undrawn
from fastlstm.engine.stack import Stack
from fastlstm.layers.activation import Activation
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.gru import GRU, GRUCell
from fastlstm.layers.linear import Linear
from fastlstm.layers.lstm import LSTM, LSTMCell
from fastlstm.layers.pool import Last, Pool
from fastlstm.layers.rnn import RNN, RNNCell
from fastlstm.layers.sequential import Sequential
from fastlstm.layers.steps.backwards import Backwards
from fastlstm.layers.steps.masking import Masking
from fastlstm.layers.steps.merge import Merge
from fastlstm.module import Module
from fastlstm.safetensors import Path, write_safetensors

LAYERS: dict[str, type[Module]] = {
    layer.__name__: layer
    for layer in (
        *(LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell),
        *(Linear, Activation, Embedding, Dropout, Pool, Last, Sequential),
        *(Backwards, Masking, Merge),
    )
}
KEY = "fastlstm"  # of the architecture in the file's metadata
MISSING = inspect.Parameter.empty


def save(path: Path, model: Module) -> None:
    """Write a model to one safetensors file, from which `fastlstm.load` makes it again.

    Parameters
    ----------
    path : str or path
        The file changes at once or, after an error, not at all.
    model : Module
        A layer, a `Sequential`, or a module of your own whose constructor keeps its arguments as
        attributes of the same names (numbers, text, None, lists, modules).

    Raises
    ------
    TypeError
        `model` is not a Module.
    ValueError
        A module does not keep its arguments, or they are of another kind.
    OSError
        The file cannot be written.

    Notes
    -----
    States of random generators are not part of the file.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastlstm as fl
    >>> model = fl.Sequential(fl.GRU(3, 5), fl.Linear(5, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.safetensors")
    ...     fl.save(path, model)
    ...     again = fl.load(path)
    >>> x = np.ones((7, 2, 3))
    >>> bool((again(x)[0] == model(x)[0]).all())
    True
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a Module, got {type(model).__name__}")
    architecture = json.dumps(_describe(model), allow_nan=False)
    write_safetensors(path, model.parameters(), {KEY: architecture})


def load_saved(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    modules: Mapping[str, type[Module]],
) -> Any:
    """Return the model that `save` wrote, in its dtype and with a random generator of its own.

    Parameters
    ----------
    path : str or path
        For errors.
    arrays, metadata : mappings
        What the file has: see `fastlstm.safetensors.read_safetensors`.
    modules : mapping of str to class
        The classes that the model has beside those of this package's layers, by name.

    Returns
    -------
    Module

    Raises
    ------
    ValueError
        The description of the model is damaged, or has a class that is not in `modules`.
    """
    try:
        numbers = sum(array.size for array in arrays.values())
        model = _Builder({**LAYERS, **modules}, numbers).build(json.loads(metadata[KEY]))
        if not isinstance(model, Module):
            raise ValueError(f"expected the description of a module, got {model!r:.60}")
        parameters = model.parameters()
        for name in arrays.keys() & parameters.keys():
            if arrays[name].dtype != parameters[name].dtype:
                expected, got = parameters[name].dtype, arrays[name].dtype
                raise ValueError(f"{name}: expected dtype {expected}, got {got}")
        if arrays.keys() == parameters.keys():
            model.assign(arrays)  # without a copy
        else:
            model.load_state_dict(arrays)  # raises
    except (ValueError, TypeError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return model


def _describe(value: Any) -> Any:
    """A value as JSON has it; a module as its class and its arguments."""
    if isinstance(value, Module):
        kind = type(value).__name__
        own = LAYERS.get(kind) is not type(value)
        if own and kind in LAYERS:
            raise ValueError(f"model: expected another name for a class of your own than {kind}")
        arguments = {}
        for name, argument in value._arguments().items():
            if own and value._argument(name, MISSING) is MISSING:
                raise ValueError(f"model: {kind} does not keep its argument {name} as an attribute")
            try:
                arguments[name] = _describe(argument)
            except TypeError as error:
                raise ValueError(f"model: {kind} has an argument {name} {error}") from None
        return {"class": kind, "arguments": arguments}
    if isinstance(value, (tuple, list)):
        return [_describe(part) for part in value]
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"of type {type(value).__name__}, which a file cannot hold")


class _Builder:
    """Makes modules of their descriptions, with no more numbers than the file holds."""

    def __init__(self, classes: Mapping[str, type[Module]], numbers: int):
        self.classes = classes
        self.left = numbers

    def build(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self.build(part) for part in value]
        if not isinstance(value, dict):
            return value
        if value.keys() != {"class", "arguments"} or not isinstance(value["arguments"], dict):
            raise ValueError(f"expected a class and its arguments, got {list(value)!r:.60}")
        kind = value["class"]
        if not isinstance(kind, str) or kind not in self.classes:
            advice = f"; if it is yours, load(path, modules={{{kind!r}: {kind}}})"
            raise ValueError(f"expected a layer of this fastlstm, got {kind!r:.60}{advice:.100}")
        made = self.classes[kind]
        arguments = {name: self.build(part) for name, part in value["arguments"].items()}
        known = inspect.signature(made).parameters
        if unknown := sorted(arguments.keys() - (known.keys() - {"rng"})):
            raise ValueError(f"{kind}: unknown arguments {unknown!r:.60}")
        if made in LAYERS.values():
            self.left -= _least_numbers(arguments)
            if self.left < 0:
                raise ValueError(f"{kind}: expected the sizes of the arrays in the file")
        several: list[Any] = []
        for name, parameter in known.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                several += arguments.pop(name, [])
        if made is LAYERS.get(kind) and issubclass(made, Stack):
            layer: Stack = made(*several, **arguments, rng=undrawn())
            layer._rng = np.random.default_rng()
            return layer
        return made(*several, **arguments)


def _least_numbers(arguments: Mapping[str, Any]) -> int:
    """How many numbers the parameters of a layer have at least, whatever its kind."""
    pairs = (("in_features", "out_features"), ("num_embeddings", "embedding_dim"))
    for names in pairs:
        if names[0] in arguments:
            a, b = (read_size(name, arguments.get(name)) for name in names)
            return a * b
    if "hidden_size" not in arguments:
        return 0
    inputs = read_size("input_size", arguments.get("input_size"))
    widths, total = arguments["hidden_size"], 0
    layers = read_size("num_layers", arguments.get("num_layers", 1))
    proj = read_size("proj_size", arguments.get("proj_size", 0), 0)
    for width in widths if isinstance(widths, list) else [widths]:
        H = read_size("hidden_size", width)
        total += H * inputs + H * (proj or H) * (1 if isinstance(widths, list) else layers)
        inputs = proj or H
    return total
