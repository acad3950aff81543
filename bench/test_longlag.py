"""`python -m bench.longlag`: every task is run, and what was wanted is compared."""

import pytest

from bench.conftest import run_module
from bench.longlag import TASKS, Task, reached, row


def test_every_task():
    options = "--seeds", 1, "--sequences", 512, "--cells", "RNN"
    lines = run_module("longlag", *options).splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == list(TASKS)
    assert all(" 0/1 " in line for line in lines[1:])


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([(300, 1.0), (500, 2.0)], True),
        ([(300, 1.0), (700, 2.0)], False),  # the median
        ([(300, 1.0), (None, 2.0)], False),
        ([(300, 1.0), (400, 6.0)], False),  # the time
    ],
)
def test_what_is_wanted(runs, expected):
    assert reached(Task(1000, 1.0, median=400, seconds=5.0), runs) == expected


def test_a_row():
    found = row("adding", "LSTM", Task(1000, 1.0), [(300, 1.0), (None, 2.5)]).split()
    assert found == ["adding,", "LSTM", "1/2", "300", "300", "1,000", "2.5"]
