"""Parameters, gradients, and what is known of a result: what passes between modules."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


@dataclass(slots=True)
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
        self.arrays = {name: _sealed(array) for name, array in arrays.items()}
        self.derived: dict[Any, Any] = {}

    def derive(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return the result of `make()`, computed once for each `key` and stored in `derived`."""
        found = self.derived.get(key)
        if found is None:
            # If two threads compute the object, both use the one that was stored first.
            found = self.derived.setdefault(key, make())
        return found

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (self.arrays,)


NO_PARAMETERS = Parameters({})


def _sealed(array: np.ndarray) -> np.ndarray:
    """A view of `array` that nobody can make writable; of a copy if others can write its memory."""
    array = np.asarray(array)  # joblib.load(path, mmap_mode="r") gives a subclass
    if array.base is not None:
        try:
            array.view().flags.writeable = True
        except ValueError:
            return array
        array = array.copy()
    array.flags.writeable = False
    return array.view()


class Output(NamedTuple):
    """What is known of a module's result before it is computed."""

    features: int | None = None  # the size of its last axis
    dtype: np.dtype | None = None
    reverse: tuple[bool, ...] = (False,)  # of the directions whose parts lie in the last axis
    batch_first: bool | None = None
    pooled: bool = False  # whether it has no steps, but one vector for each row


class Names(NamedTuple):
    """The names that `Module.load_state_dict` left, as in torch."""

    missing_keys: list[str]
    unexpected_keys: list[str]
