"""When something last changed that calls depend on beside their arguments."""

import os
import threading


class _Changes:
    """Of modules and their parameters, of the number of threads and of the backend."""

    __slots__ = ("attributes", "last", "lock")

    def __init__(self) -> None:
        self.last = object()  # another object after every change
        self.attributes = object()  # another one after a change of modules beside parameters
        self.renew_lock()

    def renew_lock(self) -> None:
        self.lock = threading.RLock()  # under it parameters of a model change


CHANGES = _Changes()
if hasattr(os, "register_at_fork"):  # another thread may have held the lock
    os.register_at_fork(after_in_child=CHANGES.renew_lock)
