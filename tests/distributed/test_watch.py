"""The watch over a fit's processes, with processes of the test's own in the place of ranks."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path

import pytest

from fastlstm.distributed import watch
from fastlstm.distributed.ranks import Alone

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there are no pidfds here")

OWNER = """
import sys
import numpy as np
from fastlstm.distributed import watch
others = eval(sys.argv[1])
class Ranks:
    rank = min(others) - 1
    size = 10
    def exchange(self, place, own):
        found = np.zeros((self.size, 3))
        found[self.rank] = own
        for rank, numbers in others.items():
            found[rank] = own[0] if rank < 9 else 1, *numbers
        return found
with watch.watched(Ranks(), "Run it again."):
    print("watching", flush=True)
    if sys.stdin.readline() == "raise\\n":
        raise ValueError("no good")
print("ended", flush=True)
"""
SLEEP = """
import os, signal, time
read, write = os.pipe()
signal.signal(signal.SIGUSR1, lambda *_: os.close(write))
signal.signal(signal.SIGUSR2, lambda *_: print(os.fork() or time.sleep(60), flush=True))
print(read, flush=True)
while True:
    time.sleep(60)
"""
DEAF = SLEEP.replace("read, w", "signal.signal(signal.SIGTERM, lambda *_: None)\nread, w")


@pytest.fixture
def begin():
    """Start a process; its first line is its attribute `line`."""
    with ExitStack() as stack:

        def start(program, *arguments, **options):
            command = [sys.executable, "-c", program, *arguments]
            pipes = {"stdout": subprocess.PIPE, "text": True} | options
            process = stack.enter_context(subprocess.Popen(command, **pipes))
            stack.callback(process.kill)
            process.line = process.stdout.readline()
            assert process.line
            return process

        yield start


def own(begin, ranks, tmp_path):
    """A process whose fit watches itself and the given processes, by rank; its errors in a file."""
    others = {rank: (process.pid, int(process.line)) for rank, process in ranks.items()}
    with open(tmp_path / "stderr", "wb") as file:
        return begin(OWNER, repr(others), stdin=subprocess.PIPE, stderr=file)


def watcher_of(process):
    """Its child, once that is at its program."""
    [pid] = children(process.pid)
    wait_for(lambda: "eventpoll" in str(list(map(os.readlink, Path(f"/proc/{pid}/fd").iterdir()))))
    return pid


def children(pid):
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition):
    end = time.monotonic() + 30
    while True:
        with suppress(FileNotFoundError):
            if condition():
                return
        assert time.monotonic() < end
        time.sleep(0.01)


def messages(tmp_path):
    text = (tmp_path / "stderr").read_text()
    return [line for line in text.splitlines() if line.startswith("fastlstm: ")]


def clock_of(second):
    return datetime.fromtimestamp(second).isoformat(timespec="milliseconds").partition("T")[2]


def test_a_fit_that_ends_leaves_no_watcher_and_no_word(begin, tmp_path):
    other = begin(SLEEP)
    owner = own(begin, {1: other}, tmp_path)
    watcher = watcher_of(owner)
    assert owner.communicate("\n", timeout=30)[0] == "ended\n"
    assert not os.path.exists(f"/proc/{watcher}")
    assert not (tmp_path / "stderr").read_text()
    assert other.poll() is None


def test_an_error_is_not_a_death(begin, tmp_path):
    other = begin(SLEEP)
    owner = own(begin, {1: other}, tmp_path)
    watcher = watcher_of(owner)
    assert owner.communicate("raise\n", timeout=30)[0] == ""
    assert not os.path.exists(f"/proc/{watcher}")
    assert not messages(tmp_path)
    assert "ValueError: no good" in (tmp_path / "stderr").read_text()


def test_the_one_that_died_is_named_and_the_others_end(begin, tmp_path):
    ranks = {2: begin(SLEEP), 3: begin(SLEEP), 4: begin(DEAF), 9: begin(SLEEP)}
    owner = own(begin, ranks, tmp_path)
    watcher_of(owner)
    before = time.time()
    ranks[3].kill()
    assert owner.wait(timeout=30) == -signal.SIGTERM
    assert ranks[2].wait(timeout=30) == -signal.SIGTERM
    assert ranks[4].wait(timeout=30) == -signal.SIGKILL
    assert ranks[9].poll() is None  # on another host
    [line] = messages(tmp_path)
    who = f"rank 3 of 10 (process {ranks[3].pid} on {socket.gethostname()} at "
    clock = line.partition(who)[2].partition(")")[0]
    assert clock_of(before) <= clock <= clock_of(time.time()) or clock < "01"  # after midnight
    assert line.endswith(". Run it again.")


def test_the_owners_own_death_is_told(begin, tmp_path):
    other = begin(SLEEP)
    owner = own(begin, {1: other}, tmp_path)
    watcher_of(owner)
    owner.kill()
    assert other.wait(timeout=30) == -signal.SIGTERM
    [line] = messages(tmp_path)
    assert f"rank 0 of 10 (process {owner.pid} on " in line


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_watcher_that_comes_late_names_the_first(first, begin, tmp_path):
    """A launcher kills the others at once."""
    ranks = {1: begin(SLEEP), 2: begin(SLEEP)}
    owner = own(begin, ranks, tmp_path)
    watcher = watcher_of(owner)
    os.kill(watcher, signal.SIGSTOP)
    processes = {0: owner, **ranks}
    for rank in sorted(processes, key=lambda rank: rank != first):
        processes[rank].kill()
        processes[rank].wait()
    os.kill(watcher, signal.SIGCONT)
    wait_for(lambda: messages(tmp_path))
    [line] = messages(tmp_path)
    assert f"rank {first} of 10 " in line


def test_a_process_is_dead_as_soon_as_its_files_are_closed(begin, tmp_path):
    """From then on a launcher may kill others, which can be quicker to end."""
    ranks = {1: begin(SLEEP), 2: begin(SLEEP)}
    owner = own(begin, ranks, tmp_path)
    watcher = watcher_of(owner)
    os.kill(watcher, signal.SIGSTOP)
    ranks[2].send_signal(signal.SIGUSR1)
    wait_for(lambda: len(list(Path(f"/proc/{ranks[2].pid}/fd").iterdir())) == 4)
    ranks[1].kill()
    ranks[1].wait()
    os.kill(watcher, signal.SIGCONT)
    wait_for(lambda: messages(tmp_path))
    [line] = messages(tmp_path)
    assert "rank 2 of 10 " in line


def test_a_copy_of_a_process_is_not_that_process(begin, tmp_path):
    other = begin(SLEEP)
    owner = own(begin, {1: other}, tmp_path)
    watcher_of(owner)
    other.send_signal(signal.SIGUSR2)
    copy = int(other.stdout.readline())
    try:
        other.kill()
        wait_for(lambda: messages(tmp_path))
    finally:
        os.kill(copy, signal.SIGKILL)
    [line] = messages(tmp_path)
    assert "rank 1 of 10 " in line


def test_one_that_died_before_the_watch(begin, tmp_path):
    other = begin(SLEEP)
    other.kill()
    other.wait()
    owner = own(begin, {1: other}, tmp_path)
    assert owner.wait(timeout=30) == -signal.SIGTERM
    [line] = messages(tmp_path)
    assert "rank 1 of 10 " in line


def test_alone_nothing_is_watched():
    before = children(os.getpid())  # of other tests, such as joblib's
    with watch.watched(Alone()):
        assert set(children(os.getpid())) <= set(before)
