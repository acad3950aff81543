"""`python -m bench.forms`: each form works, and the table says which take too long."""

import json

import pytest

from bench.conftest import run_module
from bench.forms import RIVAL, measure, table
from bench.one_step import Form, forms
from bench.peers import PEERS
from bench.turns import protocol


def test_every_form(tmp_path):
    file = tmp_path / "forms.json"
    text = run_module("forms", "--rounds", 1, "--seconds", 0, "--json", file)
    report = json.loads(file.read_text(encoding="utf-8"))
    rows = {row["form"]: row for row in report["rows"]}
    assert list(rows) == [form.name for form in forms()]
    assert all(row["seconds"] > 0 for row in rows.values())
    assert rows["LSTM"]["times_plain"] == 1
    assert rows["LSTM, 2 layers, both directions"]["most"] == pytest.approx(4.4)
    assert report["protocol"]["name"] == "hot"
    beside = [name for name, row in rows.items() if row[RIVAL]]
    if PEERS[RIVAL].available():
        assert not beside
        assert f"left out: {RIVAL}" in text
    else:
        assert "Sequential(LSTM, Linear), no state" in beside
        assert all("no state" in name for name in beside)


def test_what_is_over():
    calls = {"plain": 1, "within": 2, "above": 9, "free": 9}
    limits = {"plain": None, "within": 20, "above": 1.5, "free": None}
    every = [
        Form(name, lambda n=n: sum(range(1000 * n)), limits[name]) for name, n in calls.items()
    ]
    lines = table(measure(every, protocol(cold=True), 0, 3)).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("over")] == ["above"]
    assert "Within what they are to take: 1 of 2 forms." in lines
