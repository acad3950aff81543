"""How many threads a call may use, and work that is dealt to them in pieces."""

import os
from collections import deque
from collections.abc import Callable, Sequence

from fastlstm.checks import whole_number
from fastlstm.kernels import share

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


def run(tasks: Sequence[Callable[[], None]], threads: int) -> None:
    """Run every task, on at most `threads` threads; return when all are done.

    Whoever is free takes the next one, so that nobody waits for a thread that has not come.
    """
    if threads == 1 or len(tasks) == 1:
        for task in tasks:
            task()
        return
    left = deque(tasks)
    errors: list[BaseException] = []

    def work() -> None:
        while left and not errors:
            try:
                task = left.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:
                errors.append(error)

    share(work, min(threads, len(tasks)))
    if errors:
        raise errors[0]
