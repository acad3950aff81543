"""Checkpoints: the same script, run again, ends with the same bits."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import kept_run
import numpy as np
import pytest
from kept_run import run
from runs import Watch

import fastlstm as fl
from fastlstm.training import checkpoints, lock

EPOCHS = 7  # of 5 steps each; the run stops early after 5, and the third is the best
SCRIPT = kept_run.__file__


class Death(BaseException):
    pass


def dying(step):
    def die(run):
        raise Death

    return Watch(step=step, do=die)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir() if path.name != lock.NAME)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bits of a run that was never stopped."""
    return run(tmp_path_factory.mktemp("whole"), epochs=EPOCHS)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that died in its fourth epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Death):
        run(folder, epochs=EPOCHS, callbacks=dying(17))
    return folder


@pytest.fixture
def folder(stopped, tmp_path):
    return shutil.copytree(stopped, tmp_path / "copy")


@pytest.mark.parametrize("every", ["epoch", 1, 3])
def test_a_run_goes_on_to_the_same_bits(every, whole, tmp_path):
    for step in (1, 4, 5, 6, 17, 24):
        with pytest.raises(Death):
            run(tmp_path, every, epochs=EPOCHS, callbacks=dying(step))
    assert run(tmp_path, every, epochs=EPOCHS) == whole


def test_a_run_goes_on_from_within_an_epoch(folder):
    watch = dying(19)
    with pytest.raises(Death):
        run(folder, 2, epochs=EPOCHS, callbacks=watch)
    assert len(watch.losses) == 4  # from step 15
    watch = Watch()
    run(folder, 2, epochs=EPOCHS, callbacks=watch)
    assert len(watch.losses) == 7  # from step 18


def kill_at_random(folder, every, kills, seed):
    rng = np.random.default_rng(seed)
    command = [sys.executable, SCRIPT, os.fspath(folder), every]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(kills):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        had = set(names(folder))
        while set(names(folder)) == had and child.poll() is None:
            time.sleep(0.002)  # until it trains
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.wait()
    return subprocess.check_output(command, env=environment, text=True).strip()


def test_kill_at_random_moments(tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    assert kill_at_random(folder, "2", 3, seed=0) == run(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("every", ["epoch", "1", "3"])
def test_kill_at_many_random_moments(tmp_path, every):
    folder = tmp_path / "killed"
    folder.mkdir()
    assert kill_at_random(folder, every, 20, seed=1) == run(tmp_path / "whole")


def test_ctrl_c_and_then_on(whole, tmp_path):
    watch = Watch(step=8, do=lambda run: os.kill(os.getpid(), signal.SIGINT))
    assert "interrupt" in run(tmp_path, epochs=EPOCHS, callbacks=watch)
    assert len(watch.losses) == 8
    watch = Watch()
    assert run(tmp_path, epochs=EPOCHS, callbacks=watch) == whole
    assert len(watch.losses) == 17  # not one step is made twice


@pytest.mark.parametrize("patience", [2, 99], ids=["early stopping", "all epochs"])
def test_a_finished_run_returns_at_once(patience, tmp_path):
    first = run(tmp_path, patience=patience)
    before = names(tmp_path)
    watch = Watch()
    assert run(tmp_path, patience=patience, callbacks=watch) == first
    assert watch.losses == []
    assert names(tmp_path) == before


def test_more_epochs_go_on_and_fewer_are_refused(tmp_path):
    changes = {"patience": 99}
    run(tmp_path / "a", epochs=3, **changes)
    assert run(tmp_path / "a", epochs=6, **changes) == run(tmp_path / "b", epochs=6, **changes)
    with pytest.raises(ValueError, match="epochs: expected at least the 6"):
        run(tmp_path / "a", epochs=5, **changes)


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 3, 2)), np.ones((4, 3, 2))
    rates = [0.1, 0.1, 1.0, 1.0, 1.0, 1.0]
    trainer = fl.Trainer(
        fl.Sequential(fl.LSTM(2, 2, rng=0)), "mse", fl.optim.SGD(1.0), schedule=rates.__getitem__
    )
    most = []

    class Note:
        def on_epoch_end(self, run):
            most.append(len(names(tmp_path)))

    history = trainer.fit(
        x,
        y,
        epochs=6,
        validation=(x, -y),
        checkpoint=tmp_path,
        callbacks=[Note()],
        progress=False,
    )
    assert history.best_epoch == 0
    assert max(most) == 3
    assert names(tmp_path) == [f"step-{step:012}.safetensors" for step in (1, 5, 6)]


# What is refused.


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"rows": 24}, "data"),
        ({"batch_size": 5}, "batch_size"),
        ({"hidden": 5}, "model"),
        ({"dropout": 0.3}, "model"),
        ({"seed": 4}, "seed"),
        ({"lr": 0.06}, "optimizer"),
        ({"steps": 41}, "schedule"),
        ({"clip_norm": 2.0}, "clip_norm"),
        ({"validation": 0.5}, "validation data"),
        ({"patience": 3}, "early_stopping"),
    ],
)
def test_other_data_sizes_and_settings_are_refused(folder, change, name):
    before = names(folder)
    with pytest.raises(ValueError, match=f"is of another run: .*{name} was .*, is "):
        run(folder, **{"epochs": EPOCHS} | change)
    assert names(folder) == before


def spoil_cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_byte(path):
    data = bytearray(path.read_bytes())
    data[-50] ^= 4
    path.write_bytes(data)


def spoil_text(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b'\\"waited\\": ', b'\\"waited\\":9', 1))


def spoil_foreign(path):
    fl.save(path, fl.Linear(2, 3))


def spoil_other_model(path):
    folder = path.parent / "other"
    run(folder, epochs=1, hidden=5)
    shutil.copy(folder / names(folder)[-1], path)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "spoil",
    [spoil_cut, spoil_empty, spoil_byte, spoil_text, spoil_foreign, spoil_other_model],
)
def test_the_one_before_is_used(spoil, folder, whole):
    newest = names(folder)[-1]
    data = (folder / newest).read_bytes()
    spoil(folder / newest)
    assert (folder / newest).read_bytes() != data
    watch = Watch()
    with pytest.warns(UserWarning, match=f"{newest} is not used: .*"):
        assert run(folder, epochs=EPOCHS, callbacks=watch) == whole
    assert len(watch.losses) == 15  # from step 10


def test_no_flipped_byte_passes(folder):
    path = folder / names(folder)[-1]
    data = path.read_bytes()
    arrays, numbers = checkpoints._read(path)
    rng = np.random.default_rng(0)
    for place in [*range(20), *rng.integers(20, len(data), 150)]:
        flipped = bytearray(data)
        flipped[place] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            again, same = checkpoints._read(path)
        except (ValueError, KeyError):
            continue
        assert same == numbers  # the byte was a blank of the header
        assert all((again[name] == arrays[name]).all() for name in arrays)


def test_a_folder_of_torn_files_begins_anew(folder, whole):
    for name in names(folder):
        spoil_cut(folder / name)
    with pytest.warns(UserWarning, match="is not used"):
        assert run(folder, epochs=EPOCHS) == whole


def test_what_a_dead_process_left_is_removed_and_other_files_stay(folder):
    left = ".step-000000000015.safetensors.0123456789abcdef.tmp"
    for name in (left, "notes.txt", "step-1.safetensors"):
        (folder / name).write_bytes(b"torn")
    run(folder, epochs=EPOCHS)
    assert left not in names(folder)
    assert {"notes.txt", "step-1.safetensors"} < set(names(folder))


# Disks.


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of a process")
def test_a_file_that_cannot_be_written_is_named_and_the_others_stay(folder, whole):
    import resource

    before = {name: (folder / name).read_bytes() for name in names(folder)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"checkpoint: .*; the checkpoints before .*step-"):
            run(folder, epochs=EPOCHS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before
    assert run(folder, epochs=EPOCHS) == whole


def test_a_folder_that_cannot_be_made_is_named_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    watch = Watch()
    with pytest.raises(OSError, match="checkpoint: "):
        run(tmp_path / "file" / "folder", callbacks=watch)
    assert watch.losses == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_named_before_training(tmp_path):
    tmp_path.chmod(0o500)
    watch = Watch()
    with pytest.raises(PermissionError, match="checkpoint: "):
        run(tmp_path, callbacks=watch)
    assert watch.losses == []


def test_a_whole_folder_gives_no_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(folder, epochs=EPOCHS)


def test_a_checkpoint_that_somebody_removed_is_not_missed(whole, tmp_path):
    def remove(_):
        for path in tmp_path.glob("*.safetensors"):
            path.unlink()

    watch = Watch(step=7, do=remove)
    assert run(tmp_path, 1, epochs=EPOCHS, callbacks=[watch]) == whole
    assert watch.losses[7:]


def test_fewer_epochs_than_begun_are_refused(tmp_path):
    """A checkpoint within the third epoch is beyond a fit of two."""

    def fit(epochs, *callbacks):
        model = fl.Sequential(fl.LSTM(3, 2, dtype=np.float64, rng=0))
        trainer = fl.Trainer(model, "mse", fl.optim.SGD(0.1))
        x = np.ones((6, 4, 3))
        return trainer.fit(
            x,
            x[..., :2],
            epochs=epochs,
            batch_size=2,
            checkpoint=tmp_path,
            checkpoint_every=1,
            callbacks=list(callbacks),
            progress=False,
        )

    with pytest.raises(Death):
        fit(5, dying(8))  # 3 steps an epoch
    with pytest.raises(ValueError, match="epochs: expected at least the 2"):
        fit(2)
