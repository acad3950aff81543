"""The number of threads that a call may use."""

import math
import os
from collections.abc import Mapping

from fastlstm.changes import CHANGES
from fastlstm.checks import LARGEST, read_size

VARIABLES = ("FASTLSTM_NUM_THREADS", "OMP_NUM_THREADS")  # the first that is set decides


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
    _set(read_size("n", n), "set_num_threads")


def lower_num_threads(n: int, source: str) -> None:
    """Set a lower number of threads, unless a variable or `set_num_threads` has set one."""
    if n < _num_threads and _source not in (*VARIABLES, "set_num_threads"):
        _set(n, source)


def _set(n: int, source: str) -> None:
    global _num_threads, _source
    _num_threads, _source = n, source
    CHANGES.last = object()


def get_num_threads() -> int:
    """Return the number of threads that a call may use.

    Returns
    -------
    n : int
        At first that of the environment variable FASTLSTM_NUM_THREADS, else that of
        OMP_NUM_THREADS (the first number, if it is a list), else the number of cores that this
        process may run on, or fewer if the CPU quota of its cgroup (its container) allows fewer.
        The variables are read when fastlstm is imported; an empty one counts as not set. Where
        nothing has set it, ``Trainer(comm=...)`` lowers it to this rank's share of the cores.
    """
    return _num_threads


def get_source() -> str:
    """Return where the number of threads comes from."""
    return _source


def first_num_threads(environment: Mapping[str, str], root: str = "") -> tuple[int, str]:
    """Return the number of threads with which a process begins, and where it comes from.

    Raises ValueError if a variable is set to anything but a number of threads. The folders /proc
    and /sys are looked for in `root`.
    """
    for name in VARIABLES:
        if text := environment.get(name, "").strip():
            return _read_variable(name, text), name
    cores, quota = len(cores_of_process()), quota_of_process(root)
    if quota < cores:
        return int(quota), "the CPU quota of the cgroup"
    return cores, "the cores of this process"


def _read_variable(name: str, text: str) -> int:
    numbers = text.split(",") if name == "OMP_NUM_THREADS" else [text]  # OpenMP: one for each level
    for number in map(str.strip, numbers):
        digits = number.isascii() and number.isdigit() and len(number) <= len(str(LARGEST))
        if not (digits and 1 <= int(number) <= LARGEST):
            raise ValueError(f"{name}: expected a whole number, 1 to {LARGEST}, got {text!r}")
    return int(numbers[0])


def cores_of_process() -> set[int]:
    """Return the numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def quota_of_process(root: str = "") -> float:
    """Return how many cores the cgroups of this process allow, rounded up; inf without a quota."""
    least = math.inf
    try:
        lines = _read(f"{root}/proc/self/cgroup").splitlines()  # "number:controllers:group"
    except OSError:  # no Linux
        return least
    for line in lines:
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        folder = f"{root}/sys/fs/cgroup" + ("/cpu" if controllers else "")
        parts = group.rstrip("/").split("/")  # the first is empty, and stands for the folder itself
        for end in range(1, len(parts) + 1):  # a group is limited by its parents, too
            least = min(least, _quota(folder + "/".join(parts[:end]), files))
    return least if least == math.inf else max(1, math.ceil(least))


def _quota(group: str, files: tuple[str, ...]) -> float:
    """The cores that one cgroup allows: quota / period."""
    try:
        quota, period = map(int, " ".join(_read(f"{group}/{name}") for name in files).split())
    except (OSError, ValueError):  # not there; or "max", which is no limit
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return os.fsdecode(file.read())


_num_threads, _source = first_num_threads(os.environ)
