"""The description of the installation that a bug report needs."""

import os
import platform
import sys

import numpy as np

from fastlstm import kernels, threads
from fastlstm._version import __version__


def show_config() -> None:
    """Print versions, processor, threads, the backend in use, and why each other build is not.

    If a build was not compiled, also the command that compiles it.
    """
    print(f"fastlstm   {__version__}")
    forced = ", by FASTLSTM_BACKEND" if os.environ.get("FASTLSTM_BACKEND") else ""
    print(f"backend    {kernels.backend()}{forced}")
    states = {name: kernels.why_not(name) or "runs here" for name in kernels.COMPILED}
    for name, state in states.items():
        print(f"  {name:<9}{state}")
    if any(state.startswith("not compiled") for state in states.values()):
        from fastlstm.kernels import not_compiled

        print(f"  to compile them: {not_compiled.command()}")
    source = threads.get_source()
    print(f"threads    {threads.get_num_threads()} of {os.cpu_count()} processors, by {source}")
    print(f"numpy      {np.__version__}")
    print(f"python     {sys.version.split()[0]} ({platform.python_implementation()})")
    print(f"platform   {platform.platform()}, {platform.machine()}")
