"""The number of threads that a call may use."""

import os

from fastlstm.checks import read_size

_num_threads = (
    len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
)


def set_num_threads(n: int) -> None:
    """Set the number of threads that later calls of this process may use.

    Parameters
    ----------
    n : int
        1 or more, with the thread of the caller. With 1, no other thread does any work.

    Raises
    ------
    ValueError
        n is less than 1.
    TypeError
        n is not a whole number.
    """
    global _num_threads
    _num_threads = read_size("n", n)


def get_num_threads() -> int:
    """Return the number of threads that a call may use.

    Returns
    -------
    n : int
        By default, the number of cores that this process may run on.
    """
    return _num_threads
