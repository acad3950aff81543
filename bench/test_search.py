"""`python -m bench.search`: searches by one process and by two have the same scores."""

import pytest

from bench.conftest import run_module


def test_both_rows():
    pytest.importorskip("sklearn")
    sizes = "--sequences", 12, "--steps", 5, "--epochs", 1
    lines = run_module("search", "--jobs", 2, "--rounds", 1, *sizes).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["1", "default"]
