"""The processes that train one model together: its ranks.

Each computes some rows of every batch. In a step they exchange a few numbers, float64, and then the
gradients. The numbers are the loss, its weight and the metrics, which all of them need to decide
alike, and what a rank has to say: that it failed, or that it was asked to stop. So no rank waits
for one that is elsewhere.
"""

import json
import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import numpy as np

from fastlstm.checks import read_flag
from fastlstm.distributed.flat import Flat

WIDTH = 32  # numbers of an exchange, the first of which says where a rank is
LONGEST = 2000  # bytes of a text that ranks exchange
CHUNK = 2**16  # numbers of each rank that are summed at a time
METHODS = "Get_rank", "Get_size", "Bcast", "Allreduce", "Allgather"


class Place(IntEnum):
    """Where ranks meet."""

    FAILURE = 0
    TRAINER = 1
    FIT = 2
    EVALUATE = 3
    STEP = 4
    UNDO = 5
    SCORES = 6
    EPOCH = 7
    STATE = 8
    END = 9


class RankError(RuntimeError):
    """Another rank failed, or does something else than this one.

    Attributes
    ----------
    rank : int
        The rank that failed.
    host : str
        The name of its host; "" if it is not known.
    """

    def __init__(self, rank: int, text: str, host: str = ""):
        super().__init__(rank, text, host)
        self.rank, self.host = rank, host

    def __str__(self) -> str:
        where = f" on {self.host}" if self.host else ""
        return f"rank {self.rank}{where}: {self.args[1]}"


class Alone:
    """One process, which has nobody to talk to."""

    rank, size = 0, 1

    def share(self, rows: int) -> slice:
        """Return which of the rows of a batch this process computes."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within the block, an exception here becomes a `RankError` on the other ranks."""
        yield

    def compare(self, place: Place, settings: Mapping[str, str]) -> None:
        """Raise ValueError on all ranks if a setting differs."""

    def error(self, rank: int, text: str) -> RankError:
        """Return the error of a rank, which all ranks have found together."""
        return RankError(rank, text, socket.gethostname())

    def exchange(self, place: Place, values: Sequence[float]) -> np.ndarray:
        """Return the values of all ranks, float64 [size, values]."""
        return np.array([values], np.float64)

    def add(self, flat: Flat) -> None:
        """Add up the buffers of all ranks, in place. All have met in an exchange just before."""

    def texts(self, place: Place, text: str) -> list[str]:
        """Return the texts of all ranks, each as far as it fits into `LONGEST` bytes."""
        return [text]

    def broadcast(
        self, place: Place, arrays: Mapping[str, np.ndarray], rest: Any, root: int = 0
    ) -> tuple[dict[str, np.ndarray], Any]:
        """Return the arrays of one rank, and the rest, which JSON can hold."""
        return dict(arrays), rest


class Ranks(Alone):
    """The ranks of a communicator.

    Parameters
    ----------
    comm : communicator
        Of mpi4py, or any object with the same methods.
    deterministic : bool
        Whether gradients are summed in the order of ranks, in float64.
    """

    def __init__(self, comm: Any, deterministic: bool):
        self.comm, self.deterministic = comm, deterministic
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._in_place = _in_place(comm)
        self._depth = 0  # of blocks of `together`
        self._parted = False  # whether the others have left, or know of a failure here

    @contextmanager
    def together(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
            self.exchange(Place.END, ())
        except (Exception, SystemExit) as error:
            if not self._parted:
                self._tell(error)
            raise
        finally:
            self._depth -= 1
            self._parted = self._parted and self._depth > 0

    def compare(self, place: Place, settings: Mapping[str, str]) -> None:
        found = self.exchange(place, [zlib.crc32(text.encode()) for text in settings.values()])
        for (name, text), numbers in zip(settings.items(), found.T, strict=True):
            if (numbers != numbers[0]).any():
                texts = self._texts(text)[1]
                other = int((numbers != numbers[0]).argmax())
                self._parted = True
                raise ValueError(
                    f"{name}: expected the same on all ranks, "
                    f"got {texts[0]} on rank 0 and {texts[other]} on rank {other}"
                )

    def error(self, rank: int, text: str) -> RankError:
        return RankError(rank, text, self._texts("")[0][rank])

    def exchange(self, place: Place, values: Sequence[float]) -> np.ndarray:
        count = len(values)
        found = np.empty((self.size, count))
        sent, got = np.zeros(WIDTH), np.empty((self.size, WIDTH))
        sent[0] = place
        for start in range(0, max(1, count), WIDTH - 1):
            end = min(start + WIDTH - 1, count)
            sent[1 : 1 + end - start] = values[start:end]
            self._gather(sent, got)
            self._check(place, got[:, 0])
            found[:, start:end] = got[:, 1 : 1 + end - start]
        return found

    def add(self, flat: Flat) -> None:
        for array in flat.arrays:
            if self.deterministic:
                self._add_in_order(array)
                continue
            own = array.copy() if self._in_place is None else self._in_place
            self._parted = True  # as in `_gather`
            self.comm.Allreduce(own, array)
            self._parted = False

    def texts(self, place: Place, text: str) -> list[str]:
        self.exchange(place, ())
        return self._texts(text)[1]

    def broadcast(
        self, place: Place, arrays: Mapping[str, np.ndarray], rest: Any, root: int = 0
    ) -> tuple[dict[str, np.ndarray], Any]:
        text = b""
        if self.rank == root:
            forms = [(name, array.shape, array.dtype.str) for name, array in arrays.items()]
            text = json.dumps([forms, rest]).encode()
        size = int(self.exchange(place, [len(text)])[root, 0])
        bits = np.frombuffer(text.ljust(size), np.uint8).copy()
        self._parted = True  # as in `_gather`
        self.comm.Bcast(bits, root=root)
        forms, rest = json.loads(bits.tobytes())
        result = {}
        for name, shape, dtype in forms:
            array = np.array(arrays[name]) if self.rank == root else np.empty(shape, dtype)
            result[name] = array = np.ascontiguousarray(array).reshape(shape)
            self.comm.Bcast(array.reshape(-1).view(np.uint8), root=root)
        self._parted = False
        return result, rest

    def _add_in_order(self, array: np.ndarray) -> None:
        every = np.empty((self.size, min(CHUNK, len(array))), array.dtype)
        for start in range(0, len(array), CHUNK):
            part = array[start : start + CHUNK]
            if len(part) < every.shape[1]:
                every = np.empty((self.size, len(part)), array.dtype)
            self._gather(part, every)
            total = every[0].astype(np.float64)
            for one in every[1:]:
                total += one
            part[...] = total

    def _gather(self, own: np.ndarray, every: np.ndarray) -> None:
        self._parted = True  # if the communicator itself fails
        self.comm.Allgather(own, every)
        self._parted = False

    def _check(self, place: Place, places: np.ndarray) -> None:
        """Raise if a rank has failed, or if one is elsewhere."""
        if (places == place).all():
            return
        if (places == Place.FAILURE).any():
            hosts, texts = self._texts("")
            rank = int((places == Place.FAILURE).argmax())
            self._parted = True
            raise RankError(rank, texts[rank], hosts[rank])
        rank = int((places != places[self.rank]).argmax())
        there, here = (Place(int(places[r])).name.lower() for r in (rank, self.rank))
        error = self.error(
            rank,
            f"is at {there!r} while rank {self.rank} is at {here!r}; "
            "all ranks have to make the same calls and to read the same batches",
        )
        self._parted = True
        raise error

    def _tell(self, error: BaseException) -> None:
        """Meet the others, wherever they meet next, and tell them of an error."""
        sent, got = np.zeros(WIDTH), np.empty((self.size, WIDTH))
        self._gather(sent, got)
        self._texts(f"{type(error).__name__}: {error}")
        self._parted = True

    def _texts(self, text: str) -> tuple[list[str], list[str]]:
        """The hosts of all ranks by name, and their texts."""
        sent, got = np.zeros(LONGEST, np.uint8), np.empty((self.size, LONGEST), np.uint8)
        bits = np.frombuffer(f"{socket.gethostname()}\0{text}".encode(), np.uint8)[:LONGEST]
        sent[: len(bits)] = bits
        self._gather(sent, got)
        found = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in got]
        return [one.partition("\0")[0] for one in found], [one.partition("\0")[2] for one in found]


def read_ranks(comm: Any, deterministic: Any) -> Alone:
    """The ranks of a communicator, or of none."""
    deterministic = read_flag("deterministic", deterministic)
    if comm is None:
        return Alone()
    if not all(callable(getattr(comm, name, None)) for name in METHODS):
        raise TypeError(
            f"comm: expected a communicator, as mpi4py.MPI.COMM_WORLD, got {comm!r:.60}"
        )
    return Ranks(comm, deterministic) if comm.Get_size() > 1 else Alone()


def _in_place(comm: Any) -> Any:
    """What stands for a buffer that is also the result; None for other communicators."""
    if not type(comm).__module__.startswith("mpi4py"):
        return None
    from mpi4py import MPI

    return MPI.IN_PLACE
