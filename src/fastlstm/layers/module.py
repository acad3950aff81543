"""What every layer is: parameters behind two doors, forward, backward."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastlstm.checks import as_array


@dataclass
class Gradients:
    """What `backward` returns.

    Attributes
    ----------
    x : array, or list of arrays where the input was a list
        Gradient of the input, in the input's shape. None for inputs that have none (indices).
    state : array, tuple of arrays, or None
        Gradient of the initial state, shaped as the state is.
    params : dict of str to array
        Gradient of every parameter, under the names of `Module.state_dict`.
    """

    x: Any = None
    state: Any = None
    params: dict[str, np.ndarray] = field(default_factory=dict)


class Parameters(Mapping[str, np.ndarray]):
    """A layer's parameters at one moment: read-only arrays, and what was derived from them.

    A change of parameters is a new object, so whoever holds one (a call on another thread, a tape)
    holds values that never move, and `derived` (packed copies) cannot go stale.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = dict(arrays)
        for array in self._arrays.values():
            array.flags.writeable = False
        self.derived: dict[Any, Any] = {}

    def derive(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make()` gives, made once for each `key` and kept as long as these parameters."""
        try:
            return self.derived[key]
        except KeyError:
            # Two threads may both make it; they then share the one that was stored first.
            return self.derived.setdefault(key, make())

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self._arrays,)


class Module:
    """Base of all layers.

    `module(x)` is inference. `module.forward(x)` returns the result and a tape,
    `module.backward(tape, dresult)` the `Gradients`. A tape serves one backward.
    """

    is_recurrent = False  # whether calls take and return a state
    _parameters: Parameters

    def __call__(self, x: Any) -> Any:
        raise NotImplementedError

    def forward(self, x: Any) -> tuple[Any, Any]:
        raise NotImplementedError

    def backward(self, tape: Any, dresult: Any) -> Gradients:
        raise NotImplementedError

    def parameters(self) -> Mapping[str, np.ndarray]:
        """Every parameter by name, as read-only arrays."""
        return self._parameters

    def _replace_parameters(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take over `arrays` (complete, of the right shapes and dtypes, nobody else's)."""
        self._parameters = Parameters(arrays)

    def state_dict(self) -> dict[str, np.ndarray]:
        """A copy of every parameter, under torch's names."""
        return {name: array.copy() for name, array in self.parameters().items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set every parameter from arrays of the same names and shapes.

        Raises
        ------
        ValueError
            Names are missing or unknown, or a shape differs; the layer is as it was before.
        TypeError
            Not a mapping of real arrays.
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
            new = as_array(f"state_dict[{name!r}]", state_dict[name], old.dtype)
            if new.shape != old.shape:
                raise ValueError(
                    f"state_dict[{name!r}]: expected shape {old.shape}, got {new.shape}"
                )
            arrays[name] = new.copy()
        self._replace_parameters(arrays)

    def num_parameters(self) -> int:
        """How many numbers the layer learns."""
        return sum(array.size for array in self.parameters().values())

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_parameters", ()):
            raise AttributeError(f"{name}: a parameter is set by load_state_dict or an optimiser")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> np.ndarray:
        # Only reached for names that are no attribute; __dict__, since unpickling asks early.
        parameters: Mapping[str, np.ndarray] = self.__dict__.get("_parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
