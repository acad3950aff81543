"""The description of the installation that a bug report needs."""

import os
import platform
import sys

import numpy as np

from fastlstm import kernels
from fastlstm._version import __version__
from fastlstm.threads import get_num_threads


def show_config() -> None:
    """Print versions, processor, the backend in use, and why each other build is not."""
    print(f"fastlstm   {__version__}")
    forced = ", by FASTLSTM_BACKEND" if "FASTLSTM_BACKEND" in os.environ else ""
    print(f"backend    {kernels.backend()}{forced}")
    for name in kernels.COMPILED:
        print(f"  {name:<9}{kernels.why_not(name) or 'runs here'}")
    print(f"threads    {get_num_threads()} of {os.cpu_count()} processors")
    print(f"numpy      {np.__version__}")
    print(f"python     {sys.version.split()[0]} ({platform.python_implementation()})")
    print(f"platform   {platform.platform()}, {platform.machine()}")
