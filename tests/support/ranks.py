"""Ranks of MPI for a test."""

import shutil
import sys
from pathlib import Path


def find_mpiexec():
    """The launcher that belongs to this Python, else another; None if there is none."""
    return shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")
