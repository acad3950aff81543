"""What every rank of ``mpiexec`` runs: ``python -m mpi4py mpi_run.py TASK [FOLDER]``."""

import hashlib
import json
import os
import signal
import sys

import numpy as np
import rank_runs
from mpi4py import MPI
from runs import Watch

import fastlstm as fl

WORLD = MPI.COMM_WORLD


def bits(model):
    digest = hashlib.sha256()
    for name, array in model.state_dict().items():
        digest.update(f"{name} {array.tolist()}".encode())
    return digest.hexdigest()


def agree():
    """How far ranks are from one process, and the bits that they end with."""
    report = {"size": WORLD.size}
    for dtype, name in ((np.float32, "float32"), (np.float64, "float64")):
        alone, history = rank_runs.fit(None, dtype)
        for kind in ("any", "ordered"):
            one, own = rank_runs.fit(WORLD, dtype, deterministic=kind == "ordered")
            report[f"{name} {kind}"] = rank_runs.distance(alone.model, one.model)
            report[f"{name} {kind} loss"] = float(
                np.abs(own["val_loss"] / history["val_loss"] - 1).max()
            )
            report[f"{name} {kind} bits"] = bits(one.model)
        one, _ = rank_runs.fit(MPI.COMM_SELF, dtype)
        report[f"{name} self"] = rank_runs.distance(alone.model, one.model)
        half = WORLD.Split(WORLD.rank % 2, -WORLD.rank)
        one, _ = rank_runs.fit(half, dtype)
        report[f"{name} split"] = rank_runs.distance(alone.model, one.model)
        half.Free()
    return report


def interrupt():
    """Ctrl-C on the last rank, in its fifth step."""

    def press(run):
        if WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), signal.SIGINT)

    watch = Watch(step=5, do=press)
    watch.on_every_rank = True
    one, history = rank_runs.fit(WORLD, callbacks=watch)
    return {"step": one.step, "stopped": history.stopped_by, "bits": bits(one.model)}


def threads():
    """How many threads this rank has for a trainer of all, and then for one of its own."""
    found = []
    for comm in (WORLD, MPI.COMM_SELF):
        fl.Trainer(rank_runs.model(), "mse", fl.optim.SGD(), comm=comm)
        found.append(fl.get_num_threads())
    return found


def fault():
    def loss(pred, target, mask=None):
        if WORLD.rank == 1:
            raise KeyError("of the user")
        return fl.losses.mse(pred, target, mask)

    x, y, _ = rank_runs.data()
    rank_runs.trainer(WORLD, loss=loss).fit(x, y, epochs=1, progress=False)


def resume():
    """A fit that dies in its second epoch, in a folder without checkpoints."""

    def die(run):
        raise RuntimeError("death")

    folder = sys.argv[2]
    watch = () if os.path.exists(folder) else Watch(step=7, do=die)
    WORLD.Barrier()
    one, _ = rank_runs.fit(WORLD, checkpoint=folder, checkpoint_every=2, callbacks=watch)
    alone, _ = rank_runs.fit()
    return {"distance": rank_runs.distance(alone.model, one.model), "steps": one.optimizer.steps}


if __name__ == "__main__":
    report = globals()[sys.argv[1]]()
    reports = WORLD.gather(report)
    if not WORLD.rank:
        print(json.dumps(reports))
