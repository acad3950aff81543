"""Fixtures of the kernels' tests."""

import pytest

from fastlstm.kernels import load


@pytest.fixture
def build(compiled, dtype):
    """The module of one compiled build."""
    return load(compiled, "test")[dtype]


@pytest.fixture
def module(kernels, dtype):
    """The module of one build, or the reference."""
    return load(kernels, "test")[dtype]
