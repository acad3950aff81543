"""A watch over the processes of a fit: when one dies, it says which, and ends the others.

A rank that is killed says nothing, and the others wait for it in a reduction. A launcher that
cleans up, as MPICH's does, kills them within milliseconds, before one of them could say why. So a
small process on each host, in a session of its own, waits for any of the host's ranks to end. This
file is its program, too: it has to import nothing but the standard library.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

END = b"end"
CLEANUP, GRACE = 1.0, 3.0  # seconds that others get for the launcher's cleanup, and for SIGTERM


@contextmanager
def watched(comm: Any, advice: str = "") -> Iterator[None]:
    """Within the block, the death of a rank is reported by name, and ends all ranks of its host.

    The ranks of other hosts are left to the launcher. Collective; without an exception no rank
    leaves the block before all have come to its end. Without pidfds (Linux 5.3) nothing is watched.

    Parameters
    ----------
    comm : communicator of mpi4py
    advice : str
        Ends the message.
    """
    watcher = None
    if comm.size > 1:
        pids = {
            pid: rank
            for host, pid, rank in comm.allgather((_host(), os.getpid(), comm.rank))
            if host == _host()
        }
        if comm.rank == min(pids.values()) and hasattr(os, "pidfd_open"):
            watcher = _start(pids, comm.size, advice)
    try:
        yield
    finally:
        if watcher is not None:
            watcher.communicate(END)
    if comm.size > 1:
        comm.Barrier()  # a process may end only when nobody watches it


def _host() -> tuple[str, str]:
    """What the processes that see one another have in common: containers share a name at times."""
    space = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    return socket.gethostname(), space


def _start(pids: dict[int, int], size: int, advice: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-I", "-S", __file__, json.dumps([os.getpid(), pids, size, advice])]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def _first_death(owner: int, fds: dict[int, int]) -> int | None:
    """Wait; return the process that ended first, or None when the fit has.

    Parameters
    ----------
    owner : int
        The process that holds the other end of standard input.
    fds : dict of int to int
        By pidfd, the process.
    """
    with select.epoll() as events:  # in the order in which they came, also if this runs late
        for fd in (0, *fds):
            events.register(fd, select.EPOLLIN)
        [(fd, _)] = events.poll(maxevents=1)
    if fd:
        return fds[fd]
    return None if os.read(0, len(END)) == END else owner


def _end(fds: set[int]) -> None:
    """End processes, by their pidfds, that nothing else ends."""
    for number, seconds in ((0, CLEANUP), (signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        for fd in fds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        deadline = time.monotonic() + seconds
        while fds and (left := deadline - time.monotonic()) > 0:
            fds = fds - set(select.select(fds, [], [], left)[0])


def _main() -> None:
    owner, texts, size, advice = json.loads(sys.argv[1])
    ranks = {int(pid): rank for pid, rank in texts.items()}
    fds, dead = {}, None
    for pid in ranks:
        try:
            fds[os.pidfd_open(pid)] = pid
        except ProcessLookupError:  # before this process had begun
            dead = pid
    dead = dead or _first_death(owner, fds)
    if dead is None:
        return
    who = f"rank {ranks[dead]} of {size} (process {dead} on {socket.gethostname()})"
    text = f"fastlstm: {who} died during fit, which ends on all ranks. {advice}".rstrip()
    with suppress(OSError):  # nobody reads it
        os.write(2, f"{text}\n".encode())
    _end({fd for fd, pid in fds.items() if pid != dead})


if __name__ == "__main__":
    _main()
