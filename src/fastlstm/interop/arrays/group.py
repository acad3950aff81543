"""The arrays of one recurrent layer among many, found by their names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import read_numbers, take_array

Place = tuple[int, int, str]  # layer, direction, part


class Unsaid(NamedTuple):
    """An argument of the layer that its arrays do not say."""

    name: str
    reason: str
    options: Callable[[Any], dict[str, Any]]  # of the layer, for a value of the argument


@dataclass
class Found:
    """What the arrays of a group say; the fields are arguments of `recurrent.make`."""

    kind: str
    layers: list[list[dict[str, np.ndarray]]]
    options: dict[str, Any] = field(default_factory=dict)
    unsaid: list[Unsaid] = field(default_factory=list)


@dataclass
class Group:
    """The names of one layer's arrays, by their place in the layer."""

    prefix: str
    places: dict[Place, str] = field(default_factory=dict)

    def add(self, place: Place, name: str) -> None:
        """Take a name into the group; ValueError if its place is taken."""
        if place in self.places:
            raise ValueError(f"{name}: expected one name for one array, got {self.places[place]}")
        self.places[place] = name

    def name_of(self, place: Place) -> str:
        """The name that an array at a place has, or would have."""
        raise NotImplementedError

    def read(self, arrays: Mapping[str, Any]) -> Found:
        """Return what the arrays say; ValueError if some are missing or do not fit."""
        raise NotImplementedError

    def describe(self, arrays: Mapping[str, Any]) -> str:
        """Kind and sizes in a few words."""
        try:
            found = self.read(arrays)
        except (TypeError, ValueError):
            return "incomplete or of shapes that do not fit"
        first = found.layers[0][0]
        words = [f"{found.kind}, {first['weight_ih'].shape[1]} to {first['weight_hh'].shape[1]}"]
        if len(found.layers) > 1:
            words.append(f"{len(found.layers)} layers")
        if len(found.layers[0]) > 1:
            words.append("bidirectional")
        return ", ".join(words)

    def with_own_name(self, text: str) -> str:
        """An error's text that begins with a parameter's name, with the name in the mapping."""
        for (layer, direction, part), name in self.places.items():
            parameter = f"{part}_l{layer}{'_reverse' if direction else ''}:"
            if text.startswith(parameter):
                return f"{name}:{text[len(parameter) :]}"
        return text

    def depth(self) -> int:
        """The number of layers, of which none may be missing."""
        layers = {layer for layer, _, _ in self.places}
        for layer in range(len(layers)):
            if layer not in layers:
                name = self.name_of((layer, 0, "weight_ih"))
                raise ValueError(f"{name}: expected an array, as layer {max(layers)} has, got none")
        return len(layers)

    def positions(self) -> Iterator[tuple[int, int]]:
        """Each layer with each direction that one of the layers has."""
        directions = 1 + max(direction for _, direction, _ in self.places)
        for layer in range(self.depth()):
            for direction in range(directions):
                yield layer, direction

    def take(self, arrays: Mapping[str, Any], place: Place) -> np.ndarray:
        """Return the array at a place."""
        if place not in self.places:
            raise ValueError(f"{self.name_of(place)}: expected an array, got none")
        return read_weights(self.places[place], arrays[self.places[place]])


def read_weights(name: str, value: Any) -> np.ndarray:
    """Return the weights of an entry, which must be floating-point numbers."""
    array = read_numbers(name, take_array(name, value))
    if array.dtype.kind != "f" and not isinstance(value, (list, tuple)):
        raise TypeError(
            f"{name}: expected floating-point numbers, got dtype {array.dtype}, as of weights that "
            "are quantized"
        )
    return array
