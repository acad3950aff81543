"""A watch over the processes of a fit: when one dies, it is named, and the others end.

A rank that is killed says nothing, and the others wait for it in a reduction. A launcher that
cleans up, as MPICH's does, kills them within milliseconds, before one of them could say why. So on
each host a small process watches, in a session of its own: `watcher.py`.
"""

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from fastlstm.distributed import watcher
from fastlstm.distributed.hosts import host
from fastlstm.distributed.ranks import Alone, Place


@contextmanager
def watched(ranks: Alone, advice: str = "") -> Iterator[None]:
    """Within the block, the death of a rank is reported by name, and ends all ranks of its host.

    Those of other hosts are left to the launcher; what it ends is reported there, with a later
    time. A process may end only after all ranks have left
    the block, so it belongs into `Ranks.together`. Without pidfds (Linux 5.3) nothing is watched.

    Parameters
    ----------
    ranks : Alone or Ranks
    advice : str
        A sentence for the report.
    """
    process = None
    if ranks.size > 1:
        own = zlib.crc32(host().encode()), os.getpid(), _sign_of_life()
        found = ranks.exchange(Place.FIT, own).astype(int).tolist()
        here = [(rank, pid, fd) for rank, (where, pid, fd) in enumerate(found) if where == own[0]]
        if ranks.rank == here[0][0] and hasattr(os, "pidfd_open"):
            process = _start([here, ranks.size, advice])
    try:
        yield
    finally:
        if process is not None:
            process.communicate(watcher.END)


@cache
def _sign_of_life() -> int:
    """Open a pipe that closes when this process ends, and return the end to read from."""
    return os.pipe()[0]


def _start(arguments: list[object]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-I", "-S", watcher.__file__, json.dumps(arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
