"""Long streams, between whose pieces the state is carried over."""

from itertools import pairwise

import numpy as np
import pytest
from runs import Watch, equal

import fastlstm as fl
from fastlstm.training import Streams

L, ROWS, STEPS = 47, 4, 5  # parts of 12, 12, 12 and 11 steps
QUIET = {"progress": False}


def model(batch_first=False):
    return fl.Sequential(
        fl.GRU(3, 4, batch_first=batch_first, dtype=np.float64, rng=0),
        fl.LSTM(4, 3, batch_first=batch_first, dtype=np.float64, rng=0),
        fl.Linear(3, 2, dtype=np.float64, rng=0),
    )


def trainer_of(lr=0.1, batch_first=False, **options):
    return fl.Trainer(model(batch_first), "mse", fl.optim.SGD(lr), **options)


@pytest.fixture
def data(rng):
    starts = np.zeros(L, bool)
    starts[[0, 9, 20, 21, 40]] = True
    return rng.standard_normal((L, 3)), rng.standard_normal((L, 2)), starts


def by_documents(x, starts, ends=(0, 12, 24, 36, L)):
    """The model's outputs, each document of each part computed alone."""
    own = model()
    cuts = sorted({*ends, *(np.nonzero(starts)[0] if starts is not None else ())})
    return np.concatenate([own(x[a:b, None])[0][:, 0] for a, b in pairwise(cuts)])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cut", [False, True])
def test_the_state_goes_on_until_a_start(data, cut, batch_first):
    x, y, starts = data
    streams = Streams(x, y, rows=ROWS, steps=STEPS, starts=starts if cut else None)
    wanted = by_documents(x, starts if cut else None)
    trainer = trainer_of(0.0, batch_first)
    np.testing.assert_allclose(trainer.predict(streams), wanted, rtol=1e-12)
    loss = np.mean((wanted - y) ** 2)
    assert trainer.evaluate(streams)["loss"] == pytest.approx(loss, rel=1e-12)
    history = trainer.fit(streams, epochs=2, **QUIET)
    np.testing.assert_allclose(history["loss"], loss, rtol=1e-12)
    assert trainer.step == 2 * len(streams) == 6


def test_gradients_flow_within_a_piece(data):
    """As in a loop by hand that gives the state on."""
    x, y, _ = data
    x, y = x[:40], y[:40]
    trainer = trainer_of()
    trainer.fit(Streams(x, y, rows=ROWS, steps=STEPS), epochs=2, **QUIET)
    own, optimizer = model(), fl.optim.SGD(0.1)
    x, y = (array.reshape(ROWS, 10, -1).swapaxes(0, 1) for array in (x, y))
    for _ in range(2):
        state = None
        for k in (0, 5):
            (pred, state), tape = own.forward(x[k : k + 5], state)
            _, gradient = fl.losses.mse(pred, y[k : k + 5])
            optimizer.step(own, own.backward(tape, gradient))
    for name, array in own.state_dict().items():
        np.testing.assert_allclose(trainer.model.state_dict()[name], array, rtol=1e-12)


def test_validation_by_fraction_is_the_tail(data):
    x, y, starts = data
    streams = Streams(x, y, rows=ROWS, steps=STEPS, starts=starts)
    trainer = trainer_of(0.0)
    history = trainer.fit(streams, epochs=1, validation=0.3, **QUIET)
    first = L - round(0.3 * L)
    for name, part in (("loss", slice(first)), ("val_loss", slice(first, L))):
        one = Streams(x[part], y[part], rows=ROWS, steps=STEPS, starts=starts[part])
        assert history[name][0] == pytest.approx(trainer.evaluate(one)["loss"])


def test_a_run_goes_on_in_the_middle_of_a_stream(data, tmp_path):
    x, y, starts = data
    streams = Streams(x, y, rows=ROWS, steps=2, starts=starts)
    whole, first, second = (trainer_of() for _ in range(3))
    options = {"epochs": 3, "checkpoint_every": 1, **QUIET}
    whole.fit(streams, checkpoint=tmp_path / "whole", **options)

    def die(run):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        first.fit(streams, checkpoint=tmp_path / "a", callbacks=Watch(9, do=die), **options)
    second.fit(streams, checkpoint=tmp_path / "a", **options)
    assert equal(whole.model, second.model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": L + 1}, "rows: expected at most one"),
        ({"steps": 0}, "steps: expected 1"),
        ({"starts": np.zeros(L - 1, bool)}, "starts: expected shape"),
        ({"y": np.zeros((L - 1, 2))}, "y: expected a target for each"),
    ],
)
def test_errors_name_the_argument(data, options, message):
    x, y, _ = data
    with pytest.raises(ValueError, match=message):
        Streams(**{"x": x, "y": y, "rows": ROWS, "steps": STEPS} | options)


def test_streams_have_their_own_targets(data):
    x, y, _ = data
    streams = Streams(x, y, rows=ROWS, steps=STEPS)
    with pytest.raises(ValueError, match="y: x has its own"):
        trainer_of().fit(streams, y, epochs=1)
    with pytest.raises(ValueError, match="mask: x has its own"):
        trainer_of().fit(streams, epochs=1, mask=np.ones(L, bool))


def test_a_split_may_leave_one_step_for_each_row():
    x = np.arange(10.0)
    first, tail = fl.training.Streams(x, x, rows=5, steps=2).split(0.5, 0)
    np.testing.assert_array_equal(first.x, x[:5])
    np.testing.assert_array_equal(tail.x, x[5:])
    with pytest.raises(ValueError, match="validation"):
        fl.training.Streams(x, x, rows=6, steps=2).split(0.5, 0)


def test_every_epoch_begins_without_a_state(rng):
    """Also where a user's first batch says that it goes on."""
    x = rng.standard_normal((2, 4, 3))
    batch = fl.training.Batch(x, np.zeros((2, 4, 5)), carries=True)
    model = fl.Sequential(fl.LSTM(3, 5, dtype=np.float64, rng=0))
    history = fl.Trainer(model, "mse", fl.optim.SGD(0.0)).fit([batch], epochs=2, **QUIET)
    assert history["loss"][0] == history["loss"][1]
