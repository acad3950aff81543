"""`python -m bench.compare` on tiny cases, with each peer that is installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cases import TINY
from bench.peers import PEERS

ROOT = Path(__file__).parents[1]


def compare(*arguments):
    """Its output. In a process of its own, since it changes this one's cores."""
    command = [sys.executable, "-m", "bench.compare", *map(str, arguments)]
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("peer", PEERS)
def test_every_tiny_case(peer, tmp_path):
    file = tmp_path / "report.json"
    compare("--cases", "tiny", "--peers", peer, "--seconds", 0.01, "--json", file)
    report = json.loads(file.read_text(encoding="utf-8"))
    if peer in report["missing"]:
        pytest.skip(report["missing"][peer])
    assert len(report["rows"]) == 2 * len(TINY)
    compared = [row for row in report["rows"] if peer in row["medians"]]
    assert compared
    assert all(seconds > 0 for row in compared for seconds in row["medians"].values())
    assert {row["mode"] for row in compared} == (
        {"inference", "training"} if PEERS[peer].trains else {"inference"}
    )


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_picture_again_from_the_report(suffix, tmp_path):
    pytest.importorskip("matplotlib")
    file, first, second = (tmp_path / name for name in ("a.json", f"b.{suffix}", f"c.{suffix}"))
    compare("--cases", "tiny", "--only", "3, 2, 4, 5", "--seconds", 0.01, "--json", file)
    if not json.loads(file.read_text(encoding="utf-8"))["summary"]:
        pytest.skip("no peer is installed")
    for picture in (first, second):
        compare("--from-json", file, "--picture", picture)
    assert first.read_bytes() == second.read_bytes()
    assert first.stat().st_size > 1000
