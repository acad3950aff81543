"""Layers under torch's names, or short forms of these."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.checks import check_shape
from fastlstm.interop.arrays.group import Found, Group, Place, Unsaid
from fastlstm.interop.recurrent import BY_GATES, check_matrix

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
OWN = (  # of this library's layers
    *("weight_peephole", "weight_ln_ih", "weight_ln_hh", "weight_ln_c", "bias_ln_c"),
    *("initial_h", "initial_c"),
)
NAME = re.compile(
    r"(?P<prefix>(?:.*?[^A-Za-z0-9])??)"
    rf"(?:(?P<part>{'|'.join((*PARTS, *OWN))})|(?P<letter>[wb])_(?P<side>ih|hh))"
    r"(?:_l(?P<layer>0|[1-9]\d{0,5}))?(?P<reverse>_reverse)?",
    re.DOTALL,
)
# Arrays of which a weight is computed: weight norm, pruning, dropped weights.
DERIVED = re.compile(r"(?P<name>.*weight_[ih]h_l\d+(?:_reverse)?)_(?:g|v|raw|orig|mask)", re.DOTALL)


@dataclass
class TorchGroup(Group):
    """Such a layer; `weight` and `bias` are how its names spell these."""

    weight: str = "weight"
    bias: str = "bias"
    has_layers: bool = True  # in the names; those of a cell have none

    def name_of(self, place: Place) -> str:
        layer, direction, part = place
        kind, _, rest = part.partition("_")
        spelled = {"weight": self.weight, "bias": self.bias}.get(kind, kind)
        suffix = f"_l{layer}" if self.has_layers else ""
        return f"{self.prefix}{spelled}_{rest}{suffix}{'_reverse' if direction else ''}"

    def read(self, arrays: Mapping[str, Any]) -> Found:
        self._check_derived(arrays)
        parts = {part for _, _, part in self.places} | {"weight_ih", "weight_hh"}
        if parts & {"bias_ih", "bias_hh"}:
            parts |= {"bias_ih", "bias_hh"}
        ordered = [part for part in (*PARTS, *OWN) if part in parts]
        layers: list[list[dict[str, np.ndarray]]] = []
        kinds = set()
        for layer, direction in self.positions():
            if not direction:
                layers.append([])
            places = {part: (layer, direction, part) for part in ordered}
            taken = {part: self.take(arrays, place) for part, place in places.items()}
            names = {part: self.places[place] for part, place in places.items()}
            if direction:
                inputs = layers[-1][0]["weight_ih"].shape[1]
                check_shape(
                    names["weight_hh"], taken["weight_hh"], *layers[-1][0]["weight_hh"].shape
                )
            else:
                inputs = sum(each["weight_hh"].shape[1] for each in layers[-2]) if layer else None
            kinds.add(_kind(names, taken, inputs))
            layers[-1].append(taken)
        if len(kinds) > 1:
            raise ValueError(
                f"{self.prefix!r}: expected layers of one kind, got {' and '.join(sorted(kinds))}"
            )
        found = Found(kinds.pop(), layers)
        if "weight_ln_ih" in parts:
            found.options["layer_norm"] = True
        if found.kind == "RNN":
            reason = "the arrays of an RNN do not say it"
            found.unsaid.append(Unsaid("nonlinearity", reason, lambda f: {"nonlinearity": f}))
        return found

    def _check_derived(self, arrays: Mapping[str, Any]) -> None:
        for name in arrays:
            match = DERIVED.fullmatch(name)
            if match and match["name"].rpartition("weight_")[0] in _beginnings(self.prefix):
                raise ValueError(
                    f"{name}: expected {match['name']} itself; compute it first, or save the model "
                    "again without weight norm, pruning or dropped weights"
                )


def _kind(names: Mapping[str, str], arrays: Mapping[str, np.ndarray], inputs: int | None) -> str:
    """Return the kind of the arrays of one layer and direction, which must fit each other."""
    for part in ("weight_ih", "weight_hh", "weight_hr"):
        if part in arrays:
            check_matrix(names[part], arrays[part])
    rows, columns = arrays["weight_hh"].shape
    H = arrays["weight_hr"].shape[1] if "weight_hr" in arrays else columns
    if rows % H or rows // H not in BY_GATES:
        raise ValueError(
            f"{names['weight_hh']}: expected rows 4, 3 or 1 times the {H} hidden units, for the "
            f"gates of an LSTM, GRU or RNN, got shape {(rows, columns)}"
        )
    kind = BY_GATES[rows // H]
    if "weight_hr" in arrays:
        if kind != "LSTM":
            raise ValueError(f"{names['weight_hr']}: expected no projection of a {kind}")
        check_shape(names["weight_hr"], arrays["weight_hr"], columns, H)
    wanted = arrays["weight_ih"].shape[1] if inputs is None else inputs
    check_shape(names["weight_ih"], arrays["weight_ih"], rows, wanted)
    for part in ("bias_ih", "bias_hh"):
        if part in arrays:
            check_shape(names[part], arrays[part], rows)
    return kind


def _beginnings(prefix: str) -> set[str]:
    """The prefix, and those of the modules around it."""
    ends = [k + 1 for k, character in enumerate(prefix) if character == "."]
    return {"", prefix, *(prefix[:end] for end in ends)}


def find(names: Iterable[str]) -> list[TorchGroup]:
    """Return the groups among names, in the order of their first names."""
    groups: dict[tuple[str, bool, bool], TorchGroup] = {}
    for name in names:
        match = NAME.fullmatch(name)
        if not match:
            continue
        part = match["part"]
        is_short = part is None
        if is_short:
            part = f"{'weight' if match['letter'] == 'w' else 'bias'}_{match['side']}"
        has_layers = match["layer"] is not None
        key = match["prefix"], is_short, has_layers
        if key not in groups:
            spelled = ("w", "b") if is_short else ("weight", "bias")
            groups[key] = TorchGroup(key[0], {}, *spelled, has_layers)
        groups[key].add((int(match["layer"] or 0), int(bool(match["reverse"])), part), name)
    weights = {"weight_ih", "weight_hh"}
    return [
        group for group in groups.values() if any(part in weights for _, _, part in group.places)
    ]
