"""Ranks as threads of this process: a communicator for tests, and functions that run on all."""

import threading

import numpy as np

import fastlstm as fl

PATIENCE = 20  # seconds until ranks that wait for one another are given up


class Comm:
    """One rank. Its collectives fail, and do not wait, where ranks call different ones."""

    def __init__(self, rank, size, shared):
        self.rank, self.size, self._shared = rank, size, shared
        self.calls = 0

    def Get_rank(self):  # noqa: N802
        return self.rank

    def Get_size(self):  # noqa: N802
        return self.size

    def Bcast(self, array, root=0):  # noqa: N802
        array[...] = self._all("Bcast", array)[root]

    def Allgather(self, own, every):  # noqa: N802
        every[...] = self._all("Allgather", own)

    def Allreduce(self, own, total):  # noqa: N802
        total[...] = sum(self._all("Allreduce", own))

    def _all(self, name, array):
        """The arrays of all ranks."""
        self.calls += 1
        given, barrier = self._shared
        given[self.rank] = name, np.array(array)
        barrier.wait(PATIENCE)
        found = [given[rank] for rank in range(self.size)]
        barrier.wait(PATIENCE)
        forms = {(name, one.shape, one.dtype) for name, one in found}
        assert len(forms) == 1, f"ranks call different collectives: {forms}"
        return [one for _, one in found]


def on_ranks(size, function):
    """What a function of the communicator returned on every rank, or the exception it raised.

    Threads are named after their ranks. They do not divide the cores of this process, whose number
    of threads is then one that was set.
    """
    fl.set_num_threads(fl.get_num_threads())
    shared = {}, threading.Barrier(size)
    results = [None] * size

    def run(rank):
        try:
            results[rank] = function(Comm(rank, size, shared))
        except BaseException as error:
            results[rank] = error

    names = [f"rank {rank}" for rank in range(size)]
    threads = [threading.Thread(target=run, args=(k,), name=name) for k, name in enumerate(names)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def returned(results):
    """The results of ranks that all returned."""
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
