"""The choice of the build of the kernels. No other module makes this choice.

A *backend* is the NumPy `reference` or one compiled build: "avx512", "avx2", "baseline". A build
is a pair of modules, one for each dtype, with the functions of `reference`.
"""

import importlib
import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastlstm.kernels import reference
from fastlstm.kernels.arguments import Kernels

COMPILED = ("avx512", "avx2", "baseline")  # the fastest first
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def supported() -> tuple[str, ...]:
    """Return the builds that this processor and its system can run; () if none was compiled."""
    return () if _cpu is None else tuple(_cpu.supported())


def _import_if_built(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def backends() -> tuple[str, ...]:
    """Return the names of the backends that can run here, the fastest first."""
    return (*_builds, "reference")


def backend() -> str:
    """Return the name of the backend in use."""
    return _backend


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with another backend within a ``with`` block, in the whole process.

    Parameters
    ----------
    name : str
        One of `backends`.

    Raises
    ------
    ValueError
        `name` is unknown, was not built, or cannot run on this processor.
    """
    global _backend, _active
    before = _backend, _active
    _backend, _active = name, load(name, "name")
    try:
        yield
    finally:
        _backend, _active = before


def kernels(dtype: np.dtype) -> Kernels:
    """Return the functions of the backend in use, for arrays of `dtype`."""
    return _active[dtype]


def load(name: str, asked_by: str) -> dict[np.dtype, Kernels]:
    """Return the modules of backend `name`, by dtype; errors name `asked_by`."""
    if name not in backends():
        usable, why = ", ".join(backends()), why_not(name) or "no such backend"
        raise ValueError(f"{asked_by}: expected one of {usable}, got {name!r} ({why})")
    if name == "reference":
        return dict.fromkeys(DTYPES, reference)
    return {dtype: importlib.import_module(_module(name, dtype)) for dtype in DTYPES}


def why_not(name: str) -> str | None:
    """Return why the compiled build `name` cannot run here; None if it can, or is not a build."""
    if name not in COMPILED or name in _builds:
        return None
    return "not compiled" if name in supported() else "not for this processor, or not compiled"


def _module(name: str, dtype: np.dtype) -> str:
    return f"fastlstm.kernels._{name}_{dtype}"


_cpu = _import_if_built("fastlstm.kernels._cpu")
_builds = tuple(
    name
    for name in supported()
    if all(importlib.util.find_spec(_module(name, dtype)) for dtype in DTYPES)
)
_backend = os.environ.get("FASTLSTM_BACKEND") or backends()[0]
_active = load(_backend, "FASTLSTM_BACKEND")
if not _builds and "FASTLSTM_BACKEND" not in os.environ:
    warnings.warn(
        "fastlstm was installed without its compiled kernels and runs on the NumPy reference, "
        "many times slower. Install a C compiler and reinstall, or say so with "
        "FASTLSTM_BACKEND=reference.",
        RuntimeWarning,
        stacklevel=2,
    )
