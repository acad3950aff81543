"""Programs in which every library computes on one thread, for timings."""

import os
import subprocess
import sys

# NumPy's BLAS reads these variables only when it is loaded, so they need a new process.
VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def run(module: str, *arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a module of this package as a program whose BLAS has one thread.

    Parameters
    ----------
    module : str
        Full name of the module.
    *arguments : str
    capture : bool
        Whether to return the program's output in the result instead of printing it.
    """
    environment = {**os.environ, **dict.fromkeys(VARIABLES, "1")}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env=environment, capture_output=capture, check=False, text=True)
