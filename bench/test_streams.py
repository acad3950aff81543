"""`python -m bench.streams`: every shape is measured."""

from bench.conftest import run_module
from bench.streams import SHAPES


def test_every_shape():
    lines = run_module("streams", "--seconds", 0).splitlines()
    assert len([line for line in lines if line.startswith(("LSTM", "GRU"))]) == 2 * len(SHAPES)
