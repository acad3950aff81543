"""Schedules of the learning rate against their formulas, and one against torch."""

import copy
import pickle
from math import cos, pi

import numpy as np
import pytest

from fastlstm import schedules

EVERY = [
    schedules.constant(0.1),
    schedules.linear(0.5, 10, start=0.1),
    schedules.cosine(0.5, 10, warmup=4, start=0.1, end=0.2),
    schedules.one_cycle(0.5, 20),
    schedules.exponential(0.5, 0.1, 7),
    schedules.piecewise([3, 5], [0.5, 0.25, 0]),
    schedules.joined([schedules.linear(0.5, 4), schedules.exponential(0.5, 0.9)], [4]),
]
every = pytest.mark.parametrize("schedule", EVERY, ids=lambda s: type(s).__name__)


def rates(schedule, count):
    return [schedule(step) for step in range(count)]


def test_constant():
    assert rates(schedules.constant(0.1), 3) == [0.1, 0.1, 0.1]


def test_linear():
    np.testing.assert_allclose(
        rates(schedules.linear(0.5, 4, 0.1), 6), [0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
    )


def test_cosine():
    actual = rates(schedules.cosine(0.5, 8, warmup=3, start=0.2, end=0.1), 10)
    half = [0.1 + 0.4 * (1 + cos(pi * k / 5)) / 2 for k in range(5)]
    np.testing.assert_allclose(actual, [0.2, 0.3, 0.4, *half, 0.1, 0.1])
    assert actual[8] == actual[9] == 0.1
    assert schedules.cosine(1e-3, 7)(0) == 1e-3


@pytest.mark.parametrize(("steps", "rise"), [(20, 0.3), (7, 0.5), (10, 0.9)])
def test_one_cycle_as_torch(steps, rise):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.5, total_steps=steps, pct_start=rise
    )
    expected = []
    for _ in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < steps:
            theirs.step()
    ours = schedules.one_cycle(0.5, steps, rise=rise)
    np.testing.assert_allclose(rates(ours, steps), expected, rtol=1e-9)
    assert ours(steps + 5) == ours(steps - 1)


@pytest.mark.parametrize(("steps", "rise"), [(1, 0.3), (2, 0.0), (4, 1.0)])
def test_one_cycle_at_its_ends(steps, rise):
    actual = rates(schedules.one_cycle(0.5, steps, rise=rise), steps + 2)
    assert all(0 < lr <= 0.5 for lr in actual)


def test_exponential():
    np.testing.assert_allclose(
        rates(schedules.exponential(0.5, 0.25, 2), 4), [0.5, 0.25, 0.125, 0.0625]
    )


def test_piecewise():
    assert rates(schedules.piecewise([2, 3], [0.5, 0.25, 0]), 5) == [0.5, 0.5, 0.25, 0, 0]


def test_joined():
    parts = [schedules.linear(0.5, 2), lambda step: 10 + step, schedules.constant(1)]
    assert rates(schedules.joined(parts, [2, 4]), 6) == [0, 0.25, 10, 11, 1, 1]


@every
def test_the_repr_makes_an_equal_schedule(schedule):
    again = eval(repr(schedule), vars(schedules))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert rates(again, 30) == rates(schedule, 30)
    assert all(type(lr) is float for lr in rates(schedule, 30))
    assert copy.deepcopy(schedule) == pickle.loads(pickle.dumps(schedule)) == schedule
    assert all(schedule != other for other in EVERY if other is not schedule)


@every
@pytest.mark.parametrize("step", [-1, 1.5, None, True])
def test_bad_steps(schedule, step):
    with pytest.raises((TypeError, ValueError), match=r"^step: "):
        schedule(step)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: schedules.constant(-1), ValueError, "lr: "),
        (lambda: schedules.constant("fast"), TypeError, "lr: "),
        (lambda: schedules.linear(0.1, 0), ValueError, "steps: "),
        (lambda: schedules.cosine(0.1, 5, warmup=5), ValueError, "warmup: .*5 steps, got 5"),
        (lambda: schedules.cosine(0.1, 5, end=np.nan), ValueError, "end: "),
        (lambda: schedules.one_cycle(0.1, 5, rise=1.1), ValueError, "rise: "),
        (lambda: schedules.one_cycle(0.1, 5, divide=0), ValueError, "divide: "),
        (lambda: schedules.exponential(0.1, -0.5), ValueError, "rate: "),
        (lambda: schedules.piecewise([2, 2], [1, 2, 3]), ValueError, "boundaries: .*rising"),
        (lambda: schedules.piecewise([2], [1]), ValueError, "values: expected 2, got 1"),
        (lambda: schedules.piecewise([2], [1, -1]), ValueError, r"values\[1\]: "),
        (lambda: schedules.piecewise(2, [1, 2]), TypeError, "boundaries: "),
        (lambda: schedules.joined([schedules.constant(1), 2], [3]), TypeError, r"schedules\[1\]: "),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_one_cycle_without_a_fall():
    """It reaches lr at step rise · steps - 1, the last one, as torch's does."""
    schedule = schedules.one_cycle(0.5, 10, rise=1)
    assert schedule(9) == 0.5
    assert schedule(10) == 0.5 / 25 / 1e4
