"""How often a turn calls what it times, and which calls count."""

import pytest

from bench import turns
from bench.turns import batch_size, medians, protocol, turn


class Clock:
    """Time that passes in calls and pauses alone; the first `slow` calls take ten times as long."""

    def __init__(self, monkeypatch, call=1e-3):
        self.now, self.call, self.slow, self.calls, self.pauses = 0.0, call, 0, 0, []
        monkeypatch.setattr(turns.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(turns.time, "sleep", self.pauses.append)

    def run(self):
        self.calls += 1
        self.now += self.call * (10 if self.calls <= self.slow else 1)


@pytest.mark.parametrize(("call", "batch"), [(1e-6, 1000), (1e-4, 10), (1e-3, 1), (1.0, 1)])
def test_batches_of_a_twentieth_of_a_turn(call, batch, monkeypatch):
    assert batch_size(Clock(monkeypatch, call).run, protocol(cold=False)) == batch


def test_the_first_calls_of_a_hot_turn_do_not_count(monkeypatch):
    clock = Clock(monkeypatch)
    clock.slow = 1
    assert turn(clock.run, 1, protocol(cold=False)) == pytest.approx(1e-3)
    assert clock.calls in (21, 22)  # 10 ms that are not timed, 20 that are; rounding adds a call
    assert not clock.pauses


def test_one_call_before_a_hot_turn_however_long_it_is(monkeypatch):
    clock = Clock(monkeypatch, call=1.0)
    turn(clock.run, 1, protocol(cold=False))
    assert clock.calls == 2


def test_all_calls_of_a_cold_turn_count(monkeypatch):
    clock = Clock(monkeypatch, call=1e-4)
    clock.slow = 1
    assert turn(clock.run, 1, protocol(cold=True)) == pytest.approx(1e-3)
    assert clock.calls == 1


@pytest.mark.parametrize(("cold", "calls"), [(False, {22, 23}), (True, {21, 22})])
def test_a_pause_with_two_threads(cold, calls, monkeypatch):
    clock = Clock(monkeypatch)
    turn(clock.run, 1, protocol(cold=cold, threads=2))
    assert clock.pauses == [0.25]
    assert clock.calls in calls


def test_as_many_rounds_as_asked_for(monkeypatch):
    clock = Clock(monkeypatch, call=1.0)
    prepared = []
    found = medians({"a": clock.run, "b": clock.run}, protocol(cold=True), 0, 4, prepared.append)
    assert found == {"a": 1.0, "b": 1.0}
    assert sorted(prepared) == 5 * ["a"] + 5 * ["b"]  # once more to find how long a call is
