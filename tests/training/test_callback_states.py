"""What callbacks remember: a run that was interrupted ends as one that never was."""

import json
import os
import signal

import numpy as np
import pytest
from runs import equal

import fastlstm as fl
from fastlstm.training import checkpoints
from fastlstm.training.callbacks import pack, unpack

NOISE = 4.0
EPOCHS, PATIENCE = 12, 3  # epochs at most, of 3 steps each


class Death(BaseException):
    pass


class Plateau:
    """Halve the learning rate after `patience` epochs without improvement."""

    def __init__(self, patience=2):
        self.patience = patience

    def on_fit_begin(self, run):
        self.best, self.waited, self.cuts = None, 0, ()

    def on_epoch_end(self, run):
        value = np.float32(run.logs["val_loss"])
        improved = self.best is None or value < self.best - np.float32(0.02)
        self.best = value if improved else self.best
        self.waited = 0 if improved else self.waited + 1
        if self.waited == self.patience:
            self.waited, self.cuts = 0, (*self.cuts, run.epoch)
            run.optimizer.lr *= 0.5

    def state_dict(self):
        return {"best": self.best, "waited": self.waited, "cuts": self.cuts}

    def load_state_dict(self, state):
        assert state.keys() == {"best", "waited", "cuts"}
        self.best, self.waited, self.cuts = state["best"], state["waited"], state["cuts"]


class Average:
    """A running mean of the weights, which the model has at the end."""

    def __init__(self, share):
        self.share, self.means = share, {}

    def on_fit_begin(self, run):
        self.means = {name: p.copy() for name, p in run.model.parameters().items()}

    def on_step_end(self, run):
        for name, p in run.model.parameters().items():
            self.means[name] += self.share * (p - self.means[name])

    def state_dict(self):
        return {"means": self.means}

    def load_state_dict(self, state):
        self.means = state["means"]


class Interrupt:
    """Ends a run by a death or by Ctrl-C, when a method is called for the n-th time."""

    def __init__(self, kind, method, n):
        self.kind, self.left = kind, n
        setattr(self, method, self._count)

    def _count(self, run):
        self.left -= 1
        if self.left:
            return
        if self.kind == "death":
            raise Death
        os.kill(os.getpid(), signal.SIGINT)


def fit(folder, every="epoch", *more, callbacks=None, epochs=EPOCHS, comm=None, **options):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((16, 6, 3))
    y = x.cumsum(axis=1)[..., :2] + NOISE * rng.standard_normal((16, 6, 2))
    model = fl.Sequential(fl.LSTM(3, 4, rng=0), fl.Dropout(0.3), fl.Linear(4, 2, rng=0))
    trainer = fl.Trainer(model, "mse", fl.optim.Adam(0.2), comm=comm, **options)
    if callbacks is None:
        callbacks = [Plateau(), Average(0.5), Average(0.125)]
    history = trainer.fit(
        x,
        y,
        epochs=epochs,
        batch_size=4,
        validation=0.25,
        early_stopping=fl.EarlyStopping(PATIENCE),
        checkpoint=folder,
        checkpoint_every=every,
        callbacks=[*callbacks, *more],
        progress=False,
    )
    return trainer, history, callbacks


def same(one, other):
    """Whether two runs have the same bits in all that they leave."""
    (a, history, known), (b, other_history, other_known) = one, other
    optimizers = a.optimizer.state_dict(), b.optimizer.state_dict()
    return (
        history.to_json() == other_history.to_json()
        and history.best_epoch == other_history.best_epoch
        and (a.epoch, a.step) == (b.epoch, b.step)
        and equal(a.model, b.model)
        and all(np.array_equal(optimizers[0][name], optimizers[1][name]) for name in optimizers[0])
        and known[0].state_dict() == other_known[0].state_dict()
        and all(equal(known[k].means, other_known[k].means) for k in (1, 2))
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    one = fit(tmp_path_factory.mktemp("whole"))
    trainer, history, (plateau, *_) = one
    assert history.stopped_by == "early stopping"
    assert 0 < history.best_epoch < history.epochs - PATIENCE < EPOCHS
    assert plateau.cuts
    assert plateau.waited
    assert trainer.optimizer.lr == 0.2 * 0.5 ** len(plateau.cuts)
    assert isinstance(plateau.best, np.float32)
    return one


@pytest.mark.parametrize("kind", ["death", "ctrl-c"])
@pytest.mark.parametrize("every", ["epoch", 2])
def test_interrupted_at_every_epoch(kind, every, whole, tmp_path):
    epochs = whole[1].epochs
    for method, last in (("on_epoch_end", epochs), ("on_step_end", 3 * epochs)):
        step = 1 if method == "on_epoch_end" else 4  # each time within another part of an epoch
        for n in range(1, last, step):
            folder = tmp_path / f"{method}{n}"
            if kind == "death":
                with pytest.raises(Death):
                    fit(folder, every, Interrupt(kind, method, n))
            else:
                assert fit(folder, every, Interrupt(kind, method, n))[1].stopped_by == "interrupt"
            assert same(fit(folder, every), whole)


def test_interrupted_again_and_again(whole, tmp_path):
    for n in (1, 2, 4, 3, 5, 4):
        with pytest.raises(Death):
            fit(tmp_path, 1, Interrupt("death", "on_step_end", n))
    assert same(fit(tmp_path, 1), whole)
    assert same(fit(tmp_path, 1), whole)  # a finished run returns at once


def test_the_beginning_has_no_state(tmp_path):
    """What `on_fit_begin` does in a run that died before its first checkpoint is done again."""
    with pytest.raises(Death):
        fit(tmp_path, "epoch", Interrupt("death", "on_step_end", 2))
    [path] = tmp_path.iterdir()
    assert checkpoints._read(path)[1]["callbacks"] is None


def without_states(path):
    """Rewrite a checkpoint as it was before callbacks had states."""
    arrays, numbers = checkpoints._read(path)
    del numbers["callbacks"]
    arrays = {name: array for name, array in arrays.items() if not name.startswith("callbacks.")}
    text = json.dumps(numbers)
    digest = checkpoints._digest(arrays, text)
    checkpoints.write_safetensors(path, arrays, {checkpoints.KEY: text, checkpoints.DIGEST: digest})


def test_older_checkpoints_are_read(tmp_path):
    for folder in ("plain", "told"):
        fit(tmp_path / folder, callbacks=[], epochs=3)
        for path in (tmp_path / folder).iterdir():
            without_states(path)
    plain = fit(tmp_path / "plain", callbacks=[])
    assert plain[1].to_json() == fit(tmp_path / "whole", callbacks=[])[1].to_json()
    with pytest.warns(UserWarning, match=r"it has no state of Plateau\[0\] of the callbacks"):
        trainer, _, _ = fit(tmp_path / "told", callbacks=[Plateau(9)])
    assert equal(trainer.model, plain[0].model)


def test_states_without_a_partner_are_told(tmp_path):
    fit(tmp_path, callbacks=[Average(0.5), Plateau()], epochs=2)
    with pytest.warns(UserWarning, match=r"no state of Average\[1\]") as told:
        fit(tmp_path, callbacks=[Plateau(), Average(0.5), Average(0.125)], epochs=3)
    assert len(told) == 1
    with pytest.warns(UserWarning, match=r"Average\[1\] is not among the callbacks"):
        fit(tmp_path, callbacks=[Average(0.5), Plateau()], epochs=4)


VALUES = [
    {"a": None, "b": [True, 3, -0.0, float("inf"), ()], "c": ("text", [{"": {}}])},
    [np.float32(0.1), np.float16(0.1), np.int8(-3), np.bool_(True), np.datetime64("2026-01-02")],
    {"f2": np.arange(6, dtype=np.float16).reshape(2, 3).T, "c": np.array(1j), "u": np.array(["é"])},
    (np.zeros((0, 3)), np.arange(3, dtype=">i4"), np.array([np.nan, -np.inf])),
]


def check_equal(value, other):
    assert type(value) is type(other)
    if isinstance(value, dict):
        assert list(value) == list(other)
        value, other = list(value.values()), list(other.values())
    if isinstance(value, (list, tuple)):
        for part, its in zip(value, other, strict=True):
            check_equal(part, its)
    elif isinstance(value, (np.ndarray, np.generic)):
        assert (value.dtype, value.shape) == (other.dtype, other.shape)
        assert value.tobytes() == other.tobytes()
    else:
        assert repr(value) == repr(other)


@pytest.mark.parametrize("value", VALUES)
def test_values_come_back_as_they_were(value):
    arrays = []
    form = json.loads(json.dumps(pack(value, "state", arrays)))
    again = unpack(form, {str(k): array for k, array in enumerate(arrays)})
    check_equal(value, again)
    for array in again if isinstance(again, tuple) else ():
        assert array.flags.writeable


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": {1, 2}}, r"callbacks: state of Note\[0\]\['a'\]: expected numbers, .*, got set"),
        ({"a": [0, {3: 1}]}, r"\['a'\]\[1\]: expected text as names, got 3"),
        ({"a": np.array([None])}, r"\['a'\]: expected .* got an array of object"),
        ({"a": np.zeros(2, "f4,i2")}, "got an array of "),
        ({"a": np.ma.zeros(2)}, "got MaskedArray"),
        ({"a": fl.Linear(2, 3)}, "got Linear"),
    ],
)
def test_values_that_would_not_come_back_are_refused(value, message, tmp_path):
    class Note:
        def on_epoch_end(self, run):
            pass

        def state_dict(self):
            return value

        def load_state_dict(self, state):
            raise AssertionError

    Note.__qualname__ = "Note"
    with pytest.raises(TypeError, match=message):
        fit(tmp_path, callbacks=[Note()])


@pytest.mark.parametrize("name", ["state_dict", "load_state_dict"])
def test_half_a_state_is_refused(name, tmp_path):
    callback = Interrupt("death", "on_step_end", 1)
    setattr(callback, name, dict)
    with pytest.raises(TypeError, match=f"callbacks: expected both of .* with {name}"):
        fit(tmp_path, callbacks=[callback])
