"""The base class of all layers: parameters, a call, forward and backward."""

import inspect
import textwrap
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from fastlstm.checks import read_array


@dataclass
class Gradients:
    """The gradients that `backward` returns.

    Attributes
    ----------
    x : array, or list of arrays if the input was a list
        Gradient of the input, in the input's shape. None if the input has no gradient (indices).
    state : array, tuple of arrays, or None
        Gradient of the initial state, in the state's form.
    params : dict of str to array
        Gradient of every parameter, under the names of `Module.state_dict`.
    """

    x: Any = None
    state: Any = None
    params: dict[str, np.ndarray] = field(default_factory=dict)


class Parameters(Mapping[str, np.ndarray]):
    """The values of a layer's parameters at one moment: read-only arrays, and derived objects.

    A change of parameters makes a new object. So the values in a tape, or in a call on another
    thread, never change, and `derived` (packed copies) always fits the values.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = dict(arrays)
        for array in self._arrays.values():
            array.flags.writeable = False
        self.derived: dict[Any, Any] = {}

    def derive(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result of `make()`, computed once for each `key` and stored in `derived`."""
        found = self.derived.get(key)
        if found is None:
            # If two threads compute the object, both use the one that was stored first.
            found = self.derived.setdefault(key, make())
        return found

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self._arrays,)


class Module:
    """Base class of all layers, and of a user's own models.

    ``module(x)`` is inference. ``module.forward(x)`` is the call of training: it applies dropout
    and returns the result with a tape, from which ``module.backward(tape, dresult)`` computes the
    `Gradients`. A tape serves one backward. (torch's `forward` is this library's ``module(x)``.)

    A subclass defines `__call__`, `forward` and `backward`. A module assigned to an attribute
    becomes a child: its parameters are also parameters of the model, as "attribute.name". `define`
    adds parameters of the model itself, and `collect` joins the gradients of children and of these
    parameters. Modules in a list are not children; use a `Sequential` for several.

    A `Sequential` calls a module with ``is_recurrent = True`` as it calls an `LSTM`:
    ``(y, state) = module(x, state, **options)``.

    Examples
    --------
    A recurrent layer with a residual connection and a learned scale:

    >>> import numpy as np, fastlstm as fl
    >>> class Residual(fl.Module):
    ...     def __init__(self, size):
    ...         self.lstm = fl.LSTM(size, size, rng=0)
    ...         self.define(scale=np.ones(size, np.float32))
    ...     def __call__(self, x):
    ...         return x + self.scale * self.lstm(x)[0]
    ...     def forward(self, x):
    ...         (y, _), tape = self.lstm.forward(x)
    ...         return x + self.scale * y, (tape, y)
    ...     def backward(self, tape, dresult):
    ...         tape, y = tape
    ...         grads = self.lstm.backward(tape, self.scale * dresult)
    ...         dscale = (y * dresult).sum(axis=(0, 1))
    ...         return self.collect(x=dresult + grads.x, lstm=grads, scale=dscale)
    >>> model = Residual(3)
    >>> result, tape = model.forward(np.ones((7, 2, 3), np.float32))
    >>> fl.optim.SGD(lr=0.1).step(model, model.backward(tape, result))
    >>> list(model.parameters())[:2]
    ['scale', 'lstm.weight_ih_l0']
    """

    is_recurrent = False  # whether calls take and return a state
    _parameters: Parameters

    def __call__(self, x: Any) -> Any:
        """Return the result for x, as inference: nothing is saved."""
        raise NotImplementedError(f"{type(self).__name__}: expected a __call__ of its own")

    def forward(self, x: Any) -> tuple[Any, Any]:
        """Return the result for x as in training, and the tape for `backward`."""
        raise NotImplementedError(f"{type(self).__name__}: expected a forward of its own")

    def backward(self, tape: Any, dresult: Any) -> Gradients:
        """Return gradients of the input and of every parameter, from that of the result."""
        raise NotImplementedError(f"{type(self).__name__}: expected a backward of its own")

    # Parameters.

    def define(self, **arrays: Any) -> None:
        """Add parameters to the module itself.

        Parameters
        ----------
        **arrays : float32 or float64 arrays
            By name; they are copied.

        Raises
        ------
        ValueError
            A name is an attribute already.
        TypeError
            An array has another dtype.
        """
        own = dict(self.__dict__.get("_parameters", {}))
        for name, value in arrays.items():
            if name in self.__dict__ or hasattr(type(self), name):
                raise ValueError(f"{name}: expected a new name, but it is an attribute already")
            array = np.array(value)
            if array.dtype not in (np.float32, np.float64):
                raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
            own[name] = array
        self._parameters = Parameters(own)

    def parameters(self) -> Mapping[str, np.ndarray]:
        """Return every parameter by name, as read-only arrays; a child's as "child.name"."""
        own: Mapping[str, np.ndarray] = self.__dict__.get("_parameters", {})
        children = self._children
        if not children:
            return own
        return {**own, **_prefixed({k: m.parameters() for k, m in children.items()})}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set all parameters to `arrays`, without a copy.

        This is for optimizers, which make new arrays; use `load_state_dict` otherwise.

        Parameters
        ----------
        arrays : mapping of str to array
            Every parameter by name, with the right shape and dtype. The arrays become read-only.

        Raises
        ------
        ValueError
            Names are missing or unknown.
        """
        if arrays.keys() != self.parameters().keys():
            raise ValueError(f"arrays: expected {list(self.parameters())}, got {list(arrays)}")
        own = self.__dict__.get("_parameters", {})
        for name, child in self._children.items():
            child.assign({key: arrays[f"{name}.{key}"] for key in child.parameters()})
        if own or not self._children:
            self._parameters = Parameters(
                {name: arrays[name] for name in own} if self._children else arrays
            )

    def collect(self, *, x: Any = None, state: Any = None, **parts: Any) -> Gradients:
        """Return the module's `Gradients`, joined from those of children and of own parameters.

        Parameters
        ----------
        x, state : gradients of the input and of the initial state
        **parts
            By name: the `Gradients` of a child, or the gradient of one of its own parameters.

        Raises
        ------
        ValueError
            A name is neither that of a child nor that of a parameter.
        """
        params: dict[str, np.ndarray] = {}
        for name, array in (("x", x), ("state", state)):
            if isinstance(array, Gradients):
                raise TypeError(
                    f"{name}: expected an array, got Gradients; rename the child {name}"
                )
        for name, part in parts.items():
            if name in self._children and isinstance(part, Gradients):
                params |= {f"{name}.{key}": array for key, array in part.params.items()}
            elif name in self.__dict__.get("_parameters", ()):
                params[name] = np.asarray(part, self._parameters[name].dtype)
            else:
                raise ValueError(
                    f"{name}: expected Gradients of a child or the gradient of a parameter, "
                    f"got {type(part).__name__}"
                )
        return Gradients(x, state, params)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Return a copy of every parameter, under torch's names."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set every parameter to a copy of an array of the same name and shape.

        Parameters
        ----------
        state_dict : mapping of str to array

        Raises
        ------
        ValueError
            Names are missing or unknown, or a shape differs. The layer is then unchanged.
        TypeError
            `state_dict` is not a mapping of real arrays. The layer is then unchanged.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict: expected a mapping of names to arrays, got {type(state_dict)!r}"
            )
        parameters = self.parameters()
        missing = [name for name in parameters if name not in state_dict]
        unknown = [name for name in state_dict if name not in parameters]
        if missing or unknown:
            raise ValueError(f"state_dict: missing names {missing}, unknown names {unknown}")
        arrays = {}
        for name, old in parameters.items():
            new = read_array(f"state_dict[{name!r}]", state_dict[name], old.dtype)
            if new.shape != old.shape:
                raise ValueError(
                    f"state_dict[{name!r}]: expected shape {old.shape}, got {new.shape}"
                )
            arrays[name] = new.copy()
        self.assign(arrays)

    def num_parameters(self) -> int:
        """Return how many numbers the parameters have together."""
        return sum(array.size for array in self.parameters().values())

    @property
    def _children(self) -> dict[str, "Module"]:
        children: dict[str, Module] = self.__dict__.get("_child_modules", {})
        return children

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_parameters", ()):
            raise AttributeError(f"{name}: a parameter is set by load_state_dict or an optimizer")
        if isinstance(value, Module):
            for other, child in self._children.items():
                if child is value and other != name:
                    raise ValueError(f"{name}: expected another module than the child {other}")
            self.__dict__.setdefault("_child_modules", {})[name] = value
        elif name in self._children:
            del self._children[name]
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._children.pop(name, None)

    def __getattr__(self, name: str) -> np.ndarray:
        # Python calls this only for names that are not attributes; while unpickling, even before
        # `_parameters` exists.
        parameters: Mapping[str, np.ndarray] = self.__dict__.get("_parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        """The arguments of the constructor that have no default or another value than it.

        If one of these is not an attribute, the children instead.
        """
        texts = []
        for name, argument in inspect.signature(type(self).__init__).parameters.items():
            if name in ("self", "rng") or argument.kind is argument.VAR_KEYWORD:
                continue
            value = self._argument(name, argument.default)
            if value is inspect.Parameter.empty:
                return self._with_children()
            value = value.name if isinstance(value, np.dtype) else value
            default = np.dtype(argument.default).name if name == "dtype" else argument.default
            if argument.default is inspect.Parameter.empty:
                texts.append(repr(value))
            elif repr(value) != repr(default):
                texts.append(f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(texts)})"

    def _with_children(self) -> str:
        lines = [f"({name}): {child!r}" for name, child in self._children.items()]
        inner = textwrap.indent("\n".join(lines), "  ")
        return f"{type(self).__name__}(\n{inner}\n)" if lines else f"{type(self).__name__}()"

    def _argument(self, name: str, default: Any) -> Any:
        """The value of an argument of the constructor, or `default`."""
        return self.__dict__.get(name, default)


def _prefixed(parts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{prefix}.{name}": array for prefix, own in parts.items() for name, array in own.items()
    }


@dataclass(slots=True, eq=False)
class Tape:
    """The arrays and options of a `forward` for its `backward`; its fields are not public.

    It has copies of all that a caller may change.
    """

    layer: Module
    # One item, which a backward takes: of two at once on two threads, one gets it.
    unused: list[None] = field(default_factory=lambda: [None], init=False)

    def claim(self) -> None:
        """Take the tape for one backward; ValueError if another has it."""
        try:
            self.unused.pop()
        except IndexError:
            raise _used() from None

    def give_back(self) -> None:
        """Undo `claim`, for a backward that has not changed the tape."""
        self.unused.append(None)


AnyTape = TypeVar("AnyTape", bound=Tape)


def check_tape(tape: Any, kind: type[AnyTape], layer: Module) -> AnyTape:
    """Return `tape`, which must be from `layer` and not be claimed by a backward."""
    if not isinstance(tape, kind) or tape.layer is not layer:
        raise ValueError(f"tape: expected what this layer's forward returned, got {_origin(tape)}")
    if not tape.unused:
        raise _used()
    return tape


def _used() -> ValueError:
    return ValueError("tape: expected one not used yet; each forward serves one backward")


def _origin(tape: Any) -> str:
    if isinstance(tape, Tape):
        return f"that of another layer, {type(tape.layer).__name__}"
    return type(tape).__name__
