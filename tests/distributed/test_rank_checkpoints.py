"""Checkpoints of some ranks, from which others go on."""

import numpy as np
import pytest
import rank_runs
from rank_runs import distance, fit
from runs import Watch, equal
from team import on_ranks, returned

import fastlstm as fl


class DeathError(Exception):
    pass


def die(run):
    raise DeathError


def start(size, function):
    """On a number of ranks, or without a communicator."""
    if size:
        return on_ranks(size, function)
    try:
        return [function(None)]
    except DeathError as error:
        return [error]


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 0), (0, 2), (4, 1), (1, 4)])
@pytest.mark.parametrize("step", [4, 11])
def test_other_ranks_go_on(before, after, step, tmp_path):
    """From the end of an epoch, and from within one."""
    options = {"checkpoint": tmp_path, "checkpoint_every": 2}
    died = start(before, lambda comm: fit(comm, callbacks=Watch(step=step, do=die), **options))
    assert isinstance(died[0], DeathError)
    watch = Watch()
    results = returned(start(after, lambda comm: fit(comm, callbacks=watch, **options)))
    one, history = fit()
    assert len(watch.losses) == one.step - (step - 1) // 2 * 2
    for other, own in results:
        assert distance(one.model, other.model) < 1e-11
        assert other.optimizer.steps == one.step
        np.testing.assert_allclose(own["loss"], history["loss"], rtol=1e-11)
        np.testing.assert_allclose(own["error"], history["error"], rtol=1e-11)
        np.testing.assert_allclose(own["val_loss"], history["val_loss"], rtol=1e-11)


def test_as_many_ranks_go_on_to_the_same_bits(tmp_path):
    options = {"deterministic": True, "dtype": np.float32}
    whole = returned(on_ranks(3, lambda comm: fit(comm, **options)))
    options |= {"checkpoint": tmp_path, "checkpoint_every": 3}
    on_ranks(3, lambda comm: fit(comm, callbacks=Watch(step=7, do=die), **options))
    again = returned(on_ranks(3, lambda comm: fit(comm, **options)))
    assert equal(whole[0][0].model, again[2][0].model)
    assert whole[0][1].to_json() == again[1][1].to_json()


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 0), (0, 4)])
def test_a_carried_state_is_divided_anew(before, after, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((93, 3))
    streams = fl.training.Streams(x, x.cumsum(axis=0), rows=5, steps=4)

    def run(comm=None, **options):
        one = rank_runs.trainer(comm)
        one.fit(streams, epochs=2, progress=False, **options)
        return one.model

    options = {"checkpoint": tmp_path, "checkpoint_every": 1}
    died = start(before, lambda comm: run(comm, callbacks=Watch(step=3, do=die), **options))
    assert isinstance(died[0], DeathError)
    model = run()
    for other in returned(start(after, lambda comm: run(comm, **options))):
        assert distance(model, other) < 1e-11


def test_checkpoints_of_another_run_are_refused_on_all_ranks(tmp_path):
    fit(checkpoint=tmp_path)
    results = on_ranks(2, lambda comm: fit(comm, checkpoint=tmp_path, batch_size=5))
    assert isinstance(results[0], ValueError)
    assert "is of another run: batch_size was 7, is 5" in str(results[0])
    assert "is of another run" in str(results[1])


def test_the_best_epoch_is_that_of_before(tmp_path):
    options = {"rows": 12, "early_stopping": fl.EarlyStopping(2, min_delta=0.05)}
    one, history = fit(epochs=30, **options)
    options |= {"checkpoint": tmp_path}
    last = history.epochs - 1
    watch = Watch(epoch=last, do=die)
    on_ranks(2, lambda comm: fit(comm, epochs=30, callbacks=watch, **options))
    for other, own in returned(on_ranks(3, lambda comm: fit(comm, epochs=30, **options))):
        assert own.best_epoch == history.best_epoch < last
        assert distance(one.model, other.model) < 1e-11


class Count:
    """Counts steps, on rank 0 or on all."""

    def __init__(self, on_every_rank):
        self.on_every_rank = on_every_rank

    def on_fit_begin(self, run):
        self.steps = np.zeros(1)

    def on_step_end(self, run):
        self.steps += 1 + self.on_every_rank

    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, state):
        self.steps = state["steps"]


@pytest.mark.parametrize(("before", "after"), [(2, 3), (0, 2), (3, 0)])
def test_callbacks_of_all_ranks_go_on(before, after, tmp_path):
    def run(comm, *more):
        counts = Count(False), Count(True)
        options = {"checkpoint": tmp_path, "checkpoint_every": 2}
        one, _ = fit(comm, callbacks=[*more, *counts], **options)
        return one.step, *(getattr(count, "steps", None) for count in counts)

    start(before, lambda comm: run(comm, Watch(step=7, do=die)))
    for rank, (steps, first, second) in enumerate(returned(start(after, run))):
        assert second == 2 * steps
        assert first is None if rank else first == steps
