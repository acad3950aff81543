"""Timings with one thread for everyone."""

import os
import subprocess
import sys

# NumPy's BLAS reads these once, when it is loaded: hence a process of its own.
VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def run(module: str, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a module of this package as a program whose BLAS has one thread.

    Parameters
    ----------
    module : str
        Its full name.
    *arguments : str
    capture : bool
        Whether to keep what it prints; otherwise that goes where this process prints.
    """
    environment = {**os.environ, **dict.fromkeys(VARIABLES, "1")}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, capture_output=capture, check=False, text=True)
