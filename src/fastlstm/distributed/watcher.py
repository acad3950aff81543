"""The program that waits for one of a host's ranks to die: `watch.py` starts it by its path.

It imports nothing but the standard library, and begins within milliseconds.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress

END = b"end"  # comes by standard input when the fit has ended
CLEANUP, GRACE = 1.0, 3.0  # seconds that others get for the launcher's cleanup, and for SIGTERM


def main() -> None:
    """Watch; the argument is JSON: (rank, process, pipe) of each rank here, …"""
    here, size, advice = json.loads(sys.argv[1])
    ranks, pidfds, signs, dead = {}, {}, {}, None
    for rank, pid, pipe in here:
        ranks[pid] = rank
        try:
            pidfds[os.pidfd_open(pid)] = pid
        except ProcessLookupError:  # before this process had begun
            dead = pid
        with suppress(OSError):
            signs[os.open(f"/proc/{pid}/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK)] = pid
    dead = dead or _first_death(here[0][1], signs | pidfds)
    if dead is None:
        return
    second = time.time()
    clock = time.strftime("%H:%M:%S", time.localtime(second)) + f".{int(second % 1 * 1000):03}"
    who = f"rank {ranks[dead]} of {size} (process {dead} on {socket.gethostname()} at {clock})"
    text = f"fastlstm: {who} ended in the middle of fit, so all ranks end. {advice}".rstrip()
    with suppress(OSError):  # nobody reads it
        os.write(2, f"{text}\n".encode())
    _end({fd for fd, pid in pidfds.items() if pid != dead})


def _first_death(owner: int, fds: dict[int, int]) -> int | None:
    """Wait; return the process that ended first, or None when the fit has.

    Parameters
    ----------
    owner : int
        The process that holds the other end of standard input.
    fds : dict of int to int
        The process of each pipe, which closes when its process is about to end, and of each pidfd,
        which says that it has. Between the two a launcher may already have killed the others; but a
        pipe stays open as long as a copy of the process.
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


if __name__ == "__main__":
    main()
