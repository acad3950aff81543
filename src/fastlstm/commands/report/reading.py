"""What the units of a character model did while they read text that was held out."""

import base64
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

import fastlstm as fl
from fastlstm.commands.character_model import WARM_UP, CharacterModel, printable

READ = 6_000  # bytes, from the beginning of the held-out text
SHOWN = 320  # bytes, from the middle of those
MOST_VALUES = 200_000  # of an array: with more units, only the most active are shown
CLEAR = 0.5  # the correlation from which a unit is said to follow something
GATES = "input_gate", "forget_gate", "candidate", "output_gate"
SURROGATES = "".join(map(chr, range(0xDC80, 0xDD00)))  # bytes that are no UTF-8


class Follower(NamedTuple):
    """A unit whose memory follows something that can be counted in the text.

    Attributes
    ----------
    unit : int
    what : str
    correlation : float
        With the tanh of its cell, in a part of the text on which the unit was not chosen.
    """

    unit: int
    what: str
    correlation: float


class Reading(NamedTuple):
    """A piece of held-out text, and all units while they read it.

    Attributes
    ----------
    followers : list of Follower
        The strongest first.
    data : dict
        What the page's script reads: the text, and arrays as base64.
    """

    followers: list[Follower]
    data: dict[str, Any]


def read(model: CharacterModel, held_out: bytes) -> Reading:
    """Read the beginning of a held-out text, once."""
    held_out = held_out[:READ]
    layer = fl.inspection.trace(model.layers, model.encode(held_out)[:, None]).layers[0]
    arrays = {name: array[:, 0] for name, array in layer.arrays.items()}
    memory = np.tanh(arrays["cell"])
    found = _followers(held_out, memory)
    start, text = _piece(held_out)
    lengths = [len(character.encode("utf-8", "surrogateescape")) for character in text]
    steps = start + np.cumsum(lengths) - 1  # of the last byte of each character
    activity = memory[steps].std(axis=0)
    first = found[0].unit if found else int(activity.argmax())
    activity[[follower.unit for follower in found]] = np.inf
    units = np.argsort(-activity, kind="stable")
    units = np.sort(units[: max(1, MOST_VALUES // len(text))])
    cells = arrays["cell"][:, units]
    before = cells[start - 1 : start] if start else np.zeros_like(cells[:1])
    cells = np.concatenate([before, cells[steps]]).T  # [units, 1 + characters]
    scale = float(np.abs(cells).max()) / 32767 or 1.0
    gates = np.stack([arrays[name][:, units][steps].T for name in GATES])
    gates[GATES.index("candidate")] = (1 + gates[GATES.index("candidate")]) / 2
    return Reading(
        found,
        {
            "text": printable(text),
            "units": units.tolist(),
            "first": first,
            "several": [place for place, length in enumerate(lengths) if length > 1],
            "gates": _base64(np.rint(gates * 255).astype(np.uint8)),
            "cells": _base64(np.rint(cells / scale).astype("<i2")),
            "scale": scale,
        },
    )


def _piece(text: bytes) -> tuple[int, str]:
    """The beginning and the characters of a piece from the middle, from a line's beginning."""
    middle = max(min(WARM_UP, len(text) // 2), len(text) // 2)
    line = text.find(b"\n", middle, middle + SHOWN) + 1
    start = line if line and line < len(text) else middle
    piece = text[start : start + SHOWN].decode("utf-8", "surrogateescape")
    whole = piece.rstrip(SURROGATES) or piece  # a character may be cut
    return start, whole


def _followers(text: bytes, memory: np.ndarray) -> list[Follower]:
    """The units that follow what can be counted: chosen in one half, measured in the other."""
    half = len(text) // 2
    found: dict[int, Follower] = {}
    for what, values in _counts(text).items():
        unit = int(np.abs(_correlations(memory[:half], values[:half])).argmax())
        correlation = float(_correlations(memory[half:, [unit]], values[half:])[0])
        known = found.get(unit)
        if abs(correlation) >= max(CLEAR, abs(known.correlation) if known else 0):
            found[unit] = Follower(unit, what, correlation)
    return sorted(found.values(), key=lambda follower: -abs(follower.correlation))


def _counts(text: bytes) -> dict[str, np.ndarray]:
    """What can be counted in a text, after each byte."""
    column = indent = word = depth = 0
    quoted = leading = False
    rows = []
    for byte in text:
        character = chr(byte)
        if character == "\n":
            column, indent, leading, quoted = 0, 0, True, False
        else:
            column += 1
            leading = leading and character == " "
            indent += leading
            quoted ^= character == '"'
        depth = max(0, depth + (character in "([{") - (character in ")]}"))
        word = word + 1 if character.isalnum() or character == "_" else 0
        rows.append((column, indent, word, depth, quoted, character.isspace()))
    names = (
        "how far the line is",
        "how far the line is indented",
        "how long the word is so far",
        "how many brackets are open",
        "whether a quotation is open",
        "whether this is white space",
    )
    return dict(zip(names, np.array(rows, np.float64).T, strict=True))


def _correlations(memory: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Pearson's, of each unit (T, units) with values (T,); 0 where one is constant."""
    memory, values = memory - memory.mean(axis=0), values - values.mean()
    scale = memory.std(axis=0) * values.std()
    products = (memory * values[:, None]).mean(axis=0)
    r: np.ndarray = np.divide(products, scale, out=np.zeros_like(products), where=scale > 1e-12)
    return r


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def half_lives(time_constants: np.ndarray) -> list[tuple[str, int]]:
    """Count the units that forget half of a content within so many characters."""
    edges = [0, 1, 2, 4, 8, 16, 32]
    names = [f"{low} to {high}" for low, high in itertools.pairwise(edges)]
    counts = np.histogram(time_constants * math.log(2), [*edges, math.inf])[0]
    return list(zip([*names, f"{edges[-1]} and more"], counts.tolist(), strict=True))
