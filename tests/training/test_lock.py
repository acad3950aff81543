"""One process at a time trains with a folder of checkpoints."""

import errno
import os
import signal
import socket
import subprocess
import sys
import types
from contextlib import contextmanager

import pytest
from kept_run import run
from runs import Watch
from team import on_ranks

import fastlstm as fl
from fastlstm.distributed import RankError
from fastlstm.training import lock

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
TRAIN = """
import os, sys, time
from kept_run import run
from runs import Watch

def wait(_):
    copy = os.fork() if "fork" in sys.argv else 1
    if copy:
        print(copy, flush=True)
    time.sleep(60)

run(sys.argv[1], 2, callbacks=Watch(step=5, do=wait))
"""
TRY = """
import sys
from fastlstm.training.lock import locked
with locked(sys.argv[1]):
    print("free")
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bits of a run that nobody disturbs."""
    return run(tmp_path_factory.mktemp("whole"))


@contextmanager
def training(folder, *options):
    """A process in the middle of a fit; its first line is its attribute `line`."""
    command = [sys.executable, "-c", TRAIN, os.fspath(folder), *options]
    pipes = {"stdout": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    with subprocess.Popen(command, **pipes) as process:
        try:
            process.line = process.stdout.readline()
            assert process.line
            yield process
        finally:
            process.kill()


def is_taken(folder):
    """Whether another process finds the folder so."""
    command = [sys.executable, "-c", TRY, os.fspath(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert (done.stdout == "free\n") != (f"process {os.getpid()} on " in done.stderr), done.stderr
    return not done.stdout


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_script_started_twice(whole, tmp_path):
    """The second changes nothing, and names the first; when that is killed, it goes on."""
    with training(tmp_path) as first:
        (tmp_path / ".step-000000000006.safetensors.0123456789abcdef.tmp").write_bytes(b"half")
        before = contents(tmp_path)
        watch = Watch()
        who = f"checkpoint: process {first.pid} on .* trains with this folder; wait .*{tmp_path}"
        with pytest.raises(BlockingIOError, match=who):
            run(tmp_path, 2, callbacks=watch)
        assert watch.losses == []
        assert contents(tmp_path) == before
        results = on_ranks(2, lambda comm: one_fit(tmp_path, comm=comm))
        assert isinstance(results[0], BlockingIOError)
        assert isinstance(results[1], RankError)
        assert "BlockingIOError" in str(results[1])
    assert run(tmp_path, 2) == whole
    assert all(name.startswith("step-") for name in contents(tmp_path))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_copy_of_a_dead_process_has_no_lock(whole, tmp_path):
    """Workers that it had forked may live on."""
    with training(tmp_path, "fork") as first:
        try:
            first.kill()
            first.wait()
            assert run(tmp_path, 2) == whole
        finally:
            os.kill(int(first.line), signal.SIGKILL)


def one_fit(folder, callbacks=(), comm=None):
    x = [[[0.5], [0.25]]] * 3
    model = fl.Sequential(fl.LSTM(1, 2, rng=0), fl.Linear(2, 1, rng=0))
    trainer = fl.Trainer(model, "mse", fl.optim.SGD(0.1), comm=comm)
    trainer.fit(x, x, epochs=1, checkpoint=folder, callbacks=callbacks, progress=False)


def test_two_fits_of_one_process(tmp_path):
    """The system would let a process lock again, and then unlock for both."""
    folder, taken = tmp_path / "one", []

    def again(_):
        one_fit(tmp_path / "two")
        for path in (folder, tmp_path / "two" / ".." / "one"):
            with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on "):
                one_fit(path)
        taken.append(is_taken(folder))

    one_fit(folder, Watch(step=1, do=again))
    assert taken == [True]
    assert not is_taken(folder)


def test_an_error_ends_it(tmp_path):
    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        one_fit(tmp_path, Watch(step=1, do=fail))
    assert not (tmp_path / lock.NAME).exists()
    assert not is_taken(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_files_that_cannot_be_locked(code, whole, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert run(tmp_path) == whole


def test_a_finished_run_of_a_read_only_folder(whole, tmp_path, monkeypatch):
    run(tmp_path)
    system = os.open

    def refuse(path, flags, *rest, **options):
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return system(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert run(tmp_path) == whole


def test_a_file_that_its_owner_has_just_removed(tmp_path, monkeypatch):
    """It is in no folder any more, so the next one is locked."""
    system, files = lock._lock, []

    def late(file):
        system(file)
        files.append(file)
        if len(files) == 1:
            os.unlink(tmp_path / lock.NAME)
        if len(files) == 2:
            os.replace(tmp_path / "another", tmp_path / lock.NAME)

    (tmp_path / "another").touch()
    monkeypatch.setattr(lock, "_lock", late)
    with lock.locked(tmp_path):
        assert len(files) == 3
        assert is_taken(tmp_path)
    assert not is_taken(tmp_path)


def test_windows_locks_a_byte_that_nobody_reads(tmp_path, monkeypatch):
    calls = []

    def locking(file, mode, size):
        calls.append((os.lseek(file, 0, os.SEEK_CUR), mode, size))
        if len(calls) == 3:
            raise PermissionError(errno.EACCES, "Permission denied")

    fake = types.SimpleNamespace(locking=locking, LK_NBLCK=2, LK_UNLCK=0)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(lock, "sys", types.SimpleNamespace(platform="win32"))
    (tmp_path / lock.NAME).write_text("left by a process that was killed, on a host of a long name")
    with lock.locked(tmp_path):
        host = socket.gethostname()
        assert (tmp_path / lock.NAME).read_text() == f"process {os.getpid()} on {host}"
    assert calls == [(lock.FAR, 2, 1), (lock.FAR, 0, 1)]
    (tmp_path / lock.NAME).write_text("process 7 on there")
    with (
        pytest.raises(BlockingIOError, match="process 7 on there trains"),
        lock.locked(tmp_path),
    ):
        pass
