"""An error on one rank ends all, by name, and none waits for ever."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import rank_runs
from rank_runs import data, fit
from runs import Watch
from team import on_ranks

import fastlstm as fl
from fastlstm.distributed import RankError, ranks


@pytest.fixture(autouse=True)
def hosts(monkeypatch):
    """Rank 2 is on node2."""

    def name():
        return threading.current_thread().name.replace("rank ", "node")

    monkeypatch.setattr(ranks, "socket", SimpleNamespace(gethostname=name))


class FaultError(Exception):
    pass


def fail(*_):
    raise FaultError("of this rank")


def check(results, rank, kind=FaultError, text="FaultError: of this rank"):
    """Only one rank has the error itself."""
    for other, result in enumerate(results):
        if other == rank:
            assert type(result) is kind
        else:
            assert type(result) is RankError
            assert (result.rank, result.host) == (rank, f"node{rank}")
            assert str(result) == f"rank {rank} on node{rank}: {text}"


def failing(rank, step):
    """A loss that fails on one rank, at one of its calls."""

    def of(comm):
        calls = []

        def loss(pred, target, mask=None):
            calls.append(0)
            return (
                fail() if comm.rank == rank and len(calls) == step else honest(pred, target, mask)
            )

        honest = fl.losses.mse
        loss.__qualname__ = "loss"
        return loss

    return of


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("step", [1, 3, 9])
def test_an_error_of_the_loss(rank, step):
    """In the first step, within an epoch, and in validation."""
    of = failing(rank, step)
    x, y, _ = data(60)

    def run(comm):
        trainer = rank_runs.trainer(comm, loss=of(comm))
        trainer.fit(x, y, epochs=2, batch_size=8, validation=0.2, progress=False)

    check(on_ranks(3, run), rank)


class Odd(fl.Module):
    """Fails in a call of its backward."""

    def __init__(self, comm, rank):
        self.lstm = fl.LSTM(3, 3, batch_first=True, dtype=np.float64, rng=0)
        self.fails = comm.rank == rank

    def __call__(self, x):
        return self.lstm(x)[0]

    def forward(self, x):
        (y, _), tape = self.lstm.forward(x)
        return y, tape

    def backward(self, tape, dresult):
        grads = self.lstm.backward(tape, dresult)
        if self.fails == "name":
            return fl.Gradients(params=grads.params)
        return fail() if self.fails else self.collect(x=grads.x, lstm=grads)


def test_an_error_of_the_backward():
    x = np.ones((6, 4, 3))

    def run(comm, rank=1):
        trainer = fl.Trainer(Odd(comm, rank), "mse", fl.optim.SGD(), comm=comm)
        trainer.fit(x, x, epochs=1, batch_size=4, progress=False)

    check(on_ranks(2, run), 1)


def test_gradients_of_other_names():
    x = np.ones((6, 4, 3))

    def run(comm):
        model = Odd(comm, None)
        model.fails = "name" if comm.rank == 1 else False
        fl.Trainer(model, "mse", fl.optim.SGD(), comm=comm).fit(x, x, epochs=1, progress=False)

    first, second = on_ranks(2, run)
    assert isinstance(second, ValueError)
    assert "lstm.weight_ih_l0" in str(second)
    assert isinstance(first, RankError)


METHODS = "on_fit_begin", "on_step_end", "on_epoch_end", "on_fit_end"


@pytest.mark.parametrize("method", METHODS)
def test_an_error_of_a_callback(method):
    def run(comm):
        watch = Watch()
        setattr(watch, method, fail)
        fit(comm, callbacks=watch)

    check(on_ranks(3, run), 0)


def test_an_error_of_reading():
    x, y, _ = data(12)

    def run(comm):
        def batches(epoch):
            for k in range(4):
                if comm.rank == 1 and (epoch, k) == (1, 2):
                    fail()
                yield x[k][None], y[k][None]

        rank_runs.trainer(comm).fit(batches, epochs=3, progress=False)

    check(on_ranks(2, run), 1)


def test_an_error_of_writing(tmp_path):
    folder = tmp_path / "here"

    def run(comm):
        def spoil(_):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
            folder.write_text("")

        return fit(comm, checkpoint=folder, callbacks=Watch(epoch=1, do=spoil))

    first, second = on_ranks(2, run)
    assert isinstance(first, OSError)
    assert isinstance(second, RankError)
    assert "NotADirectoryError" in str(second) or "OSError" in str(second)


def test_an_argument_of_one_rank():
    def run(comm):
        fit(comm, batch_size=0 if comm.rank else 7)

    text = "ValueError: batch_size: expected 1 to 2147483647, got 0"
    check(on_ranks(2, run), 1, ValueError, text)

    def make(comm):
        rank_runs.trainer(comm, clip_norm=-1.0 if comm.rank else 1.0)

    first, second = on_ranks(2, make)
    assert isinstance(second, ValueError)
    assert str(first) == f"rank 1 on node1: ValueError: {second}"


def ranks_differ(run, text):
    for result in on_ranks(3, run):
        assert isinstance(result, ValueError)
        assert text in str(result)


def test_arguments_that_differ_are_found_at_the_start():
    x, y, weight = data()

    def trainer(comm, **options):
        return rank_runs.trainer(comm, **options)

    def fitted(change):
        def run(comm):
            given = {"x": x, "y": y, "epochs": 1, "progress": False}
            trainer(comm).fit(**given | (change if comm.rank == 2 else {}))

        return run

    ranks_differ(
        lambda comm: trainer(comm, dtype=np.float32 if comm.rank == 2 else np.float64),
        "model: expected the same on all ranks, got Sequential(",
    )
    ranks_differ(fitted({"epochs": 2}), "epochs: expected the same on all ranks, got 1 on rank 0")
    ranks_differ(fitted({"batch_size": 7}), "got 32 on rank 0 and 7 on rank 2")
    ranks_differ(fitted({"x": x[:-1], "y": y[:-1]}), "data: expected the same on all ranks")
    ranks_differ(fitted({"sample_weight": weight}), "data: expected the same on all ranks")
    ranks_differ(fitted({"x": [x[0] + 1, *x[1:]]}), "data: expected the same on all ranks")
    ranks_differ(fitted({"validation": (x, y)}), "validation data: expected the same")
    ranks_differ(fitted({"metrics": "accuracy"}), "metrics: expected the same")
    ranks_differ(
        lambda comm: trainer(comm, seed=comm.rank).fit(x, y, epochs=1),
        "seed: expected the same on all ranks, got 0 on rank 0 and 1 on rank 1",
    )
    ranks_differ(
        lambda comm: trainer(comm).evaluate(x, y, batch_size=2 + comm.rank),
        "batch_size: expected the same on all ranks, got 2 on rank 0 and 3 on rank 1",
    )


def test_ranks_that_read_other_batches():
    """In another order, as after a shuffle of each rank's own."""
    x, y, _ = data(12, longest=3)

    def fitted(comm):
        order = range(4) if comm.rank else range(3, -1, -1)
        batches = [(x[k][None], y[k][None]) for k in order]
        rank_runs.trainer(comm).fit(batches, epochs=1, progress=False)

    def evaluated(comm):
        batches = [(x[k + (comm.rank == 1)][None], y[k][None]) for k in range(3)]
        rank_runs.trainer(comm).evaluate(batches)

    for result in on_ranks(2, fitted):
        assert isinstance(result, RankError)
        assert str(result) == "rank 1 on node1: it read another batch than rank 0"
    for result in on_ranks(2, evaluated):
        assert isinstance(result, ValueError)
        assert "batches: expected the same on all ranks" in str(result)


def test_ranks_that_read_fewer_batches():
    x, y, _ = data(12)

    def run(comm):
        batches = [(x[k][None], y[k][None]) for k in range(4 - comm.rank)]
        rank_runs.trainer(comm).fit(batches, epochs=1, progress=False)

    for result in on_ranks(2, run):
        assert isinstance(result, RankError)
        assert "all ranks have to make the same calls and to read the same batches" in str(result)
        assert f" on node{result.rank}: is at " in str(result)


def test_a_call_of_one_rank_alone():
    """Rank 0 evaluates in a callback while the others train."""
    x, y, _ = data()

    def run(comm):
        fit(comm, callbacks=Watch(step=2, do=lambda run: run.trainer.evaluate(x, y)))

    texts = [str(result) for result in on_ranks(2, run)]
    end = "; all ranks have to make the same calls and to read the same batches"
    assert texts == [
        f"rank 1 on node1: is at 'step' while rank 0 is at 'evaluate'{end}",
        f"rank 0 on node0: is at 'evaluate' while rank 1 is at 'step'{end}",
    ]


def test_all_ranks_evaluate_within_a_fit():
    x, y, _ = data()
    scores = []
    watch = Watch(step=2, do=lambda run: scores.append(run.trainer.evaluate(x, y)["loss"]))
    watch.on_every_rank = True
    on_ranks(3, lambda comm: fit(comm, callbacks=watch))
    assert len(scores) == 3
    assert len(set(scores)) == 1


@pytest.mark.parametrize("comm", [0, "world", object()])
def test_what_is_no_communicator(comm):
    with pytest.raises(TypeError, match="comm: expected a communicator"):
        rank_runs.trainer(comm)


def test_a_rank_error_travels():
    import pickle

    error = pickle.loads(pickle.dumps(RankError(3, "ValueError: x: y", "node1")))
    assert (str(error), error.rank, error.host) == ("rank 3 on node1: ValueError: x: y", 3, "node1")


def test_a_long_text_is_cut():
    def run(comm):
        with ranks.Ranks(comm, False).together():
            if comm.rank:
                raise FaultError("é" * 2000)

    text = "FaultError: " + "é" * 2000
    found = str(on_ranks(2, run)[0])
    assert len(found.encode()) > 1900
    assert f"rank 1 on node1: {text}".startswith(found.rstrip("\ufffd"))


def test_a_text_with_a_zero_byte():
    def run(comm):
        with ranks.Ranks(comm, False).together():
            if comm.rank:
                raise FaultError("a\0b")

    check(on_ranks(2, run), 1, text="FaultError: a\0b")
