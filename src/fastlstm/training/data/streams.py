"""Long streams, read in pieces between which the state is carried over."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_bools, read_numbers, read_size
from fastlstm.training.data.batch import Batch, Order, Share


class Streams:
    """A long stream for truncated back-propagation through time (Williams & Peng 1990).

    The stream is divided into `rows` parts, which are read side by side and differ in length by at
    most one step. A batch has the next `steps` steps of every part. The state is carried over from
    batch to batch, and its gradient is not. Every epoch begins anew, without a state.

    Parameters
    ----------
    x : array (L, ...)
        The steps of the stream: L of them.
    y : array (L, ...)
        The target of each step.
    rows : int
        1 to L.
    steps : int
        The number of steps of a batch: the length over which gradients flow.
    starts : bool array (L,), optional
        True at the first step of each document: no state passes from the step before.

    Examples
    --------
    Predict the next character:

    >>> import numpy as np, fastlstm as fl
    >>> text = np.frombuffer(b"to be or not to be " * 20, np.uint8).astype(int)
    >>> streams = fl.training.Streams(text[:-1], text[1:], rows=4, steps=10)
    >>> model = fl.Sequential(fl.Embedding(128, 8, rng=0), fl.GRU(8, 16, rng=0), fl.Linear(16, 128))
    >>> trainer = fl.Trainer(model, "cross_entropy", fl.optim.Adam(1e-2))
    >>> history = trainer.fit(streams, epochs=3, progress=False)
    >>> len(history["loss"]), trainer.optimizer.steps
    (3, 30)
    """

    def __init__(self, x: Any, y: Any, *, rows: int, steps: int, starts: Any = None):
        self.x, self.y = read_numbers("x", x), read_numbers("y", y)
        if not self.x.ndim or not len(self.x):
            raise ValueError(f"x: expected shape (steps, ...), got {self.x.shape}")
        L = len(self.x)
        if self.y.shape[:1] != (L,):
            raise ValueError(f"y: expected a target for each of {L} steps, got {self.y.shape}")
        self.rows, self.steps = read_size("rows", rows), read_size("steps", steps)
        if self.rows > L:
            raise ValueError(f"rows: expected at most one for each of {L} steps, got {self.rows}")
        self.starts = None
        if starts is not None:
            self.starts = read_bools("starts", starts)
            check_shape("starts", self.starts, L)
        self._lengths = np.full(self.rows, L // self.rows)
        self._lengths[: L % self.rows] += 1
        self._begins = np.cumsum(self._lengths) - self._lengths

    def __len__(self) -> int:
        """The number of batches."""
        return -(-int(self._lengths[0]) // self.steps)

    @property
    def size(self) -> int:
        return self.rows * len(self)

    def batches(
        self, batch_size: int, order: Order | None, start: int, share: Share | None = None
    ) -> Iterator[Batch]:
        own = slice(0, self.rows) if share is None else share(self.rows)
        for number in range(start, len(self)):
            first = number * self.steps
            lengths = np.minimum(self._lengths - first, self.steps)
            T = int(lengths.max())
            lengths = lengths[own]
            # One part may be a step shorter; what stands in its place is padding.
            steps = np.minimum(self._begins[own, None] + first + np.arange(T), len(self.x) - 1)
            yield Batch(
                self.x[steps],
                self.y[steps],
                None if (lengths == T).all() else lengths,
                resets=None if self.starts is None else self.starts[steps],
                carries=number > 0,
                first_row=own.start,
            )

    def in_order(self, results: list[np.ndarray]) -> np.ndarray:
        """The results of all batches, (B, T, ...) each, as those of the stream, (L, ...)."""
        rows = np.concatenate(results, axis=1)
        return np.concatenate([row[:n] for row, n in zip(rows, self._lengths, strict=True)])

    def split(self, fraction: float, seed: int) -> tuple["Streams", "Streams"]:
        """The beginning of the stream, and its tail."""
        L = len(self.x)
        first = L - max(1, round(fraction * L))
        if first < self.rows:
            raise ValueError(f"validation: expected to leave {self.rows} steps or more of {L}")
        return self._part(slice(first)), self._part(slice(first, L))

    def _part(self, part: slice) -> "Streams":
        x = self.x[part]
        starts = None if self.starts is None else self.starts[part]
        rows = min(self.rows, len(x))
        return Streams(x, self.y[part], rows=rows, steps=self.steps, starts=starts)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        yield from (("x", self.x), ("y", self.y), ("rows and steps", self._pieces()))
        if self.starts is not None:
            yield "starts", self.starts

    def _pieces(self) -> np.ndarray:
        return np.array([self.rows, self.steps])
