"""The fixtures that cross a test with every build of the kernels."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import fastlstm as fl

COMPILED = ("avx512", "avx2", "baseline")


@contextmanager
def _use(name: str) -> Iterator[str]:
    if name not in fl.backends():
        with pytest.raises(ValueError, match=name) as reason, fl.use_backend(name):
            pass
        pytest.skip(str(reason.value))
    with fl.use_backend(name):
        yield name


@pytest.fixture(params=[*COMPILED, "reference"])
def kernels(request) -> Iterator[str]:
    """Name of the backend in use during the test: each in turn."""
    with _use(request.param) as name:
        yield name


@pytest.fixture(params=COMPILED)
def compiled(request) -> Iterator[str]:
    """Like `kernels`, compiled builds only."""
    with _use(request.param) as name:
        yield name
