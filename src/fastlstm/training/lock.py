"""The lock of a folder of checkpoints: one process at a time trains with it.

It is the system's, on a file, and ends with the process, also if that is killed. The file is
removed at the end, so whoever has locked one looks whether it is still the one in the folder.
"""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

NAME = ".lock"  # of the file; its text says who has the lock
FAR = 2**30  # an offset beyond the text: on Windows, nobody reads what is locked
TAKEN = errno.EACCES, errno.EAGAIN  # other errors say that the file cannot be locked

_held: set[tuple[int, str]] = set()  # (process, path): the system gives a process its lock twice


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Within the block, have the lock of a folder.

    There is none where files cannot be locked, as on some network file systems, or not be made.

    Raises
    ------
    BlockingIOError
        Another process has it, or another fit of this one.
    """
    path = os.path.join(os.path.realpath(folder), NAME)
    own = os.getpid(), path  # a fork has a copy of the set, and no lock
    if own in _held:
        raise _taken(folder, _name())
    _held.add(own)
    try:
        file = _open(path, folder)
        try:
            yield
        finally:
            if file is not None:
                _release(file, path)
    finally:
        _held.remove(own)


def _open(path: str, folder: str) -> int | None:
    """Return a descriptor of the file, with the lock; None if there can be none."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            _lock(file)
            is_current = os.path.samestat(os.fstat(file), os.stat(path))
        except FileNotFoundError:  # its owner has just removed it
            is_current = False
        except OSError as error:
            text = _read(file)
            os.close(file)
            if error.errno not in TAKEN:
                return None
            raise _taken(folder, text or "another process") from None
        if is_current:
            with suppress(OSError):  # as of a full disk
                os.ftruncate(file, 0)
                os.lseek(file, 0, os.SEEK_SET)
                os.write(file, _name().encode())
            return file
        os.close(file)


def _read(file: int) -> str:
    with suppress(OSError):
        os.lseek(file, 0, os.SEEK_SET)
        return os.read(file, 1000).decode(errors="replace")
    return ""


def _release(file: int, path: str) -> None:
    if sys.platform == "win32":  # it removes no file that is open, so the file stays
        import msvcrt

        os.lseek(file, FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
    else:
        with suppress(OSError):  # somebody has removed it
            os.unlink(path)
    os.close(file)


def _lock(file: int) -> None:
    """Lock the file, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _taken(folder: str, who: str) -> BlockingIOError:
    return BlockingIOError(
        errno.EAGAIN,
        f"checkpoint: {who} trains with this folder; wait for its end, or use another folder",
        folder,
    )
