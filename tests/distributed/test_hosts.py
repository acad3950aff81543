"""The cores of a host, divided among its ranks: threads of this process with cores made up."""

import math
import threading

import pytest
import rank_runs
from team import on_ranks

import fastlstm as fl
from fastlstm.distributed import hosts
from fastlstm.distributed.ranks import Ranks


@pytest.fixture
def machine(monkeypatch):
    """A function of the host, cores and quota of every rank; returns their threads."""

    def start(ranks, function=None):
        found = [None] * len(ranks)

        def own(k):
            return ranks[int(threading.current_thread().name.removeprefix("rank "))][k]

        def note(n, source):
            found[int(threading.current_thread().name.removeprefix("rank "))] = n
            assert source == "its share of the cores among the ranks"

        monkeypatch.setattr(hosts, "host", lambda: own(0))
        monkeypatch.setattr(hosts, "cores_of_process", lambda: set(own(1)))
        monkeypatch.setattr(hosts, "quota_of_process", lambda: own(2))
        monkeypatch.setattr(hosts, "lower_num_threads", note)
        function = function or (lambda comm: hosts.share_cores(Ranks(comm, False), True))
        for result in on_ranks(len(ranks), function):
            assert result is None
        return found

    return start


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([("a", range(8), math.inf)] * 2, [4, 4]),
        ([("a", range(8), math.inf)] * 3, [2, 2, 2]),
        ([("a", range(14), math.inf)] * 7, [2] * 7),
        ([("a", range(2), math.inf)] * 5, [1] * 5),
        ([("a", range(8), math.inf), ("b", range(8), math.inf)], [8, 8]),
        ([("a b", range(8), math.inf), ("a c", range(8), math.inf)], [8, 8]),
        ([*[("a", range(8), math.inf)] * 2, ("b", range(6), math.inf)], [4, 4, 6]),
        ([("a", range(4), math.inf), ("a", range(4, 10), math.inf)], [4, 6]),  # bound
        ([("a", range(16), math.inf), ("a", [3], math.inf)], [15, 1]),
        ([("a", range(6), math.inf), ("a", range(4, 8), math.inf)], [5, 3]),
        ([("a", range(8), 4)] * 2, [2, 2]),
        ([("a", range(8), 3)] * 2, [1, 1]),
        ([("a", range(8), 4), ("a", range(8, 16), 4)], [2, 2]),
        ([("a", range(8), 1)] * 2, [1, 1]),
        ([("a", range(8), 100)] * 2, [4, 4]),
        ([("a", range(1024), math.inf)] * 2, [512, 512]),
        ([("a", [0, 5000], math.inf), ("a", [5000, 5001, 5002], math.inf)], [1, 2]),
    ],
)
def test_shares(ranks, expected, machine):
    assert machine(ranks) == expected


def test_a_trainer_asks_where_it_has_no_threads_of_its_own(machine):
    def run(comm):
        threads = 3 if comm.rank == 1 else None
        fl.Trainer(rank_runs.model(), "mse", fl.optim.SGD(), threads=threads, comm=comm)

    assert machine([("a", range(8), math.inf)] * 3, run) == [2, None, 2]


def test_one_process_has_all(machine):
    def run(comm):
        fl.Trainer(rank_runs.model(), "mse", fl.optim.SGD(), comm=comm)
        fl.Trainer(rank_runs.model(), "mse", fl.optim.SGD())

    assert machine([("a", range(8), math.inf)], run) == [None]
