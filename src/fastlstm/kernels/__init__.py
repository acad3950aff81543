"""The choice of the build of the kernels. No other module makes this choice.

A *backend* is the NumPy `reference` or one compiled build: "avx512", "avx2", "baseline". A build
is a pair of modules, one for each dtype, with the functions of `reference`.
"""

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from typing import Any

import numpy as np

from fastlstm.changes import CHANGES
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
    return _choice.get()[0]


def use_backend(name: str) -> AbstractContextManager[None]:
    """Compute with another backend within a ``with`` block.

    This is for a block alone: a call without ``with`` checks the name and chooses nothing. The
    environment variable FASTLSTM_BACKEND chooses for the process.

    The choice is part of the current context (`contextvars`): it holds for this thread or asyncio
    task and for tasks that it starts. Other threads do not see it, and neither does a thread that
    begins within the block, unless it runs in a copy of the context
    (``contextvars.copy_context().run``): they use the backend of the process.

    Parameters
    ----------
    name : str
        One of `backends`.

    Raises
    ------
    ValueError
        At the call: `name` is unknown, was not built, or cannot run on this processor.

    Examples
    --------
    >>> import fastlstm as fl
    >>> with fl.use_backend("reference"):
    ...     fl.backend()
    'reference'
    """
    return _using((name, load(name, "name")))


@contextmanager
def _using(choice: tuple[str, dict[np.dtype, Kernels]]) -> Iterator[None]:
    global _any_choice
    _any_choice = True
    CHANGES.last = object()
    before = _choice.set(choice)
    try:
        yield
    finally:
        _choice.reset(before)


def kernels(dtype: np.dtype) -> Kernels:
    """Return the functions of the backend in use, for arrays of `dtype`."""
    return _choice.get()[1][dtype] if _any_choice else _of_process[dtype]


def have_choices() -> bool:
    """Whether some contexts may use another backend than others."""
    return _any_choice


def load(name: str, asked_by: str) -> dict[np.dtype, Kernels]:
    """Return the modules of backend `name`, by dtype; errors name `asked_by`."""
    if name not in backends():
        usable, why = ", ".join(backends()), why_not(name) or "no such backend"
        raise ValueError(f"{asked_by}: expected one of {usable}, got {name!r} ({why})")
    if name == "reference":
        return dict.fromkeys(DTYPES, importlib.import_module("fastlstm.kernels.reference"))
    return {dtype: importlib.import_module(_module(name, dtype)) for dtype in DTYPES}


def why_not(name: str) -> str | None:
    """Return why the compiled build `name` cannot run here; None if it can, or is not a build."""
    if name not in COMPILED or name in _builds:
        return None
    if _cpu is not None and name not in supported():
        return "not for this processor"
    from fastlstm.kernels import not_compiled

    return f"not compiled: {not_compiled.reason(name)}"


def warn_if_not_compiled(stacklevel: int) -> None:
    """Warn of slow kernels if no build was compiled, unless FASTLSTM_BACKEND chooses one."""
    if _builds or os.environ.get("FASTLSTM_BACKEND"):
        return
    from fastlstm.kernels import not_compiled

    warnings.warn(
        "fastlstm was installed without its compiled kernels and runs on the NumPy reference, "
        f"many times slower. {not_compiled.advice()} To keep the reference, say so with "
        "FASTLSTM_BACKEND=reference.",
        RuntimeWarning,
        stacklevel=stacklevel + 1,
    )


def _module(name: str, dtype: np.dtype) -> str:
    return f"fastlstm.kernels._{name}_{dtype}"


_cpu = _import_if_built("fastlstm.kernels._cpu")
_has_pool = PathFinder.find_spec("fastlstm.kernels._pool", __path__) is not None  # for all builds
_builds = tuple(
    name
    for name in supported()
    if _has_pool and all(PathFinder.find_spec(_module(name, dtype), __path__) for dtype in DTYPES)
)
_backend = os.environ.get("FASTLSTM_BACKEND") or backends()[0]  # of the process
_of_process = load(_backend, "FASTLSTM_BACKEND")
_choice: ContextVar[tuple[str, dict[np.dtype, Kernels]]] = ContextVar(
    "fastlstm.backend", default=(_backend, _of_process)
)
# Whether a context has ever made a choice. Until then calls need not look for one, which takes
# longer than a global variable.
_any_choice = False
