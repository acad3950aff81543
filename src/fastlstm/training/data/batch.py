"""Batches, and how a trainer reads its arguments."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from fastlstm.checks import brief, read_array, read_bools, read_integers, read_numbers


class Batch(NamedTuple):
    """Rows that are computed together, sequences first.

    An iterable of batches may give these, or ``(x, y)``.

    Attributes
    ----------
    x : array (B, T, ...)
        Padded on the right.
    y : array (B, ...), (B, T, ...) or None
        One target for each row, or one for each step. Where x is cut, y need not be.
    lengths : array (B,) of ints, or None
        Steps of each row; None if all are T.
    mask : bool array (B, T) or None
        False, or 0, at steps that do not count; they are skipped, as in a recurrent layer's call.
    sample_weight : array (B,), (B, T) or None
    resets : bool array (B, T) or None
        True where a sequence begins.
    carries : bool
        Whether the rows go on where those of the batch before ended, so the state is carried over.
    first_row : int
        The place of the first row in the batch of all ranks, if this is a part of it.
    """

    x: np.ndarray
    y: Any = None
    lengths: np.ndarray | None = None
    mask: np.ndarray | None = None
    sample_weight: np.ndarray | None = None
    resets: np.ndarray | None = None
    carries: bool = False
    first_row: int = 0

    def counted(self) -> np.ndarray | None:
        """The steps that count, [B, T]; None if all do."""
        if self.lengths is None:
            return self.mask
        within = np.arange(self.x.shape[1]) < self.lengths[:, None]
        return within if self.mask is None else within & self.mask

    def part(self, rows: slice) -> "Batch":
        """These rows alone."""
        B = len(self.x)
        parts = (
            value[rows] if isinstance(value, np.ndarray) and value.shape[:1] == (B,) else value
            for value in self
        )
        return Batch._make(parts)._replace(first_row=self.first_row + rows.start)


class Source(Protocol):
    """What a trainer reads batches from."""

    @property
    def size(self) -> int | None:
        """The rows of an epoch, if their number is known."""

    def batches(
        self, batch_size: int, order: "Order | None", start: int, share: "Share | None" = None
    ) -> Iterator[Batch]:
        """Read an epoch from batch number `start`; in an order of its own if `order` is None.

        With `share`, of every batch the rows that this process computes, which may be none.
        """

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Give all data, with names, for a digest."""


Share = Callable[[int], slice]  # which rows of a batch a process computes, from their number


class Order(NamedTuple):
    """What the order of an epoch is drawn from."""

    seed: int
    epoch: int


class Batches:
    """The `Source` of batches that a user makes: an iterable, or a function of the epoch."""

    size = None

    def __init__(self, made: Iterable[Any] | Callable[[int], Iterable[Any]], name: str = "x"):
        self._made, self._name = made, name
        self._read = False
        self.seen = 0  # a digest of some numbers of the batches that were shared so far

    def batches(
        self, batch_size: int, order: Order | None, start: int, share: Share | None = None
    ) -> Iterator[Batch]:
        made, once = self._made, False
        if hasattr(made, "__iter__"):
            once = iter(made) is made
        elif callable(made):
            made = made(order.epoch if order else 0)
        if once:
            if self._read:
                raise ValueError(
                    f"{self._name}: expected an iterable that gives its batches again in every "
                    f"epoch, got {type(made).__name__}; a list does, or a function of the epoch"
                )
            self._read = True
        for number, batch in enumerate(made):
            if number >= start:
                read = read_batch(f"{self._name}, batch {number}", batch)
                if share is not None:
                    self.seen = zlib.crc32(_sample(read), self.seen)
                    read = read.part(share(len(read.x)))
                yield read

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        return iter(())


def read_batch(name: str, value: Any) -> Batch:
    """Return a batch, checked, of what an iterable gave."""
    if not isinstance(value, tuple) or not 2 <= len(value) <= len(Batch._fields):
        raise TypeError(f"{name}: expected (x, y) or a fastlstm.training.Batch, got {brief(value)}")
    batch = value if isinstance(value, Batch) else Batch(*value)
    x = read_numbers(f"{name}: x", batch.x)
    if x.ndim < 2:
        raise ValueError(f"{name}: x: expected shape (batch, steps, ...), got {x.shape}")
    batch = batch._replace(x=x, y=read_numbers(f"{name}: y", batch.y))
    for field, read in (("lengths", read_integers), ("mask", read_bools), ("resets", read_bools)):
        array = getattr(batch, field)
        if array is not None:
            shape = x.shape[: 1 if field == "lengths" else 2]
            array = read(f"{name}: {field}", array)
            if array.shape != shape:
                raise ValueError(f"{name}: {field}: expected shape {shape}, got {array.shape}")
            if field == "lengths":
                check_lengths(f"{name}: lengths", array, x.shape[1])
            batch = Batch(**{**batch._asdict(), field: array})
    if batch.sample_weight is not None:
        weight = read_array(f"{name}: sample_weight", batch.sample_weight, np.dtype(np.float64))
        if not weight.ndim or len(weight) not in (1, len(x)):
            raise ValueError(
                f"{name}: sample_weight: expected a weight for each of {len(x)} rows, "
                f"got shape {weight.shape}"
            )
        batch = batch._replace(sample_weight=weight)
    return batch


def check_lengths(name: str, lengths: np.ndarray, T: int) -> None:
    """Raise unless rows may have these numbers of the T steps."""
    if lengths.size and not 0 <= lengths.min() <= lengths.max() <= T:
        raise ValueError(f"{name}: expected 0 to {T}, got {lengths.min()} to {lengths.max()}")


def _sample(batch: Batch) -> bytes:
    """Shapes, and some of the numbers."""
    x, y = batch.x, np.asarray(batch.y)
    some = x.flat[:: 1 + x.size // 200], y.flat[:: 1 + y.size // 50]
    return f"{x.shape} {y.shape}".encode() + b"".join(array.tobytes() for array in some)
