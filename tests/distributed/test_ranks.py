"""Ranks that train together, as threads: what one process computes, up to rounding."""

import csv
import functools
import socket

import numpy as np
import pytest
import rank_runs
from rank_runs import data, distance, error, fit
from runs import Watch, equal
from team import on_ranks, returned

import fastlstm as fl
from fastlstm.distributed import RankError, ranks
from fastlstm.distributed.flat import Flat

NEAR = {np.float32: 1e-5, np.float64: 1e-11}


@functools.cache
def of_one_process(dtype=np.float64, **options):
    one, history = fit(None, dtype, **options)
    return one.model.state_dict(), history, one.step


def same(results, dtype=np.float64, **options):
    """Whether all ranks have what one process has."""
    weights, history, step = of_one_process(dtype, **options)
    for one, own in returned(results):
        assert distance(weights, one.model) < NEAR[dtype]
        assert equal(one.model, results[0][0].model)
        assert (one.step, own.best_epoch, own.stopped_by) == (
            step,
            history.best_epoch,
            history.stopped_by,
        )
        for name in history:
            np.testing.assert_allclose(own[name], history[name], rtol=NEAR[dtype])
            np.testing.assert_array_equal(own[name], results[0][1][name])
    return True


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_ranks_train_as_one_process(size, deterministic, dtype):
    results = on_ranks(size, lambda comm: fit(comm, dtype, deterministic=deterministic))
    assert same(results, dtype)


@pytest.mark.parametrize(("batch_size", "rows", "size"), [(1, 9, 4), (7, 9, 2), (3, 8, 4)])
def test_shards_may_be_uneven_and_empty(batch_size, rows, size):
    options = {"batch_size": batch_size, "rows": rows}
    assert same(on_ranks(size, lambda comm: fit(comm, **options)), **options)


def test_one_rank_has_the_bits_of_one_process():
    ((one, history),) = returned(on_ranks(1, fit))
    weights, wanted, _ = of_one_process()
    assert equal(one.model, weights)
    assert history.to_json() == wanted.to_json()


def test_a_sum_in_the_order_of_ranks_has_the_same_bits_on_every_run(monkeypatch):
    """Whatever the communicator adds, since it adds nothing; in pieces of any size."""
    monkeypatch.setattr(ranks, "CHUNK", 77)

    def run(comm):
        comm.Allreduce = pytest.fail
        return fit(comm, np.float32, deterministic=True)

    first, second = (returned(on_ranks(3, run)) for _ in range(2))
    assert equal(first[0][0].model, second[2][0].model)
    assert first[0][1].to_json() == second[2][1].to_json()


def test_numbers_beyond_the_width_of_an_exchange_follow_in_others(monkeypatch):
    monkeypatch.setattr(ranks, "WIDTH", 4)
    assert same(on_ranks(2, fit))


def test_gradients_of_two_dtypes():
    parameters = {"a": np.ones((2, 3), np.float32), "b": np.ones(2), "c": np.ones(1, np.float32)}
    buffer = Flat(parameters)
    buffer.put(fl.Gradients(params={k: 3 * p for k, p in parameters.items()}), 5)
    assert sorted(array.size for array in buffer.arrays) == [2, 7]
    found = buffer.take(2).params
    for name, p in parameters.items():
        assert (found[name].dtype, found[name].shape) == (p.dtype, p.shape)
        np.testing.assert_array_equal(found[name], 7.5)
    buffer.put(None, 0)
    assert not any(array.any() for array in buffer.arrays)
    with pytest.raises(ValueError, match=r"grads.params\['b'\]: expected shape \(2,\), got \(1,\)"):
        buffer.put(fl.Gradients(params=parameters | {"b": np.ones(1)}), 1)


def test_every_rank_begins_with_the_parameters_of_rank_0():
    x, y, _ = data()

    def run(comm):
        model = rank_runs.model(rng=comm.rank)
        trainer = fl.Trainer(model, "mse", fl.optim.SGD(0.1), comm=comm)
        first = model.state_dict()
        model.load_state_dict({name: p + comm.rank for name, p in first.items()})
        trainer.fit(x, y, epochs=1, progress=False)
        return first, model

    results = returned(on_ranks(2, run))
    assert equal(rank_runs.model(rng=0), results[1][0])
    assert equal(results[0][1], results[1][1])


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("rows", [2, 5])
def test_streams_keep_their_rows(size, rows):
    """Where there are more ranks than rows, too; the last parts are a step shorter."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((93, 3))
    streams = fl.training.Streams(x, x.cumsum(axis=0), rows=rows, steps=6, starts=x[:, 0] > 1)

    def run(comm=None):
        one = rank_runs.trainer(comm)
        history = one.fit(streams, epochs=2, validation=0.3, progress=False)
        return one.model, history, one.evaluate(streams)

    model, history, scores = run()
    for own, record, found in returned(on_ranks(size, run)):
        assert distance(model, own) < 1e-11
        np.testing.assert_allclose(record["val_loss"], history["val_loss"], rtol=1e-11)
        assert found["loss"] == pytest.approx(scores["loss"], rel=1e-11)


@pytest.mark.parametrize("form", ["list", "function"])
def test_batches_of_a_user_are_divided_too(form):
    """Also such as carry a state, or whose weights are those of steps."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((4, 5, 8, 3)), rng.standard_normal((4, 5, 8, 3))
    mask, resets = rng.random((2, 5, 8)) > 0.3
    lengths, weight = np.array([8, 2, 5, 0, 7]), rng.uniform(0.5, 2, (5, 8))
    batches = [
        (x[0], y[0]),
        fl.training.Batch(x[1], y[1], lengths, mask, weight, resets, carries=True),
        fl.training.Batch(x[2], y[2], sample_weight=weight[:1], carries=True),
        fl.training.Batch(x[3][:1], y[3][:1], sample_weight=weight[:1, :1]),
    ]

    def run(comm=None):
        one = rank_runs.trainer(comm)
        one.fit(batches if form == "list" else lambda epoch: batches, epochs=2, progress=False)
        return one.model

    one = run()
    assert max(distance(one, other) for other in returned(on_ranks(3, run))) < 1e-11


def classes(comm=None, loss="cross_entropy", **options):
    """A fit on labels of steps, which are the same at all steps of a sequence."""
    x = data(20)[0]
    y = [np.full(len(one), k % 3) for k, one in enumerate(x)]
    one = rank_runs.trainer(comm, loss=loss)
    history = one.fit(x, y, epochs=2, batch_size=6, progress=False, metrics="accuracy", **options)
    return one, history


def own_loss(pred, target, mask=None):
    """A user's: cross entropy as a mean, without parts."""
    return fl.losses.cross_entropy(pred, target, mask)


@pytest.mark.parametrize(
    "loss",
    [own_loss, functools.partial(fl.losses.cross_entropy, class_weight=[1.0, 0.0, 3.0])],
    ids=["own", "weighted"],
)
def test_means_are_weighted_by_what_counts(loss):
    """A rank may have nothing that counts: with these weights, rows of class 1 alone."""
    one, history = classes(loss=loss)
    for other, own in returned(on_ranks(4, lambda comm: classes(comm, loss))):
        assert distance(one.model, other.model) < 1e-11
        np.testing.assert_allclose(own["loss"], history["loss"], rtol=1e-11)
        np.testing.assert_allclose(own["accuracy"], history["accuracy"], rtol=1e-14)


@pytest.mark.parametrize("batch_size", [1, 8])
def test_evaluate_divides_rows_and_predict_does_not(batch_size):
    x, y, weight = data()
    one, _ = fit()
    wanted = one.evaluate(x, y, sample_weight=weight, batch_size=batch_size)

    def run(comm):
        own = rank_runs.trainer(comm)
        own.model.load_state_dict(one.model.state_dict())
        calls = comm.calls
        pred = own.predict(x)
        assert comm.calls == calls
        return own.evaluate(x, y, sample_weight=weight, batch_size=batch_size, metrics=error), pred

    for found, pred in returned(on_ranks(3, run)):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-12)
        assert found["error"] == pytest.approx(wanted["error"], rel=1e-12)
        for own, other in zip(pred, one.predict(x), strict=True):
            np.testing.assert_array_equal(own, other)


# What ranks decide together.


def test_early_stopping_is_that_of_one_process():
    options = {"epochs": 30, "early_stopping": fl.EarlyStopping(1, min_delta=0.05), "rows": 12}
    assert of_one_process(**options)[1].stopped_by == "early stopping"
    assert same(on_ranks(2, lambda comm: fit(comm, **options)), **options)


@pytest.mark.parametrize("asks", [{"step": 1}, {"step": 7}, {"step": 8}, {"epoch": 1}])
def test_all_stop_when_rank_0_is_asked_to(asks):
    """At the same step as one process: at the first, within an epoch, after one."""
    one, history = fit(callbacks=Watch(**asks))
    results = returned(on_ranks(3, lambda comm: fit(comm, callbacks=Watch(**asks))))
    for other, own in results:
        assert distance(one.model, other.model) < 1e-11
        assert (own.stopped_by, other.step, other.epoch) == ("callback", one.step, one.epoch)
        np.testing.assert_allclose(own["val_loss"], history["val_loss"], rtol=1e-11)
    assert history.stopped_by == "callback"


def test_a_wish_before_the_first_step_ends_the_fit_after_it():
    class Impatient:
        def on_fit_begin(self, run):
            return True

    one, _ = fit(callbacks=Impatient())
    for other, own in returned(on_ranks(2, lambda comm: fit(comm, callbacks=Impatient()))):
        assert distance(one.model, other.model) < 1e-11
        assert (other.step, own.stopped_by) == (1, "callback")


def test_callbacks_are_those_of_rank_0(tmp_path, capsys):
    def run(comm):
        watch, everywhere = Watch(), Watch()
        everywhere.on_every_rank = True
        log = fl.CSVLogger(tmp_path / f"{comm.rank}.csv")
        one, history = fit(comm, callbacks=[watch, everywhere, log])
        x, y, _ = data()
        one.fit(x, y, epochs=1)
        return watch.begun, watch.ended, len(everywhere.losses), everywhere.losses[-1], history

    results = returned(on_ranks(3, run))
    assert [result[:2] for result in results] == [(1, 1), (0, 0), (0, 0)]
    assert len({result[2:4] for result in results}) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["0.csv"]
    with open(tmp_path / "0.csv") as file:
        loss = [float(row["loss"]) for row in csv.DictReader(file)]
    np.testing.assert_array_equal(loss, results[2][4]["loss"])
    assert capsys.readouterr().out.count("epoch") == 1


def test_a_learning_rate_that_a_callback_sets_is_that_of_all():
    def slow(run):
        run.optimizer.lr = 0.003

    def run(comm=None):
        x, y, _ = data()
        one = rank_runs.trainer(comm, schedule=None)
        one.fit(x, y, epochs=2, progress=False, callbacks=Watch(epoch=0, do=slow))
        return one

    one = run()
    for other in returned(on_ranks(2, run)):
        assert distance(one.model, other.model) < 1e-11
        assert other.optimizer.lr == 0.003


def test_a_model_that_a_callback_changes_on_one_rank_is_found():
    def change(run):
        run.model.load_state_dict({k: p / 2 for k, p in run.model.state_dict().items()})

    results = on_ranks(2, lambda comm: fit(comm, callbacks=Watch(step=2, do=change)))
    for result in results:
        assert isinstance(result, RankError)
        assert result.rank == 1
        assert f"rank 1 on {socket.gethostname()}: its parameters are no longer" in str(result)
    everywhere = Watch(step=2, do=change)
    everywhere.on_every_rank = True
    one, _ = fit(callbacks=everywhere)
    for other, _ in returned(on_ranks(2, lambda comm: fit(comm, callbacks=everywhere))):
        assert distance(one.model, other.model) < 1e-11


def diverging(comm=None, lr=1e200):
    x, y, _ = data()
    one = rank_runs.trainer(comm, schedule=fl.schedules.linear(lr, 4), clip_norm=None)
    try:
        one.fit(x, y, epochs=3, batch_size=7, progress=False)
    except fl.training.DivergedError as error:
        return one, error
    raise AssertionError("no error")


def test_all_ranks_diverge_at_the_same_step():
    one, wanted = diverging()
    for other, found in returned(on_ranks(3, diverging)):
        assert (found.epoch, found.step) == (wanted.epoch, wanted.step)
        assert distance(one.model, other.model) < 1e-11


def test_a_bad_row_of_one_rank_stops_all():
    x, y, _ = data()
    x[5][0] = np.nan

    def run(comm=None):
        rank_runs.trainer(comm).fit(x, y, epochs=1, progress=False)

    with pytest.raises(fl.training.DivergedError) as wanted:
        run()
    found = on_ranks(3, run)
    assert [str(one) for one in found] == [str(wanted.value)] * 3


def test_a_deterministic_sum_is_of_float64():
    """2²⁴ + 1 + 1 in float32 would be 2²⁴."""

    def add(comm):
        own, flat = ranks.Ranks(comm, True), Flat({"p": np.zeros(1, np.float32)})
        flat.put(fl.Gradients(params={"p": np.float32([1 if comm.rank else 2**24])}), 1.0)
        own.exchange(ranks.Place.TRAINER, ())
        own.add(flat)
        return flat.take(1.0).params["p"].tolist()

    assert returned(on_ranks(3, add)) == [[2.0**24 + 2]] * 3
