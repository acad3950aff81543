"""Which ranks are on one host, and how they divide its cores."""

import os
import socket
from collections import Counter
from fractions import Fraction

from fastlstm.distributed.ranks import Alone, Place
from fastlstm.threads import cores_of_process, lower_num_threads, quota_of_process


def host() -> str:
    """Return what processes share that see one another: containers may have one name."""
    space = "/proc/self/ns/pid"
    return socket.gethostname() + (os.readlink(space) if os.path.exists(space) else "")


def share_cores(ranks: Alone, is_needed: bool) -> None:
    """Let this process have its share of the cores, unless its number of threads has been set.

    A core is divided evenly among the ranks of its host that may run on it, and a host's CPU quota
    among all of its ranks. All ranks call this together.

    Parameters
    ----------
    ranks : Alone or Ranks
    is_needed : bool
        Whether this rank wants a share.
    """
    if ranks.size == 1:
        return
    own, where = cores_of_process(), host()
    mask = sum(1 << core for core in own)
    every = [text.split(" ", 1) for text in ranks.texts(Place.TRAINER, f"{mask:x} {where}")]
    here = [int(mask, 16) for mask, other in every if other == where]
    users = Counter(core for mask in here for core in own if mask >> core & 1)
    share = min(sum(Fraction(1, users[core]) for core in own), quota_of_process() / len(here))
    if is_needed:
        lower_num_threads(max(1, int(share)), "its share of the cores among the ranks")
