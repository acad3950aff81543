"""A rank that dies, or fails, while others train: all end soon, say which, and go on later."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ranks import find_mpiexec

pytest.importorskip("mpi4py")
MPIEXEC = find_mpiexec()
pytestmark = [
    pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec"),
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are no pidfds here"),
]
SOON = 10  # seconds
TWO_HOSTS = Path(__file__).parents[1] / "support" / "two_hosts.sh"

SCRIPT = """
import os
import signal
import sys
import time

import numpy as np
from mpi4py import MPI

import fastlstm as fl

rank, (what, folder) = MPI.COMM_WORLD.rank, sys.argv[1:]


class Event:
    on_every_rank = True

    def on_step_end(self, run):
        if run.step == 13 and rank == 1 and what != "nothing":
            print(f"at {time.time()}", flush=True)
            if what == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if what == "exit":
                os._exit(0)
            if what == "sys.exit":
                sys.exit("no good")
            raise ZeroDivisionError("no good")


rng = np.random.default_rng(0)
x = [rng.standard_normal((n, 3)).astype("f") for n in rng.integers(4, 9, 23)]
y = [one.cumsum(axis=0) for one in x]
model = fl.Sequential(fl.LSTM(3, 7, num_layers=2, dropout=0.2, rng=rank), fl.Linear(7, 3, rng=rank))
trainer = fl.Trainer(
    model, "mse", fl.optim.Adam(1e-2), comm=MPI.COMM_WORLD, deterministic=True, clip_norm=1.0
)
fit = {"epochs": 4, "batch_size": 5, "checkpoint": folder, "checkpoint_every": 2}
history = trainer.fit(x, y, progress=False, callbacks=Event(), **fit)
if rank == 0:
    np.savez(folder + ".npz", loss=history["loss"], **model.state_dict())
"""


@pytest.fixture
def train(tmp_path):
    """Run the script on two ranks; the status, the errors and the seconds since the event."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)

    def run(what, folder, *options, module=("-m", "mpi4py"), begin=()):
        ranks = [sys.executable, *module, script, what, tmp_path / folder]
        command = [*begin, MPIEXEC, *options, "-n", "2", *ranks]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, errors = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        took = time.time() - float(out.split()[1]) if out else 0.0
        while left := processes_of(script):  # they are ending
            assert time.time() - float(out.split()[1]) < SOON, left
            time.sleep(0.05)
        return process.returncode, errors, took

    return run


@pytest.fixture
def two_hosts():
    """A command that runs another on one of two hosts, and the options for MPICH to use both."""
    version = subprocess.run([MPIEXEC, "--version"], capture_output=True, text=True, timeout=60)
    if "HYDRA" not in version.stdout:
        pytest.skip("mpiexec is not MPICH's")
    done = subprocess.run([TWO_HOSTS, "true"], capture_output=True, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"no namespaces: {done.stderr}")
    return [TWO_HOSTS], ["-launcher-exec", TWO_HOSTS, "-hosts", "node1,node2"]


def same(one, other):
    one, other = np.load(one), np.load(other)
    assert len(one.files) > 8
    return all(np.array_equal(one[name], other[name]) for name in one.files)


def processes_of(script):
    """The commands of those that still run it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(script) in text:
            found.append(text)
    return found


@pytest.mark.parametrize("options", [(), ("-disable-auto-cleanup",)], ids=["", "no cleanup"])
def test_a_killed_rank_is_named_and_the_checkpoint_resumes(train, tmp_path, options):
    status, errors, took = train("kill", "killed", *options)
    assert status
    assert took < SOON
    [line] = [line for line in errors.splitlines() if line.startswith("fastlstm: ")]
    assert line.startswith("fastlstm: rank 1 of 2 (process ")
    assert line.endswith("Run again, it goes on from the last checkpoint.")
    newest = max(path.stem for path in (tmp_path / "killed").glob("step-*"))
    assert int(newest[5:]) == 12  # in the middle of an epoch
    if options:
        return
    assert train("nothing", "killed")[:2] == (0, "")
    assert train("nothing", "whole")[:2] == (0, "")
    assert same(tmp_path / "killed.npz", tmp_path / "whole.npz")


def test_two_hosts(train, two_hosts, tmp_path):
    """They have the bits of one; what happens on one of them is told with its name."""
    begin, options = two_hosts
    assert train("nothing", "one")[:2] == (0, "")
    assert train("nothing", "two", *options, begin=begin)[:2] == (0, "")
    assert same(tmp_path / "one.npz", tmp_path / "two.npz")
    status, errors, took = train("kill", "killed", *options, begin=begin)
    assert status
    assert took < SOON
    assert re.search(r"^fastlstm: rank 1 of 2 \(process \d+ on node2 at ", errors, re.MULTILINE)
    _, errors, took = train("raise", "failed", *options, begin=begin, module=())
    assert took < SOON
    assert "RankError: rank 1 on node2: ZeroDivisionError: no good" in errors


def test_a_rank_that_leaves_is_named(train):
    """Its status of 0 is nothing wrong to a launcher."""
    _, errors, took = train("exit", "left")
    assert took < SOON
    assert "fastlstm: rank 1 of 2 (process " in errors


@pytest.mark.parametrize("module", [("-m", "mpi4py"), ()], ids=["by mpi4py", "plain"])
@pytest.mark.parametrize("what", ["raise", "sys.exit"])
def test_an_exception_ends_all(train, what, module):
    status, errors, took = train(what, "failed", module=module)
    assert status
    assert took < SOON
    assert "no good" in errors
    assert "rank 1" in errors  # in the words of MPI_Abort, or of the other rank
    if not module:
        name = "ZeroDivisionError" if what == "raise" else "SystemExit"
        assert f"RankError: rank 1 on {socket.gethostname()}: {name}: no good" in errors
    assert "fastlstm: rank" not in errors  # nobody was killed
