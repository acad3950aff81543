"""A character model: Embedding, LSTM, Linear over the bytes of a text."""

import math
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm as fl

RAREST = 1e-5  # fraction of the training text; rarer bytes have one symbol together
MOST_ROWS, SHORTEST_ROW = 64, 500  # rows, characters: how a text is cut to be read in parallel
WARM_UP = 256  # characters read before each of those rows, and not counted
CHUNK = 256  # steps computed at a time, to limit the memory


class CharacterModel:
    """Predicts the next byte of a text.

    Parameters
    ----------
    known : uint8 array
        The bytes that have their own symbol, sorted. All others have one symbol together.
    embedding_size, hidden_size : int
    rng : None, seed or Generator
        Source of the initial parameters.
    recurrent : type
        The class of the recurrent layer.

    Attributes
    ----------
    layers : Sequential
        From symbols (T, B) to logits (T, B, symbols).
    """

    def __init__(
        self,
        known: np.ndarray,
        embedding_size: int,
        hidden_size: int,
        rng: Any = None,
        recurrent: type[fl.LSTM] | type[fl.RNN] = fl.LSTM,
    ):
        rng = np.random.default_rng(rng)
        self.known = known
        self.embedding_size = embedding_size
        self.hidden_size = hidden_size
        self.unknown = len(known)
        self._symbol_of_byte = np.full(256, self.unknown, np.uint8)
        self._symbol_of_byte[known] = np.arange(len(known))
        symbols = len(known) + 1
        self.layers = fl.Sequential(
            fl.Embedding(symbols, embedding_size, rng=rng),
            recurrent(embedding_size, hidden_size, rng=rng),
            fl.Linear(hidden_size, symbols, rng=rng),
        )

    def __str__(self) -> str:
        E, H, symbols = self.embedding_size, self.hidden_size, self.unknown + 1
        return f"Embedding({symbols}, {E}), LSTM({E}, {H}), Linear({H}, {symbols})"

    def encode(self, text: bytes | str) -> np.ndarray:
        """Return the symbols of a text, in UTF-8 if it is a str: uint8 (bytes,)."""
        text = text.encode() if isinstance(text, str) else text
        return self._symbol_of_byte[np.frombuffer(text, np.uint8)]

    def bits_per_character(self, context: bytes, text: bytes) -> float:
        """Return the bits per byte that coding `text` takes after `context`. Neither is empty.

        The text is cut into rows, which are read in parallel. The state of each row begins as the
        256 characters before it leave it. The symbol of rare bytes costs extra bits, to tell these
        bytes apart.
        """
        rows = min(MOST_ROWS, max(1, len(text) // SHORTEST_ROW))
        length = math.ceil(len(text) / rows)
        symbols = self.encode(context[-WARM_UP - 1 :] + text)
        before = len(symbols) - len(text)
        padded = np.pad(symbols, (0, rows * length - len(text)))
        starts = length * np.arange(rows)
        steps = padded[starts + np.arange(before + length)[:, None]]  # [before + length, rows]
        counts = starts + np.arange(length)[:, None] < len(text)
        _, state = self.layers(steps[: before - 1])
        nats = 0.0
        for start in range(0, length, CHUNK):
            end = min(start + CHUNK, length)
            logits, state = self.layers(steps[before - 1 + start : before - 1 + end], state)
            target, mask = steps[before + start : before + end], counts[start:end]
            loss, _ = fl.losses.cross_entropy(logits, target, mask)
            nats += loss * np.count_nonzero(mask)
        rare_bits = np.count_nonzero(symbols[before:] == self.unknown) * math.log2(
            256 - len(self.known)
        )
        return (nats / math.log(2) + rare_bits) / len(text)

    def write(self, prompt: bytes, count: int, temperature: float, rng: Any) -> bytes:
        """Draw `count` characters after `prompt`, one by one; each is the input of the next step.

        A temperature below 1 sharpens the predicted probabilities, p ∝ exp(logit / temperature).
        """
        rng = np.random.default_rng(rng)
        logits, state = self.layers(self.encode(prompt)[:, None])
        written = np.empty(count, np.uint8)
        for position in range(count):
            scores = logits[-1, 0, : self.unknown] / temperature
            cumulative = np.cumsum(np.exp(scores - scores.max()))
            symbol = np.searchsorted(cumulative, rng.random() * cumulative[-1])
            written[position] = symbol
            logits, state = self.layers(written[position : position + 1, None], state)
        return self.known[written].tobytes()

    def save(self, path: Path) -> None:
        arrays: dict[str, Any] = self.layers.state_dict()
        arrays["known"] = self.known
        arrays["sizes"] = np.array([self.embedding_size, self.hidden_size])
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "CharacterModel":
        """Return the model that `save` wrote to `path`."""
        with np.load(path) as saved:
            arrays = dict(saved)
        embedding_size, hidden_size = arrays.pop("sizes")
        model = cls(arrays.pop("known"), embedding_size, hidden_size)
        model.layers.load_state_dict(arrays)
        return model


def printable(text: str) -> str:
    """Return the text with a space in place of each character that has no picture."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)


def frequent_bytes(text: bytes) -> np.ndarray:
    """Return the bytes that are frequent enough in a text for their own symbol, sorted."""
    counts = np.bincount(np.frombuffer(text, np.uint8), minlength=256)
    return np.flatnonzero(counts > RAREST * len(text)).astype(np.uint8)
