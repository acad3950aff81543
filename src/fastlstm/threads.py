"""A small pool of Python threads, for calls that release the interpreter lock."""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

import numpy as np

from fastlstm.checks import whole_number
from fastlstm.kernels import core

_num_threads = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)


def set_num_threads(n: int) -> None:
    """Let later calls of this process use up to `n` threads, the caller's own among them.

    With 1, no other thread does any work.
    """
    global _num_threads
    _num_threads = whole_number("n", n)


def get_num_threads() -> int:
    """How many threads a call may use: by default, one for each core this process may run on."""
    return _num_threads


def run(tasks: Sequence[Callable[..., None]], threads: int, together: bool = False) -> None:
    """Run every task, on at most `threads` threads; return when all are done.

    With `together` there is one task, a kernel call in whose steps all take part: it runs as
    ``task(team, True)`` here and as ``task(team, False)`` wherever a thread wakes in time.
    """
    if threads == 1:
        for task in tasks:
            task()
    elif together:
        (task,) = tasks
        _lead(task, threads)
    else:
        batch = _Batch(tasks)
        _pool.help(batch, min(threads, batch.unfinished) - 1)
        batch.drain()
        batch.wait()


def _lead(task: Callable[..., None], threads: int) -> None:
    team = np.zeros((threads + 2, 8), np.int64)  # kernels/team.pxi says what is in it
    _pool.help(_Batch([partial(task, team, False)] * (threads - 1)), threads - 1)
    try:
        task(team, True)
    finally:
        team[0, 0] = 2**32  # closed to those who come now,
        team[1, 0] = -1  # and over for those who came


class _Batch:
    """Tasks that whoever is free takes in turn; the caller never waits for one nobody began."""

    def __init__(self, tasks: Sequence[Callable[[], None]]):
        self.tasks = deque(tasks)
        self.unfinished = len(self.tasks)
        self.error: BaseException | None = None
        self._lock = threading.Lock()
        self._finished = threading.Event()

    def drain(self) -> None:
        while True:
            try:
                task = self.tasks.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:
                self.error = error
            with self._lock:
                self.unfinished -= 1
                if not self.unfinished:
                    self._finished.set()

    def wait(self) -> None:
        if self.unfinished:
            self._finished.wait()
        if self.error is not None:
            raise self.error


class _Pool:
    """Daemon threads that sleep until there is a batch to help with."""

    def __init__(self) -> None:
        self._batches: SimpleQueue[_Batch] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._cores: set[int] = set()  # that the workers may use
        self._lock = threading.Lock()

    def help(self, batch: _Batch, helpers: int) -> None:
        with self._lock:
            while len(self._workers) < helpers:
                worker = threading.Thread(target=self._work, name="fastlstm", daemon=True)
                worker.start()
                self._workers.append(worker)
                self._cores = set()
            if hasattr(os, "sched_setaffinity"):
                self._leave_core_to_caller()
        for _ in range(helpers):
            self._batches.put(batch)

    def _leave_core_to_caller(self) -> None:
        # Some systems (virtual ones above all) wake a thread on its waker's core although another
        # is idle, and move it only at a later tick: milliseconds in which it waits for the caller.
        allowed = os.sched_getaffinity(0)
        cores = allowed - {core()} or allowed
        if cores != self._cores:
            for worker in self._workers:
                if worker.native_id is not None:
                    with suppress(OSError):  # a hint: nothing but time depends on it
                        os.sched_setaffinity(worker.native_id, cores)
            self._cores = cores

    def _work(self) -> None:
        while True:
            self._batches.get().drain()


def _renew() -> None:
    """After a fork, no thread of the parent's pool exists and its locks may be held for ever."""
    global _pool
    _pool = _Pool()


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
