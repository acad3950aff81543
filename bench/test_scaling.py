"""The measurements of ranks, once and untimed, and the model by which more are estimated."""

import math
import re
import shutil
import sys
from pathlib import Path

import pytest

from bench.conftest import run_module
from bench.scaling import EXCHANGED, Network, fit


def test_the_fit_finds_the_network():
    network = Network("", 3e-6, 2e-10)
    sizes = [2**k for k in range(3, 26)]
    found = fit([(n, network.all_reduce(2, n, 1e-10)) for n in sizes], 1e-10)
    assert found.alpha == pytest.approx(3e-6)
    assert found.beta == pytest.approx(2e-10)


def test_an_all_reduce_by_its_messages():
    """Each of a rank's messages, counted one by one."""
    network, gamma, size, ranks = Network("", 7.0, 2.0), 0.5, 64.0, 8
    seconds, held = 0.0, size
    while held > size / ranks:  # half of what it holds goes to another, whose half it adds
        held /= 2
        seconds += network.alpha + held * (network.beta + gamma)
    while held < size:  # what it holds goes to another
        seconds += network.alpha + held * network.beta
        held *= 2
    assert network.all_reduce(ranks, size, gamma) == pytest.approx(seconds)
    gather = 3 * 7.0 + (1 + 2 + 4) * EXCHANGED * 2.0
    assert network.step(ranks, size, gamma) == pytest.approx(seconds + gather)


def test_every_table(tmp_path):
    pytest.importorskip("mpi4py")
    if not (Path(sys.executable).with_name("mpiexec").exists() or shutil.which("mpiexec")):
        pytest.skip("there is no mpiexec")
    path = tmp_path / "tables.md"
    out = run_module("scaling", "--quick", "--write", path)
    assert path.read_text(encoding="utf-8") == out
    rows = [line.split("|")[1:-1] for line in out.splitlines() if line.startswith("| ")]
    assert [len(row) for row in rows] == [5] * 5 + [6] * 3 + [10] * 5
    numbers = [float(text) for text in re.findall(r"\d+\.?\d*", out.partition("\n\n")[2])]
    assert all(map(math.isfinite, numbers))
    assert "nan" not in out
