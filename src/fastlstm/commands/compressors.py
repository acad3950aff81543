"""The sizes to which general compressors bring the held-out text."""

import bz2
import lzma
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

ZLIB_WINDOW = 32_768


@dataclass(frozen=True)
class Compression:
    """Bits per byte of the held-out text.

    Attributes
    ----------
    name : str
    cold : float
        For the held-out text alone.
    primed : float or None
        For the held-out text after the training text; None if the compressor cannot be primed.
    how : str
        How it was primed.
    """

    name: str
    cold: float
    primed: float | None
    how: str

    @property
    def best(self) -> float:
        """The value of `primed`, or of `cold` if `primed` is None."""
        return self.cold if self.primed is None else self.primed

    @property
    def label(self) -> str:
        """The name in a chart, with the value of `best`."""
        return f"{self.name}{'' if self.primed is None else ', primed'}, {self.best:.2f}"


def compare(training: bytes, held_out: bytes) -> list[Compression]:
    """Compress `held_out` at the best level of every compressor, cold and primed by `training`."""
    bits = 8 / len(held_out)
    with_dictionary = zlib.compressobj(9, zdict=training[-ZLIB_WINDOW:])
    primed_zlib = with_dictionary.compress(held_out) + with_dictionary.flush()
    primed_lzma = _lzma_size_after(training, held_out)
    megabytes = len(training) / 1e6
    return [
        Compression(
            name="zlib",
            cold=len(zlib.compress(held_out, 9)) * bits,
            primed=len(primed_zlib) * bits,
            how="the last 32 KB of that text as its dictionary",
        ),
        Compression(
            name="bz2",
            cold=len(bz2.compress(held_out)) * bits,
            primed=None,
            how="offers no way to prime it",
        ),
        Compression(
            name="lzma",
            cold=len(lzma.compress(held_out, preset=9)) * bits,
            primed=primed_lzma * bits,
            how=f"size of both together minus size of that text ({megabytes:.1f} MB) alone",
        ),
    ]


def _lzma_size_after(training: bytes, held_out: bytes) -> int:
    def size(text: bytes) -> int:
        return len(lzma.compress(text, preset=9))

    with ThreadPoolExecutor(2) as pool:  # lzma is slow, and releases the interpreter lock
        alone, together = pool.map(size, (training, training + held_out))
    return together - alone
