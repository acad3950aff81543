"""Layers under Keras' names: kernel, recurrent_kernel, bias."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastlstm.interop.arrays.group import Found, Group, Place, Unsaid
from fastlstm.interop.keras.weights import arrays_of
from fastlstm.interop.recurrent import BY_GATES, check_matrix

PARTS = {"kernel": "weight_ih", "recurrent_kernel": "weight_hh", "bias": "bias"}
NAME = re.compile(
    r"(?P<prefix>(?:.*?[^A-Za-z0-9])??)(?P<part>recurrent_kernel|kernel|bias)(?P<end>(?::\d+)?)",
    re.DOTALL,
)
# The two directions of a Bidirectional: their cells may be numbered, each in its own way.
SIDE = re.compile(
    r"(?P<start>(?:.*[/.])?)(?P<side>forward|backward)_(?P<layer>[^/.]*)(?P<cell>[/.].*)", re.DOTALL
)
HARD = "Keras' weights do not say which activation the gates have"


@dataclass
class KerasGroup(Group):
    """Such a layer of one direction, or a pair of them in Keras' `Bidirectional`."""

    prefixes: tuple[str, ...] = ()  # of the directions
    end: str = ""  # of every name, like ":0"

    def name_of(self, place: Place) -> str:
        _, direction, part = place
        spelled = next(name for name, own in PARTS.items() if own == part)
        return f"{self.prefixes[direction]}{spelled}{self.end}"

    def read(self, arrays: Mapping[str, Any]) -> Found:
        has_bias = any(part == "bias" for _, _, part in self.places)
        read = [self._read_direction(arrays, d, has_bias) for d in range(len(self.prefixes))]
        if len({kind for kind, _, _ in read}) > 1 or any(o != read[0][2] for _, _, o in read):
            raise ValueError(f"{self.prefix!r}: expected two directions of one kind")
        kind, _, options = read[0]
        found = Found(kind, [[made for _, made, _ in read]], dict(options))
        if kind == "GRU" and not has_bias:
            reason = "only the shape of a bias would say it"
            found.unsaid.append(Unsaid("reset_after", reason, lambda f: {"linear_before_reset": f}))
        if kind == "RNN":
            reason = "Keras' weights do not say which activation the layer has"
            found.unsaid.append(Unsaid("nonlinearity", reason, lambda f: {"nonlinearity": f}))
        elif not found.options.pop("is_cudnn"):
            others = ("tanh", "tanh") if kind == "LSTM" else ("tanh",)
            found.unsaid.append(
                Unsaid("recurrent_activation", HARD, lambda f: {"activations": (f, *others)})
            )
        return found

    def _read_direction(
        self, arrays: Mapping[str, Any], direction: int, has_bias: bool
    ) -> tuple[str, dict[str, Any], dict[str, Any]]:
        kernel, recurrent = (
            self.take(arrays, (0, direction, part)) for part in ("weight_ih", "weight_hh")
        )
        bias = self.take(arrays, (0, direction, "bias")) if has_bias else None
        name = self.places[0, direction, "weight_hh"]
        check_matrix(name, recurrent)
        H, columns = recurrent.shape
        if columns % H or columns // H not in BY_GATES:
            raise ValueError(
                f"{name}: expected columns 4, 3 or 1 times the {H} rows, for the gates of an LSTM, "
                f"GRU or RNN, got shape {recurrent.shape}"
            )
        kind = BY_GATES[columns // H]
        reset_after = True if bias is None else None  # either would do: `read` asks for it
        try:
            made, options = arrays_of(kind, kernel, recurrent, bias, reset_after=reset_after)
        except ValueError as error:
            raise ValueError(f"{self.prefixes[direction]}{error}") from error
        if kind != "RNN":
            is_cudnn = bias is not None and bias.shape == (2 * columns,)
            options = options | {"is_cudnn": is_cudnn}
        return kind, made, options


def find(names: Iterable[str]) -> list[KerasGroup]:
    """Return the groups among names, in the order of their first names."""
    single: dict[str, KerasGroup] = {}
    for name in names:
        if match := NAME.fullmatch(name):
            prefix = match["prefix"]
            group = single.setdefault(prefix, KerasGroup(prefix, {}, (prefix,), match["end"]))
            group.add((0, 0, PARTS[match["part"]]), name)
    sides: dict[tuple[str, str], dict[str, list[KerasGroup]]] = {}
    groups = [group for group in single.values() if (0, 0, "weight_hh") in group.places]
    for group in groups:
        if match := SIDE.fullmatch(group.prefix):
            key = match["start"], match["layer"] + re.sub(r"_\d+", "", match["cell"])
            sides.setdefault(key, {}).setdefault(match["side"], []).append(group)
    for (start, _), both in sides.items():
        if [len(both.get(side, ())) for side in ("forward", "backward")] == [1, 1]:
            (first,), (second,) = both["forward"], both["backward"]
            joined = KerasGroup(start, {}, first.prefixes + second.prefixes, first.end)
            for direction, group in enumerate((first, second)):
                for (_, _, part), name in group.places.items():
                    joined.add((0, direction, part), name)
            groups[groups.index(first)] = joined
            groups.remove(second)
    return groups
