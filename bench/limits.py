"""Every engine gets the same cores and threads.

NumPy's BLAS, OpenMP and XLA read these settings once, when they are loaded, so nothing here
imports them.
"""

import os

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# XLA has no option for more than one thread: it takes the cores that the process may run on.
XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


def limit(threads: int) -> None:
    """Hold this process to `threads` cores and threads. Call it before NumPy is imported.

    Parameters
    ----------
    threads : int
        At least 1.

    Raises
    ------
    ValueError
        When this process may run on fewer cores.
    """
    cores = usable_cores()
    if not 1 <= threads <= len(cores):
        raise ValueError(f"threads: expected 1 to {len(cores)} on this machine, got {threads}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores[:threads])
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    if threads == 1:
        os.environ["XLA_FLAGS"] = XLA_ONE_THREAD


def usable_cores() -> list[int]:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def quiet() -> None:
    """Keep the peers' notes on devices they did not find out of the table."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
