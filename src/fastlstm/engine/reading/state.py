"""The form in which callers give and get the state of a recurrent layer."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fastlstm.checks import check_shape, check_unmasked, read_array

# One part of a state: an array [layers · directions, B, size]; if layers differ in width, a list of
# arrays [directions, B, size], one for each layer. No axis B for a single sequence.
Part: TypeAlias = np.ndarray | list[np.ndarray]


class StateLayout(NamedTuple):
    """The arrays of a state and their sizes."""

    names: tuple[str, ...]
    sizes: tuple[tuple[int, ...], ...]  # for each array, its size in every layer
    directions: int

    @property
    def is_even(self) -> bool:
        """Whether all layers have the same width, so that each part is one array."""
        return all(len(set(sizes)) == 1 for sizes in self.sizes)

    def read(self, name: str, state: Any, batch: tuple[int, ...], dtype: np.dtype) -> Any:
        """A caller's state, or its gradient, ready for kernels; `batch` is (B,) or ()."""
        if state is None:
            return None
        return form_of(
            [
                self._read_part(part_name, part, sizes, batch, dtype)
                for part_name, part, sizes in self._named_parts(name, state)
            ]
        )

    def zeros(self, B: int, one_step: bool, dtype: np.dtype) -> Any:
        """A state of B rows; with `one_step` it has no axis of layers."""
        D = self.directions
        return form_of(
            [
                np.zeros((B, *sizes) if one_step else (len(sizes) * D, B, sizes[0]), dtype)
                if len(set(sizes)) == 1
                else [np.zeros((D, B, size), dtype) for size in sizes]
                for sizes in self.sizes
            ]
        )

    def read_step(self, name: str, state: Any, batch: tuple[int, ...], dtype: np.dtype) -> Any:
        """A caller's state of a cell, or its gradient, ready; it has no axis of layers."""
        if state is None:
            return None
        return form_of(
            [
                _read_one(part_name, part, (*batch, sizes[0]), dtype)
                for part_name, part, sizes in self._named_parts(name, state)
            ]
        )

    def _named_parts(self, name: str, state: Any) -> list[tuple[str, Any, tuple[int, ...]]]:
        """The parts of a caller's state, with their names in errors and their sizes."""
        names, wanted = self.names, f"a tuple ({', '.join(self.names)})"
        if len(names) == 1:
            return [(f"{name}: {names[0]}", state, self.sizes[0])]
        if not isinstance(state, (tuple, list)) or len(state) != len(names):
            raise ValueError(f"{name}: expected {wanted}, got a {_kind(state)}")
        for part_name, part, sizes in zip(names, state, self.sizes, strict=True):
            if isinstance(part, tuple) and len(set(sizes)) == 1:
                raise ValueError(
                    f"{name}: expected {wanted}, each one array for all layers and rows, "
                    f"got a {_kind(part)} for {part_name}"
                )
        full_names = (f"{name}: {part_name}" for part_name in names)
        return list(zip(full_names, state, self.sizes, strict=True))

    def of_layer(self, state: Any, layer: int) -> Any:
        """The state of one layer, from that of a stack."""
        if state is None:
            return None
        own = slice(layer * self.directions, (layer + 1) * self.directions)
        return form_of(
            [part[layer] if isinstance(part, list) else part[own] for part in parts_of(state)]
        )

    def joined(self, states: Sequence[Any]) -> Any:
        """The state of a stack, from that of every layer."""
        by_part = zip(*map(parts_of, states), strict=True)
        return form_of(
            [
                np.concatenate(layers) if len(set(sizes)) == 1 else list(layers)
                for layers, sizes in zip(by_part, self.sizes, strict=True)
            ]
        )

    def _read_part(
        self,
        name: str,
        value: Any,
        sizes: tuple[int, ...],
        batch: tuple[int, ...],
        dtype: np.dtype,
    ) -> Part:
        if len(set(sizes)) == 1:
            shape = (len(sizes) * self.directions, *batch, sizes[0])
            return _read_one(name, value, shape, dtype)
        if not isinstance(value, (tuple, list)) or len(value) != len(sizes):
            raise ValueError(
                f"{name}: expected a list of {len(sizes)} arrays, one for each layer, whose "
                f"widths differ; got a {_kind(value)}"
            )
        return [
            _read_one(f"{name}[{k}]", array, (self.directions, *batch, size), dtype)
            for k, (array, size) in enumerate(zip(value, sizes, strict=True))
        ]


def read_ready(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A caller's array of this shape, in a form that kernels can read."""
    array = read_array(name, value, dtype)
    check_shape(name, array, *shape)
    return ready(array)


def _read_one(name: str, value: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """One array of a caller's state.

    Several arrays are refused: they may be of rows or of layers, and only the caller knows.
    """
    check_unmasked(name, value)
    if _holds_arrays(value):
        raise ValueError(
            f"{name}: expected one array of shape {shape}, got a {_kind(value)} arrays"
        )
    return read_ready(name, value, shape, dtype)


def _holds_arrays(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and any(
        getattr(part, "ndim", 0) or _holds_arrays(part) for part in value
    )


def _kind(value: Any) -> str:
    length = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    return type(value).__name__ + length


def ready(array: np.ndarray) -> np.ndarray:
    """`array`, or a copy if it is not aligned or not contiguous along its last axis."""
    strides = array.strides[-1:] or (0,)
    is_dense = strides[0] == array.itemsize or array.shape[-1:] == (1,)
    if type(array) is np.ndarray and array.flags.aligned and is_dense:
        return array
    return np.array(array, order="C", subok=False)


def parts_of(state: Any) -> tuple[Any, ...]:
    """The parts of a state, which is a tuple if there are several and one part alone otherwise."""
    return state if isinstance(state, tuple) else (state,)


def arrays_of(state: Any) -> list[np.ndarray]:
    """All arrays of a state, or of the states of several layers."""
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in arrays_of(part)]
    return [] if state is None else [state]


def form_of(parts: Sequence[Any]) -> Any:
    """The state of these parts: see `parts_of`."""
    return tuple(parts) if len(parts) > 1 else parts[0]
