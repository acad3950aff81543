"""`python -m bench.throughput`: both models compute the same loss, and every case is measured."""

import pytest

from bench.conftest import run_module
from bench.throughput import CASES


def test_every_case():
    pytest.importorskip("torch")
    lines = run_module("throughput", "--seconds", 0, "--steps", 3).splitlines()
    assert len(lines) == 2 + len(CASES)
