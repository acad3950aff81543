"""What one core can do, measured by probes.c, which is compiled when it is wanted."""

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.limits import usable_cores

SOURCE = Path(__file__).with_name("probes.c")
TURNS, TURN = 20, 5e-4  # the best of so many turns of at least so many seconds
LINE, STEP = 64, 512  # bytes: memory begins at a multiple of the one, its size is one of the other
TYPES = {"float32": ("float", ctypes.c_float), "float64": ("double", ctypes.c_double)}


class NoProbesError(Exception):
    """The probes cannot be compiled; the message says why."""


class Probes:
    """The probes, compiled for this processor; every call measures anew.

    Raises
    ------
    NoProbesError
    """

    def __init__(self) -> None:
        self._library = _compile()

    def flops(self, dtype: str) -> float:
        """Floating point operations a second: multiplications and additions in registers."""
        name, kind = TYPES[dtype]
        result = kind()
        return self._rate(f"multiply_add_{name}", ctypes.byref(result))

    def reading(self, size: int) -> float:
        """Bytes a second from memory of `size` bytes, read over and over."""
        size = -(-size // STEP) * STEP
        memory = np.ones(size + LINE, np.uint8)
        start = memory.ctypes.data + -memory.ctypes.data % LINE
        result = ctypes.c_longlong()
        arguments = ctypes.c_void_p(start), ctypes.c_size_t(size), ctypes.byref(result)
        return self._rate("read_memory", *arguments)

    def limits(self) -> dict:
        """Flops by dtype, and bytes a second by cache where the system tells its size."""
        reading = {
            level: {"size": size, "bytes_per_second": self.reading(size)}
            for level, size in _sizes().items()
        }
        return {"flops_per_second": {name: self.flops(name) for name in TYPES}, "reading": reading}

    def _rate(self, name: str, *arguments: object) -> float:
        """Units of work a second, where probe `name` returns how many units it did."""
        probe = getattr(self._library, name)
        probe.restype = ctypes.c_double

        def run(amount: int) -> tuple[float, float]:
            start = time.perf_counter()
            work = probe(ctypes.c_long(amount), *arguments)
            seconds = time.perf_counter() - start
            return work / seconds, seconds

        amount = 1
        while min(run(amount)[1] for _ in range(3)) < TURN:
            amount *= 2
        return max(run(amount)[0] for _ in range(TURNS))


def _compile() -> ctypes.CDLL:
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        raise NoProbesError("no C compiler (cc)")
    options = ["-O3", "-march=native", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "probes.so")
        try:
            command = [*compiler.split(), *options, "-o", str(library), str(SOURCE)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            return ctypes.CDLL(str(library))
        except subprocess.CalledProcessError as error:
            raise NoProbesError(f"{compiler}: {error.stderr.strip()[:200]}") from error
        except OSError as error:
            raise NoProbesError(str(error)) from error


def _sizes() -> dict[str, int]:
    """What to read to know each cache: half of it; of a shared one, a part that one core gets."""
    caches = _caches()
    sizes = {level: size // 2 for level, size in caches.items()}
    if "L2" in caches and "L3" in caches:
        sizes["L3"] = min(4 * caches["L2"], sizes["L3"])
    return sizes


def _caches() -> dict[str, int]:
    """Bytes of the caches that data goes through; those that can be found out."""
    folder = Path(f"/sys/devices/system/cpu/cpu{usable_cores()[0]}/cache")
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = ((index / name).read_text() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind.strip() != "Instruction":
            found[f"L{level.strip()}"] = int(size.strip().removesuffix("K")) * 1024
    return found
