"""A recurrent layer's state as callers give and get it."""

from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm.checks import as_array, check_shape

# One part of it, [layers · directions, B, size]; that many [B, size] where layers differ in width.
Part: TypeAlias = np.ndarray | list[np.ndarray]


class StateLayout(NamedTuple):
    """The parts of a state and their sizes.

    For a caller a part is an array [layers · directions, B, size], or where layers differ in width
    a list of one array [directions, B, size] for each layer.
    """

    names: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]  # of every part, by layer
    directions: int

    def empty(self, batch: int, dtype: np.dtype) -> tuple[Part, ...]:
        return tuple(self._empty_part(sizes, batch, dtype) for sizes in self.sizes)

    def read(
        self, name: str, state: Any, batch: int, single: bool, dtype: np.dtype
    ) -> tuple[Part, ...]:
        """A caller's state, contiguous; zeros for None. `single` ones have no batch axis."""
        if state is None:
            parts = self.empty(batch, dtype)
            for part in parts:
                for array in part:
                    array[...] = 0
            return parts
        names = self.names
        if len(names) == 1:
            state = (state,)
        if not isinstance(state, (tuple, list)) or len(state) != len(names):
            length = f" of {len(state)}" if isinstance(state, (tuple, list)) else ""
            wanted, came = ", ".join(names), type(state).__name__
            raise ValueError(f"{name}: expected a tuple ({wanted}), got a {came}{length}")
        return tuple(
            self._read_part(f"{name}: {part_name}", part, sizes, batch, single, dtype)
            for part_name, part, sizes in zip(names, state, self.sizes, strict=True)
        )

    def give_back(self, state: tuple[Part, ...], single: bool) -> Any:
        parts: list[Any] = []
        for part in state:
            if isinstance(part, list):
                starts = range(0, len(part), self.directions)
                layers = [np.stack(part[start : start + self.directions]) for start in starts]
                parts.append([array[:, 0] for array in layers] if single else layers)
            else:
                parts.append(part[:, 0] if single else part)
        return tuple(parts) if len(parts) > 1 else parts[0]

    def _empty_part(self, sizes: tuple[int, ...], batch: int, dtype: np.dtype) -> Part:
        if len(set(sizes)) == 1:
            return np.empty((len(sizes) * self.directions, batch, sizes[0]), dtype)
        return [np.empty((batch, size), dtype) for size in sizes for _ in range(self.directions)]

    def _read_part(
        self,
        name: str,
        value: Any,
        sizes: tuple[int, ...],
        batch: int,
        single: bool,
        dtype: np.dtype,
    ) -> Part:
        def read(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
            array = as_array(name, value, dtype)
            check_shape(name, array, *(shape[::2] if single else shape))
            return np.ascontiguousarray(array).reshape(shape)

        if len(set(sizes)) == 1:
            return read(name, value, (len(sizes) * self.directions, batch, sizes[0]))
        if not isinstance(value, (tuple, list)) or len(value) != len(sizes):
            raise ValueError(
                f"{name}: expected a list of {len(sizes)} arrays, one for each layer, whose "
                f"widths differ; got a {type(value).__name__}"
            )
        layers = [
            read(f"{name}[{k}]", array, (self.directions, batch, size))
            for k, (array, size) in enumerate(zip(value, sizes, strict=True))
        ]
        return [row for layer in layers for row in layer]


def arrays_of(state: tuple[Part, ...]) -> list[np.ndarray]:
    """All arrays of a state, as they lie in memory."""
    return [array for part in state for array in (part if isinstance(part, list) else [part])]


def copy_of(part: Part) -> Part:
    return [array.copy() for array in part] if isinstance(part, list) else part.copy()
