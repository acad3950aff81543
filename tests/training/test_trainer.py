"""The Trainer: what it reads, what it computes, and how it ends."""

import functools
import itertools
import os
import pickle
import signal

import numpy as np
import pytest
from compare import assert_same_bits
from models import Swap
from runs import Watch, equal, padded, ragged, tagger

import fastlstm as fl
from fastlstm.training import Batch, DivergedError

QUIET = {"progress": False}


def trainer_of(model=None, loss="mse", lr=0.1, **options):
    return fl.Trainer(tagger() if model is None else model, loss, fl.optim.SGD(lr), **options)


def errors_of(model, x, y):
    """The squared errors of every number, each sequence computed alone."""
    layout = model[0].batch_first
    preds = [model(one[None] if layout else one[:, None])[0] for one in x]
    return [(p[0] if layout else p[:, 0]) - t for p, t in zip(preds, y, strict=True)]


# What is computed.


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("form", ["list", "lengths", "mask"])
def test_the_loss_is_the_mean_over_all_steps(form, batch_first, rng):
    """Not a mean of the means of batches, and whatever padding holds."""
    x, y = ragged(rng)
    model = tagger(batch_first)
    wanted = np.mean(np.concatenate(errors_of(model, x, y)) ** 2)
    options = {}
    if form != "list":
        lengths = np.array([len(one) for one in x])
        options["lengths"] = lengths
        if form == "mask":
            options = {"mask": np.arange(max(lengths)) < lengths[:, None]}
        x, y = padded(x), padded(y)
    trainer = trainer_of(model, lr=0.0)
    found = trainer.evaluate(x, y, batch_size=4, **options)
    assert found["loss"] == pytest.approx(wanted, rel=1e-12)
    history = trainer.fit(x, y, epochs=2, batch_size=4, **options, **QUIET)
    np.testing.assert_allclose(history["loss"], wanted, rtol=1e-12)


def test_a_mask_of_0_and_1(rng):
    x, y = ragged(rng)
    evaluate, masks = trainer_of(tagger()).evaluate, [rng.integers(0, 2, len(one)) for one in x]
    found = evaluate(x, y, mask=[mask > 0 for mask in masks])
    assert evaluate(x, y, mask=masks) == found
    whole = np.nan_to_num(padded([mask[:, None] for mask in masks])[..., 0])
    batch = Batch(padded(x), padded(y), mask=whole.astype(np.float32))
    assert evaluate(padded(x), padded(y), mask=whole) == evaluate([batch])
    assert evaluate([batch])["loss"] == pytest.approx(found["loss"], rel=1e-12)
    lengths = [len(one) for one in x]
    with_lengths = evaluate(padded(x), padded(y), lengths=lengths, mask=whole)
    assert with_lengths["loss"] == pytest.approx(found["loss"], rel=1e-12)
    with pytest.raises(ValueError, match=r"mask\[\d\]: expected only 0 and 1, got 2"):
        evaluate(x, y, mask=[2 * mask for mask in masks])


def test_weights_are_of_sequences_or_of_steps(rng):
    x, y = ragged(rng)
    model = tagger()
    squares = [(one**2).mean(axis=1) for one in errors_of(model, x, y)]
    of_rows, of_steps = rng.random(len(x)), [rng.random(len(one)) for one in x]
    for weight in (of_rows, of_steps):
        weights = np.concatenate(
            [w * np.ones(len(s)) for w, s in zip(weight, squares, strict=True)]
        )
        wanted = np.average(np.concatenate(squares), weights=weights)
        found = trainer_of(model).evaluate(x, y, batch_size=4, sample_weight=weight)
        assert found["loss"] == pytest.approx(wanted, rel=1e-12)


def test_a_loss_of_ones_own_counts_as_those_of_the_library(rng):
    x, y = ragged(rng)

    def own(pred, target, mask=None):
        return fl.losses.mse(pred, target, mask)

    runs = [trainer_of(loss=loss) for loss in ("mse", fl.losses.mse, own)]
    losses = [run.fit(x, y, epochs=3, batch_size=4, **QUIET)["loss"] for run in runs]
    assert (losses[0] == losses[1]).all()
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-12)
    assert equal(runs[0].model, runs[1].model)
    assert equal(runs[0].model, runs[2].model)


def test_a_loss_with_options_is_divided_by_the_same_weights(rng):
    x = rng.standard_normal((7, 4, 3))
    labels, weight = rng.integers(0, 2, (7, 4)), [0.2, 3.0]
    loss = functools.partial(fl.losses.cross_entropy, class_weight=weight)
    logits = tagger(True)(x)[0]
    found = trainer_of(tagger(True), loss).evaluate(x, labels, batch_size=2)["loss"]
    assert found == pytest.approx(loss(logits, labels)[0], rel=1e-12)


def test_a_step_is_that_of_a_loop_by_hand(rng):
    """Same bits, with clipping and a schedule, in the order of the data's only batch."""
    x, y = rng.standard_normal((5, 6, 3)), rng.standard_normal((5, 6, 2))
    schedule = fl.schedules.linear(0.5, 3)
    trainer = trainer_of(schedule=schedule, clip_norm=0.1, seed=2)
    trainer.fit(x, y, epochs=3, **QUIET)
    model, optimizer = tagger(), fl.optim.SGD(1.0)
    for epoch in range(3):
        rows = next(iter(trainer_rows(5, epoch)))
        (pred, _), tape = model.forward(x[rows].swapaxes(0, 1))
        _, gradient = fl.losses.mse(pred, y[rows].swapaxes(0, 1))
        grads = model.backward(tape, gradient)
        fl.optim.clip_grad_norm(grads, 0.1)
        optimizer.lr = schedule(epoch)
        optimizer.step(model, grads)
    assert equal(model, trainer.model)


def trainer_rows(N, epoch):
    from fastlstm.training.data.batch import Order
    from fastlstm.training.data.sequences import Sequences

    return Sequences(np.zeros((N, 1))).rows(N, Order(2, epoch))


def test_one_target_a_sequence(rng):
    class LastStep(fl.Module):
        is_recurrent = True

        def __init__(self):
            self.lstm = fl.LSTM(3, 2, dtype=np.float64, rng=0)

        def __call__(self, x, **options):
            _, (h, c) = self.lstm(x, **options)
            return h[0], (h, c)

        def forward(self, x, lengths=None):
            (_, (h, c)), tape = self.lstm.forward(x, lengths=lengths)
            return (h[0], (h, c)), tape

        def backward(self, tape, dy):
            grads = self.lstm.backward(tape, None, (dy[None], np.zeros((1, *dy.shape))))
            return self.collect(lstm=grads)

    x, _ = ragged(rng)
    labels = rng.integers(0, 2, len(x))
    model = LastStep()
    trainer = trainer_of(model, "cross_entropy", lr=1.0)
    alone = np.stack([model(one[:, None])[0][0] for one in x])
    np.testing.assert_allclose(trainer.predict(x, batch_size=4), alone, rtol=1e-12)
    found = trainer.evaluate(x, labels, batch_size=4, metrics="accuracy")
    assert found["loss"] == pytest.approx(fl.losses.cross_entropy(alone, labels)[0], rel=1e-12)
    assert found["accuracy"] == pytest.approx((alone.argmax(1) == labels).mean())
    history = trainer.fit(x, labels, epochs=60, batch_size=4, **QUIET)
    assert history["loss"][-1] < 0.8 * history["loss"][0]


def test_metrics_are_means_over_the_steps_that_count(rng):
    x, y = ragged(rng)
    labels = [(one[:, 0] > 0).astype(int) for one in y]

    def error(pred, target):
        return np.abs(pred.argmax(-1) - target).mean()

    def wrong(pred, target):
        return pred.argmax(-1) != target

    trainer = trainer_of(loss="cross_entropy")
    preds, targets = np.concatenate(trainer.predict(x)), np.concatenate(labels)
    right = (preds.argmax(-1) == targets).mean()
    found = trainer.evaluate(x, labels, batch_size=4, metrics=("accuracy", error, wrong))
    assert found["accuracy"] == pytest.approx(right)
    assert found["error"] == found["wrong"] == pytest.approx(1 - right)
    history = trainer.fit(
        x, labels, epochs=1, metrics=["accuracy"], validation=(x, labels), **QUIET
    )
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "lr"} == set(history)


# What is read.


@pytest.mark.parametrize("recompute", [2, "sqrt"])
def test_a_trainer_recomputes_to_the_same_bits(rng, monkeypatch, recompute):
    seen, forward = [], fl.LSTM.forward

    def watched(self, *args, **options):
        seen.append(options.get("recompute"))
        return forward(self, *args, **options)

    monkeypatch.setattr(fl.LSTM, "forward", watched)
    x, y = ragged(rng)
    every, some = trainer_of(), trainer_of(recompute=recompute)
    for trainer in (every, some):
        trainer.fit(x, y, epochs=2, **QUIET)
    assert set(seen) == {None, recompute}
    for name, array in every.model.parameters().items():
        assert_same_bits(array, some.model.parameters()[name])
    with pytest.raises(ValueError, match="recompute: the model's forward takes none"):
        trainer_of(fl.Linear(3, 2), recompute=recompute)
    with pytest.raises(ValueError, match="recompute: expected"):
        trainer_of(recompute="all").fit(x, y, epochs=1, **QUIET)


def test_the_threads_of_a_trainer_go_to_its_model(rng, monkeypatch):
    seen = []
    for name in ("__call__", "forward", "backward"):
        method = getattr(fl.LSTM, name)

        def call(self, *args, name=name, method=method, **options):
            seen.append((name, options.get("threads")))
            return method(self, *args, **options)

        monkeypatch.setattr(fl.LSTM, name, call)
    x, y = ragged(rng)
    trainer_of(threads=2).fit(x, y, epochs=1, validation=0.2, **QUIET)
    assert set(seen) == {("__call__", 2), ("forward", 2), ("backward", 2)}
    pool = fl.Sequential(fl.Linear(3, 4), fl.Pool("mean"), fl.Linear(4, 2))
    trainer_of(pool, threads=2).evaluate(x, rng.standard_normal((len(x), 2)))  # knows no threads

    class Own(fl.Module):
        is_recurrent = True

        def forward(self, x, state=None):
            return (x, state), None

    with pytest.raises(ValueError, match="threads: the model's forward and backward take none"):
        trainer_of(Own(), threads=2)
    with pytest.raises(ValueError, match="threads: expected 1 to"):
        trainer_of(threads=0)


def test_every_sequence_is_read_once_an_epoch_in_an_order_of_its_own(rng):
    seen = []

    def loss(pred, target):
        seen[-1].append(target[:, 0, 0].tolist())
        return fl.losses.mse(pred, target)

    class Epochs:
        def on_epoch_end(self, run):
            seen.append([])

    x, y = rng.standard_normal((11, 4, 3)), np.arange(11.0)[:, None, None] * np.ones((11, 4, 2))
    for seed in (0, 0, 1):
        seen.append([])
        trainer_of(loss=loss, seed=seed).fit(
            x, y, epochs=2, batch_size=4, callbacks=[Epochs()], **QUIET
        )
        assert seen.pop() == []
    assert all([len(batch) for batch in epoch] == [4, 4, 3] for epoch in seen)
    orders = [list(itertools.chain(*epoch)) for epoch in seen]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert orders[:2] == orders[2:4]
    assert len({tuple(order) for order in orders}) == 4


def test_batches_have_rows_of_similar_length():
    from fastlstm.training.data.batch import Order
    from fastlstm.training.data.sequences import Sequences

    lengths = np.random.default_rng(0).integers(1, 100, 240)
    source = Sequences([np.zeros((n, 1)) for n in lengths])
    batches = source.rows(8, Order(0, 0))
    assert sorted(np.concatenate(batches)) == list(range(240))
    spread = np.mean([np.ptp(lengths[rows]) for rows in batches])
    assert spread < 10
    longest = [lengths[rows].max() for rows in batches]
    assert longest != sorted(longest)  # short batches do not all come first


def test_batches_of_ones_own(rng):
    x, y = rng.standard_normal((6, 4, 3)), rng.standard_normal((6, 4, 2))
    lengths = np.array([4, 2, 3])
    batches = [(x[:3], y[:3]), Batch(x[3:], y[3:], lengths=lengths)]
    counts = [4, 4, 4, *lengths]
    wanted = trainer_of().evaluate(x, y, lengths=counts)["loss"]
    trainer = trainer_of(lr=0.0)
    assert trainer.evaluate(batches)["loss"] == pytest.approx(wanted)
    assert trainer.fit(batches, epochs=2, **QUIET)["loss"] == pytest.approx(wanted)
    asked = []
    made = trainer.fit(lambda epoch: asked.append(epoch) or iter(batches), epochs=2, **QUIET)
    assert made["loss"] == pytest.approx(wanted)
    assert asked == [2, 3]
    with pytest.raises(ValueError, match="gives its batches again"):
        trainer_of().fit(iter(batches), epochs=2, **QUIET)


def test_predict_keeps_the_order_and_the_form(rng):
    x, _ = ragged(rng)
    model = tagger()
    alone = [model(one[:, None])[0][:, 0] for one in x]
    for one, pred in zip(alone, trainer_of(model).predict(x, batch_size=3), strict=True):
        np.testing.assert_array_equal(pred, one)
    lengths = [len(one) for one in x]
    pred = trainer_of(model).predict(padded(x), batch_size=3, lengths=lengths)
    np.testing.assert_array_equal(pred, padded(alone, 0.0))


def test_validation_by_fraction_is_drawn(rng):
    x, y = rng.standard_normal((20, 4, 3)), np.arange(20.0)[:, None, None] * np.ones((20, 4, 2))
    targets = {"train": set(), "validation": set()}

    def loss(pred, target):
        targets["validation" if trainer.step % 4 == 0 and trainer.step else "train"] |= set(
            target[:, 0, 0].tolist()
        )
        return fl.losses.mse(pred, target)

    trainer = trainer_of(loss=loss)
    trainer.fit(x, y, epochs=1, batch_size=4, validation=0.2, **QUIET)
    held_out = targets["validation"]
    assert len(held_out) == 4
    assert held_out != {16, 17, 18, 19}
    assert targets["train"] | held_out == set(range(20))
    assert not targets["train"] & held_out


def test_two_fits_of_an_epoch_are_a_fit_of_two(rng):
    x, y = ragged(rng)
    one, two = (trainer_of(tagger(dropout=0.3)) for _ in range(2))
    for _ in range(2):
        one.fit(x, y, epochs=1, batch_size=4, **QUIET)
    two.fit(x, y, epochs=2, batch_size=4, **QUIET)
    assert equal(one.model, two.model)


def test_the_seed_rules_over_the_layers_generators(rng):
    x, y = ragged(rng)
    weights = []
    for own, seed in ((1, 5), (2, 5), (1, 6)):
        model = tagger(dropout=0.3)
        model[1]._rng = np.random.default_rng(own)
        trainer_of(model, seed=seed).fit(x, y, epochs=1, batch_size=4, **QUIET)
        assert model[1]._rng.random() == np.random.default_rng(own).random()
        weights.append(model.state_dict())
    assert equal(weights[0], weights[1])
    assert not equal(weights[0], weights[2])
    masks = []
    for seed in (5, 6):  # one sequence has one order
        trainer = trainer_of(tagger(dropout=0.5), seed=seed)
        trainer.fit(x[4:5], y[4:5], epochs=1, **QUIET)
        masks.append(trainer.model.state_dict())
    assert not equal(*masks)


# How it ends.


def worse_and_worse(model, **options):
    """A fit whose second epoch is the best on the validation set, and that best model."""
    saved = {}

    class Note:
        def on_epoch_end(self, run):
            saved[run.epoch] = run.model.state_dict()
            ends = options.get("ends")
            return ends(run) if ends else None

    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((8, 4, 3)), np.ones((8, 4, 2))
    trainer = fl.Trainer(
        model, "mse", fl.optim.SGD(1e-3), schedule=lambda step: [0.1, 0.1, 3.0][min(step, 2)]
    )
    fit = options.get("fit", {})
    history = trainer.fit(
        x, y, validation=(x, y), callbacks=[Note()], **{"epochs": 6} | fit, **QUIET
    )
    return history, saved


@pytest.mark.parametrize(
    ("options", "stopped_by", "epochs"),
    [
        ({}, "epochs", 6),
        ({"fit": {"early_stopping": fl.EarlyStopping(2)}}, "early stopping", 4),
        ({"ends": lambda run: run.epoch == 3}, "callback", 4),
        (
            {"ends": lambda run: run.epoch == 3 and os.kill(os.getpid(), signal.SIGINT)},
            "interrupt",
            4,
        ),
    ],
    ids=["epochs", "early stopping", "callback", "interrupt"],
)
def test_the_best_weights_are_restored_whatever_ended_it(options, stopped_by, epochs):
    model = tagger()
    history, saved = worse_and_worse(model, **options)
    assert history.stopped_by == stopped_by
    assert len(history["val_loss"]) == epochs
    assert history.best_epoch == history["val_loss"].argmin() < epochs - 1
    assert equal(model, saved[history.best_epoch])
    model = tagger()
    options["fit"] = options.get("fit", {}) | {"restore_best": False}
    history, saved = worse_and_worse(model, **options)
    assert equal(model, saved[epochs - 1])


def test_early_stopping_counts_what_is_at_most_min_delta_better(rng):
    x, y = rng.standard_normal((8, 4, 3)), rng.standard_normal((8, 4, 2))
    stopping = fl.EarlyStopping(patience=3, min_delta=1e3)
    for _ in range(2):  # it remembers nothing
        history = trainer_of(lr=1e-3).fit(x, y, epochs=9, early_stopping=stopping, **QUIET)
        assert len(history["loss"]) == 4
        assert history.best_epoch == 3
        assert history.stopped_by == "early stopping"


def test_accuracy_is_better_if_it_is_higher(rng):
    x, y = rng.standard_normal((8, 4, 3)), rng.integers(0, 2, (8, 4))
    stopping = fl.EarlyStopping(5, monitor="val_accuracy")
    history = trainer_of(loss="cross_entropy", lr=1.0).fit(
        x, y, epochs=9, validation=(x, y), metrics="accuracy", early_stopping=stopping, **QUIET
    )
    assert history.best_epoch == history["val_accuracy"].argmax()


def test_ctrl_c_ends_after_the_current_step(rng):
    x, y = ragged(rng)
    watch = Watch(step=4, do=lambda run: os.kill(os.getpid(), signal.SIGINT))
    trainer = trainer_of()
    history = trainer.fit(x, y, epochs=9, batch_size=4, callbacks=[watch], **QUIET)
    assert (trainer.step, history.stopped_by, len(history["loss"])) == (4, "interrupt", 1)
    assert watch.ended == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert np.isfinite(trainer.evaluate(x, y)["loss"])
    again = Watch(step=5, do=lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
    history = trainer.fit(x, y, epochs=9, batch_size=4, callbacks=[again], **QUIET)
    assert (trainer.step, history.stopped_by) == (5, "interrupt")


def test_a_loss_that_is_not_finite_is_named_and_changes_nothing(rng):
    x, y = rng.standard_normal((12, 4, 3)), rng.standard_normal((12, 4, 2))
    bad = y.copy()
    bad[8] = np.inf
    batches = [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], bad[8:])]
    trainer, other = trainer_of(), trainer_of()
    with pytest.raises(DivergedError, match=r"inf in epoch 1, step 3") as caught:
        trainer.fit(batches, epochs=2, **QUIET)
    assert (caught.value.epoch, caught.value.step) == (1, 3)
    assert isinstance(caught.value, ValueError)
    other.fit(batches[:2], epochs=1, **QUIET)
    assert equal(trainer.model, other.model)


def test_weights_that_make_the_loss_infinite_are_taken_back(rng):
    x, y = rng.standard_normal((4, 4, 3)), rng.standard_normal((4, 4, 2))
    trainer = trainer_of(schedule=lambda step: 0.1 if step < 2 else 1e300)
    good = trainer_of()
    with pytest.raises(FloatingPointError, match="epoch 4, step 1"):
        trainer.fit(x, y, epochs=9, **QUIET)
    good.fit(x, y, epochs=2, **QUIET)
    assert equal(trainer.model, good.model)
    assert np.isfinite(trainer.evaluate(x, y)["loss"])


def test_gradients_that_are_not_finite_are_named(rng):
    def loss(pred, target):
        return 1.0, np.full(pred.shape, np.nan)

    trainer = trainer_of(loss=loss)
    with pytest.raises(
        DivergedError, match=r"grads.params\[.*\] in epoch 1, step 1|epoch 1, step 1"
    ):
        trainer.fit(rng.standard_normal((4, 4, 3)), np.zeros((4, 4, 2)), epochs=1, **QUIET)
    assert equal(trainer.model, tagger())


def test_a_batch_of_which_nothing_counts_makes_no_step(rng):
    x, y = rng.standard_normal((4, 4, 3)), rng.standard_normal((4, 4, 2))
    trainer = trainer_of()
    history = trainer.fit(x, y, epochs=1, batch_size=2, sample_weight=np.zeros(4), **QUIET)
    assert trainer.optimizer.steps == 0
    assert np.isnan(history["loss"]).all()


def test_sequences_without_steps_count_for_nothing(rng):
    x, y = ragged(rng, (0, 3, 0, 0, 5, 0, 2))
    trainer, without = trainer_of(), trainer_of()
    found = trainer.evaluate(x, y, batch_size=2)
    kept = [k for k, one in enumerate(x) if len(one)]
    wanted = without.evaluate([x[k] for k in kept], [y[k] for k in kept])
    assert found["loss"] == pytest.approx(wanted["loss"])
    assert [len(pred) for pred in trainer.predict(x, batch_size=2)] == [0, 3, 0, 0, 5, 0, 2]
    assert np.isfinite(trainer.fit(x, y, epochs=2, batch_size=2, **QUIET)["loss"]).all()


# Errors.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": np.zeros((4, 4, 3))}, "y: expected targets"),
        ({"y": np.zeros((3, 4, 2))}, "y: expected targets of 4 sequences"),
        ({"y": np.zeros((4, 4))}, "target: expected pred's shape"),
        ({"lengths": [4, 4, 4, 5]}, "lengths: expected 0 to 4"),
        ({"mask": np.ones((4, 3), bool)}, "mask: expected shape"),
        ({"sample_weight": np.ones(3)}, "sample_weight: expected shape"),
        ({"validation": 1.5}, "validation: expected a number"),
        ({"validation": 0.99}, "validation: expected fewer"),
        ({"validation": (np.zeros((4, 4, 3)), np.zeros((3, 2)))}, "validation: y: expected"),
        ({"validation": [np.zeros((4, 3))]}, "validation: y: expected targets, got None"),
        ({"validation": np.zeros((2, 4, 3))}, "validation: y: expected targets, got None"),
        (
            {"validation": (np.zeros((2, 4, 3)), np.zeros((1, 4, 2)))},
            "validation: y: expected targets of 2",
        ),
        ({"epochs": 0}, "epochs: expected 1"),
        ({"batch_size": 0}, "batch_size: expected 1"),
        ({"metrics": "acuracy"}, "metrics: expected"),
        ({"early_stopping": fl.EarlyStopping(monitor="val_loss")}, "early_stopping: expected"),
        ({"checkpoint_every": 0, "checkpoint": "nowhere"}, "checkpoint_every: expected"),
    ],
)
def test_errors_name_the_argument(options, message):
    if "x" not in options:
        options = {"y": np.zeros((4, 4, 2))} | options
    given = {"x": np.zeros((4, 4, 3)), "epochs": 1} | options
    trainer = trainer_of()
    with pytest.raises(ValueError, match=message):
        trainer.fit(**given, **QUIET)
    assert equal(trainer.model, tagger())


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((5, 3)), r"x: expected shape \(N, T, 3\), sequences first, got \(5, 3\)"),
        (np.zeros((4, 5, 2)), r"x: expected shape \(N, T, 3\).*got \(4, 5, 2\)"),
        ([np.zeros(3)] * 4, r"x\[0\]: expected shape \(T, 3\).*got \(3,\)"),
        ([np.zeros((6, 5))] * 4, r"x\[0\]: expected shape \(T, 3\).*got \(6, 5\)"),
    ],
)
def test_features_that_the_model_does_not_read(x, message, batch_first):
    """As of one sequence alone, which the rows of an array would be taken for."""
    trainer = trainer_of(tagger(batch_first))
    for call in (trainer.predict, lambda x: trainer.evaluate(x, np.zeros(len(x)))):
        with pytest.raises(ValueError, match=f"^{message}"):
            call(x)
    y = np.zeros((4, 4, 2))
    with pytest.raises(ValueError, match=f"^validation: {message}"):
        trainer.fit(np.zeros((4, 4, 3)), y, epochs=1, validation=(x, np.zeros(len(x))), **QUIET)
    assert equal(trainer.model, tagger(batch_first))


def test_indices_need_no_features(rng):
    model = fl.Sequential(fl.Embedding(5, 3, rng=rng), fl.GRU(3, 4, rng=rng))
    assert trainer_of(model).predict(rng.integers(0, 5, (2, 7))).shape == (2, 7, 4)


@pytest.mark.parametrize(
    ("loss", "kind", "outputs"),
    [("cross_entropy", "softmax", 3), ("binary_cross_entropy", "sigmoid", 1)],
)
def test_a_loss_of_logits_on_what_is_no_logits_warns(loss, kind, outputs):
    layers = fl.LSTM(2, 4, rng=0), fl.Last(), fl.Linear(4, outputs, rng=0)
    whole = fl.Sequential(*layers, fl.Activation(kind))
    function = getattr(fl.losses, loss)
    for model, given in (
        (whole, loss),
        (fl.Sequential(whole), function),
        (fl.Masking(*whole), functools.partial(function)),
    ):
        with pytest.warns(UserWarning, match=f"^loss: {loss} takes logits.*{kind}") as caught:
            trainer_of(model, given)
        assert caught[0].filename == __file__
    other = {"softmax": "sigmoid", "sigmoid": "tanh"}[kind]
    # Warnings are errors in tests.
    trainer_of(whole[:-1], loss)
    trainer_of(whole, "mse")
    trainer_of(fl.Sequential(*layers, fl.Activation(other)), loss)
    trainer_of(whole, lambda pred, target: function(pred, target))


@pytest.mark.parametrize(
    "loss", ["mse", functools.partial(fl.losses.huber, delta=2.0)], ids=["name", "partial"]
)
def test_a_pickled_trainer_goes_on(loss, rng):
    x, y = ragged(rng)
    trainer = trainer_of(loss=loss)
    trainer.fit(x, y, epochs=1, **QUIET)
    again = pickle.loads(pickle.dumps(trainer))
    history = [one.fit(x, y, epochs=2, **QUIET)["loss"] for one in (trainer, again)]
    assert (history[0] == history[1]).all()
    assert equal(trainer.model, again.model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lengths": [3, 2]}, "lengths: a list of sequences has its own"),
        ({"mask": [np.ones(3, bool)]}, "mask: expected a list of 2 arrays"),
        ({"mask": [np.ones(3, bool)] * 2}, r"mask\[1\]: expected shape \(2,\)"),
        ({"sample_weight": [np.ones(3)] * 2}, r"sample_weight\[1\]: expected shape \(2,\)"),
        ({"sample_weight": 1.0}, "sample_weight: expected shape"),
        ({"sample_weight": []}, "sample_weight: expected shape"),
        ({"checkpoint_every": 3}, "checkpoint_every: without checkpoint, expected 'epoch', got 3"),
        ({"validation": ([], [], {}, {})}, "validation: expected a fraction"),
        ({"metrics": "recall"}, "metrics: "),
        ({"metrics": None}, "metrics: .* got None"),
        ({"sample_weight": [1.0, -1.0]}, "sample_weight: expected finite numbers"),
    ],
)
def test_errors_of_lists(options, message, rng):
    x, y = ragged(rng, (3, 2))
    with pytest.raises(ValueError, match=message):
        trainer_of().fit(x, y, epochs=1, **options, **QUIET)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"callbacks": [fl.EarlyStopping()]}, "early_stopping="),
        ({"callbacks": [object()]}, "callbacks: expected objects"),
        ({"validation": ("text", np.zeros(4))}, "validation: x: expected real"),
        ({"early_stopping": 3}, "early_stopping: expected EarlyStopping"),
        ({"progress": 1}, "progress: expected True"),
        ({"checkpoint": True}, "checkpoint: expected the path of a folder, got True"),
    ],
)
def test_errors_of_kinds(options, message):
    with pytest.raises(TypeError, match=message):
        trainer_of().fit(np.zeros((4, 4, 3)), np.zeros((4, 4, 2)), epochs=1, **options)


def test_errors_of_the_trainer():
    for model, loss, optimizer, error, message in (
        (3, "mse", fl.optim.SGD(0.1), TypeError, "model"),
        (tagger(), "msee", fl.optim.SGD(0.1), ValueError, "loss: expected one of"),
        (tagger(), "mse", "adam", TypeError, "optimizer"),
        (tagger(), "mse", fl.optim.Adam, TypeError, "optimizer"),
        (
            fl.Sequential(fl.LSTM(3, 3), Swap(), fl.LSTM(3, 3, batch_first=True)),
            *("mse", fl.optim.SGD(0.1), ValueError, "batch_first"),
        ),
    ):
        with pytest.raises(error, match=message):
            fl.Trainer(model, loss, optimizer)


def test_errors_of_forms(rng):
    x, y = np.zeros((4, 5, 3)), np.zeros((4, 5, 2))
    trainer = trainer_of()
    with pytest.raises(ValueError, match=r"sample_weight: expected shape \(4,\), got \(\)"):
        trainer.fit(x, y, epochs=1, sample_weight=2.0, **QUIET)
    with pytest.raises(ValueError, match=r"x: expected shape \(N, T, ...\), got \(\)"):
        trainer.predict(5)
    streams = fl.training.Streams(np.zeros((20, 3)), np.zeros((20, 2)), rows=2, steps=5)
    for options in ({"lengths": [3]}, {"mask": np.ones(20, bool)}):
        with pytest.raises(ValueError, match="x has its own, so expected None"):
            trainer.predict(streams, **options)
    with pytest.raises(TypeError, match=r"loss: expected a function that returns \(mean, d_pred\)"):
        trainer_of(loss=lambda pred, target: 0.5).fit(x, y, epochs=1, **QUIET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [5, -1, 5, 5]}, "lengths: expected 0 to 5, got -1 to 5"),
        ({"lengths": [5, 9, 5, 5]}, "lengths: expected 0 to 5, got 5 to 9"),
        ({"sample_weight": np.ones(6)}, r"sample_weight: expected a weight for each of 4 rows"),
        ({"sample_weight": 1.0}, r"sample_weight: .* got shape \(\)"),
    ],
)
def test_errors_of_batches(changes, message):
    model = fl.Sequential(fl.Linear(3, 2))
    batch = fl.training.Batch(np.zeros((4, 5, 3)), np.zeros((4, 5, 2)), **changes)
    with pytest.raises(ValueError, match=f"x, batch 0: {message}"):
        trainer_of(model).fit([batch], epochs=1, **QUIET)
    good = fl.training.Batch(np.zeros((4, 5, 3)), np.zeros((4, 5, 2)))
    with pytest.raises(ValueError, match=f"validation, batch 0: {message}"):
        trainer_of(model).fit([good], epochs=1, validation=[batch], **QUIET)


def test_a_value_that_stays_is_no_improvement(rng):
    """Not with min_delta 0, either: a plateau ends the training."""
    x = rng.standard_normal((6, 4, 3))
    model = fl.Sequential(fl.LSTM(3, 2, dtype=np.float64, rng=0))
    trainer = fl.Trainer(model, "mse", fl.optim.SGD(0.0))
    history = trainer.fit(
        x,
        np.zeros((6, 4, 2)),
        epochs=9,
        validation=(x, np.zeros((6, 4, 2))),
        early_stopping=fl.EarlyStopping(patience=2),
        **QUIET,
    )
    assert (history.epochs, history.stopped_by) == (3, "early stopping")
