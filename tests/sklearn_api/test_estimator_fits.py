"""What a fit computes: scaling, weights, early stopping, fits that go on."""

import contextlib
import copy
import functools
import io
import pickle
import signal

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.exceptions import NotFittedError

import fastlstm as fl
from fastlstm.sklearn import LSTMClassifier, LSTMRegressor
from fastlstm.training import DivergedError

SMALL = {"hidden_size": 6, "max_epochs": 3, "batch_size": 4, "random_state": 1}
COUNTS = np.array([4, 7, 2, 7, 5, 3, 6, 9, 4, 5, 8, 6])


@pytest.fixture
def x(rng):
    return [5 + rng.standard_normal((count, 3)) * [1, 10, 0] for count in COUNTS]


@pytest.fixture
def y(rng):
    return rng.permutation(np.arange(len(COUNTS)) % 3)


def weights_of(estimator):
    return np.concatenate([array.ravel() for array in estimator.model_.parameters().values()])


def same(a, b):
    return np.array_equal(weights_of(a), weights_of(b))


# Scaling.


def test_channels_are_scaled_by_the_steps_of_training(x, y):
    steps = np.concatenate(x)
    wide = np.full((12, 11, 3), 1e6)
    for row, one in zip(wide, x, strict=True):
        row[: len(one)] = one
    for estimator in (
        LSTMClassifier(**SMALL).fit(x, y),
        LSTMClassifier(**SMALL).fit(wide, y, lengths=COUNTS),
        LSTMRegressor(**SMALL).fit(x, y, X_val=[one * 100 for one in x], y_val=y),
    ):
        np.testing.assert_allclose(estimator._scaling.mean, steps.mean(axis=0), rtol=1e-13)
        wanted = [*steps[:, :2].std(axis=0), 1]
        np.testing.assert_allclose(estimator._scaling.scale, wanted, rtol=1e-13)
    weights = np.arange(12.0)
    weighted = LSTMClassifier(**SMALL).fit(x, y, weights)
    repeated = np.concatenate([one for k, one in enumerate(x) for _ in range(k)])
    np.testing.assert_allclose(weighted._scaling.mean, repeated.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(weighted._scaling.scale[:2], repeated.std(axis=0)[:2], rtol=1e-13)


def test_the_validation_share_is_not_in_the_scaling(x, y):
    stops = LSTMRegressor(**SMALL, early_stopping=True, validation_fraction=0.25)
    one_far = [*x[:-1], x[-1] + 1e9]
    scalings = [stops.set_params(random_state=s).fit(one_far, y)._scaling for s in range(8)]
    drawn = [scaling.mean[0] < 100 for scaling in scalings]
    assert 0 < sum(drawn) < 8  # in some fits, the far one is held out


def test_predictions_are_in_the_units_of_y_and_do_not_depend_on_those_of_x(x, y):
    plain = LSTMRegressor(**SMALL).fit(x, y)
    other = LSTMRegressor(**SMALL).fit([one * 1e5 - 3e7 for one in x], y * 1e-6 + 2)
    found = other.predict([one * 1e5 - 3e7 for one in x])
    np.testing.assert_allclose((found - 2) * 1e6, plain.predict(x), rtol=1e-4, atol=1e-4)


# Weights.


@pytest.mark.parametrize("make", [LSTMClassifier, LSTMRegressor])
def test_rows_of_weight_zero_have_no_part(make, x, y, rng):
    """Whatever they hold, all in one batch: only their weight keeps them out of the mean."""
    weight = np.array([1, 0, 2, 3, 0, 1, 1, 2, 1, 0, 1, 1.0])
    options = SMALL | {"batch_size": 12}
    far = [rng.standard_normal(one.shape) * 1e6 for one in x]
    other_x = [own if w else other for own, other, w in zip(x, far, weight, strict=True)]
    other_y = np.where(weight, y, (y + 1) % 3)
    wanted = make(**options).fit(x, y, weight)
    assert same(make(**options).fit(other_x, other_y, weight), wanted)
    assert not same(make(**options).fit(x, y), wanted)
    with pytest.raises(AssertionError):  # and the others do
        np.testing.assert_allclose(
            weights_of(make(**options).fit(x, y, weight + (weight == 3))), weights_of(wanted)
        )
    few = np.zeros(12)
    few[[2, 5]] = 1
    assert make(**SMALL).fit(x, y, few).n_iter_ == 3  # some batches have no weight at all


@pytest.mark.parametrize("make", [LSTMClassifier, LSTMRegressor])
def test_a_weight_counts_as_copies(make, x, y):
    """In one batch, as long as the order of rows is only that of a sum."""
    weight = np.array([1, 2, 1, 3, 1, 1, 2, 1, 1, 1, 2, 1])
    options = SMALL | {"batch_size": 99, "dtype": "float64", "tol": 0.0}
    weighted = make(**options).fit(x, y, weight)
    copied = make(**options).fit([x[k] for k in np.repeat(range(12), weight)], y.repeat(weight))
    np.testing.assert_allclose(weights_of(weighted), weights_of(copied), rtol=1e-6, atol=1e-9)


def test_classes_have_weights(x, y):
    y = np.where(y == 2, "c", np.where(np.arange(12) < 7, "a", "b"))
    by_class = {"a": 2.0, "b": 0.5, "c": 3.0}
    each = np.array([by_class[label] for label in y])
    counts = {label: np.sum(y == label) for label in "abc"}
    balanced = {label: 12 / (3 * count) for label, count in counts.items()}

    def curve(**options):
        return LSTMClassifier(**SMALL, **options).fit(x, y).loss_curve_

    assert curve(class_weight="balanced") == pytest.approx(curve(class_weight=balanced), rel=1e-9)
    weighted = LSTMClassifier(**SMALL, class_weight=by_class).fit(x, y)
    assert weighted.loss_curve_ != curve()
    # The loss of the first step, from its definition: all rows in a batch, lr 0.
    options = SMALL | {"batch_size": 12, "max_epochs": 1, "lr": 0.0}
    own = LSTMClassifier(**options, class_weight=by_class)
    sample_weight = np.arange(1.0, 13)
    own.fit(x, y, sample_weight)
    chosen = own.predict_proba(x)[np.arange(12), np.searchsorted(own.classes_, y)]
    total = each * sample_weight
    wanted = -(total * np.log(chosen)).sum() / total.sum()
    assert own.loss_curve_ == pytest.approx([wanted], rel=1e-5)
    with pytest.raises(ValueError, match="class_weight"):
        LSTMClassifier(**SMALL, class_weight="even").fit(x, y)


def test_a_class_without_weight_is_not_learned(x, y):
    own = LSTMClassifier(**(SMALL | {"max_epochs": 60}), class_weight={0: 0.0, 1: 1.0, 2: 1.0})
    assert not (own.fit(x, y).predict(x) == 0).any()
    with pytest.raises(ValueError, match="sample_weight, class_weight: expected a weight above 0"):
        own.fit(x, y, sample_weight=(y == 0).astype(float))
    with pytest.raises(ValueError, match="sample_weight, class_weight: expected a weight above 0"):
        own.partial_fit(x[:2], [0, 0])


def test_weights_and_losses_of_steps(rng):
    x = [rng.standard_normal((count, 2)) for count in COUNTS]
    y = [one[:, :1].repeat(2, axis=1).cumsum(axis=0) for one in x]
    weight = [rng.random(count) for count in COUNTS]
    options = SMALL | {"batch_size": 12, "max_epochs": 1, "lr": 0.0}
    for given, each in ((weight, weight), (np.arange(12.0), np.arange(12).repeat(COUNTS))):
        model = LSTMRegressor(**options).fit(x, y, given)
        w = np.concatenate(each) if given is weight else each
        targets = np.concatenate(y)
        mean = np.average(targets, axis=0, weights=w)
        square = np.average((targets - mean) ** 2, axis=0, weights=w)
        errors = (np.concatenate(model.predict(x)) - targets) ** 2 / square
        assert model.loss_curve_ == pytest.approx([np.average(errors.mean(axis=1), weights=w)])
        assert model.score(x, y, given) == pytest.approx(
            np.mean(1 - np.average(errors, axis=0, weights=w))
        )
    padded = np.zeros((12, 9, 2))
    padded_w = np.full((12, 9), 7.0)
    for k, count in enumerate(COUNTS):
        padded[k, :count], padded_w[k, :count] = x[k], weight[k]
    wide_y = np.full((12, 9, 2), np.nan)
    for row, one in zip(wide_y, y, strict=True):
        row[: len(one)] = one
    wanted = LSTMRegressor(**SMALL).fit(x, y, weight)
    assert same(LSTMRegressor(**SMALL).fit(padded, wide_y, padded_w, lengths=COUNTS), wanted)


# Validation and early stopping.


@pytest.mark.parametrize("form", ["list", "lengths"])
def test_the_best_weights_on_a_validation_set_stay(form, x, y, rng):
    noise = rng.permutation(y)  # so that the validation loss rises soon
    held_out = {"X_val": x, "y_val": noise}
    if form == "lengths":
        wide = np.full((12, 9, 3), np.nan)
        for row, one in zip(wide, x, strict=True):
            row[: len(one)] = one
        held_out |= {"X_val": wide, "lengths_val": COUNTS}
    options = SMALL | {"max_epochs": 30}
    model = LSTMClassifier(**options).fit(x, y, **held_out)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_loss_curve_) == 30
    best = int(np.argmin(model.validation_loss_curve_))
    assert model.best_iteration_ == best + 1 < 30
    chosen = model.predict_proba(x)[np.arange(12), noise]
    assert -np.log(chosen).mean() == pytest.approx(model.validation_loss_curve_[best], rel=1e-5)
    until_then = LSTMClassifier(**(options | {"max_epochs": best + 1})).fit(x, y)
    assert same(until_then, model)
    stopped = LSTMClassifier(**options, early_stopping=True, n_iter_no_change=2)
    stopped.fit(x, y, **held_out)
    assert stopped.n_iter_ < 30
    assert stopped.validation_loss_curve_ == model.validation_loss_curve_[: stopped.n_iter_]
    values = np.array(stopped.validation_loss_curve_)
    assert (values[-2:] >= values[:-2].min() - 1e-4).all()


def test_early_stopping_draws_its_share_of_every_class(rng):
    x = rng.standard_normal((50, 4, 2))
    y = np.repeat(["a", "b", "c"], [30, 15, 5])
    seen = []

    class Spy(LSTMClassifier):
        def _split(self, data, random):
            parts = super()._split(data, random)
            seen.extend(np.bincount(targets.values).tolist() for _, targets, _ in parts)
            return parts

    Spy(4, max_epochs=1, early_stopping=True, validation_fraction=0.2).fit(x, y)
    assert seen == [[24, 12, 4], [6, 3, 1]]
    with pytest.raises(ValueError, match="test_size = 1 should be greater or equal"):
        Spy(4, early_stopping=True).fit(x[[0, 1, 30, 31]], y[[0, 1, 30, 31]])


def test_the_validation_loss_is_weighted(x, y):
    by_class, weight = {0: 1.0, 1: 4.0, 2: 0.5}, np.arange(1.0, 13)
    rows = []

    class Spy(LSTMClassifier):
        def _split(self, data, random):
            kept, drawn = super()._split(data, random)
            rows.extend(drawn[2].values.astype(int) - 1)  # the weights say which they are
            return kept, drawn

    options = SMALL | {"max_epochs": 1, "lr": 0.0, "validation_fraction": 0.25}
    model = Spy(**options, early_stopping=True, class_weight=by_class).fit(x, y, weight)
    assert len(rows) == 3
    losses = -np.log(model.predict_proba(x)[rows, y[rows]])
    each = weight[rows] * np.array([by_class[label] for label in y[rows]])
    wanted = np.average(losses, weights=each)
    assert model.validation_loss_curve_ == pytest.approx([wanted], rel=1e-5)


def test_training_ends_when_its_loss_stays(x, y):
    options = SMALL | {"max_epochs": 50, "lr": 0.0}
    assert LSTMRegressor(**options, n_iter_no_change=4).fit(x, y).n_iter_ == 5
    assert (
        LSTMRegressor(**(options | {"lr": 1e-4}), tol=1.0, n_iter_no_change=1).fit(x, y).n_iter_
        == 2
    )
    model = LSTMRegressor(**options, n_iter_no_change=50).fit(x, y)
    assert (model.n_iter_, model.best_iteration_, model.validation_loss_curve_) == (50, 50, None)


# Going on.


@pytest.mark.parametrize("make", [LSTMClassifier, LSTMRegressor])
def test_one_epoch_at_a_time_is_a_fit(make, x, y):
    """With the optimizer's state, and through a file."""
    classes = {"classes": [0, 1, 2]} if make is LSTMClassifier else {}
    whole = make(**(SMALL | {"max_epochs": 4}), dropout=0.2, num_layers=2).fit(x, y)
    part = make(**SMALL, dropout=0.2, num_layers=2).partial_fit(x, y, **classes)
    for _ in range(3):
        part = pickle.loads(pickle.dumps(copy.deepcopy(part))).partial_fit(x, y)
    assert same(part, whole)
    assert part.loss_curve_ == whole.loss_curve_
    assert part.n_iter_ == part.best_iteration_ == 4


@pytest.mark.parametrize("make", [LSTMClassifier, LSTMRegressor])
def test_one_epoch_has_weights_and_lengths(make, x, y):
    wide = np.full((12, 11, 3), np.nan)
    for row, one in zip(wide, x, strict=True):
        row[: len(one)] = one
    weight = np.arange(12.0)
    classes = {"classes": [0, 1, 2]} if make is LSTMClassifier else {}
    options = SMALL | {"max_epochs": 1}
    part = make(**options).partial_fit(wide, y, sample_weight=weight, lengths=COUNTS, **classes)
    assert same(part, make(**options).fit(x, y, weight))


def test_a_warm_start_goes_on(x, y):
    whole = LSTMClassifier(**(SMALL | {"max_epochs": 5})).fit(x, y)
    warm = LSTMClassifier(**(SMALL | {"max_epochs": 2}), warm_start=True).fit(x, y)
    scaling = warm._scaling
    model = warm.model_
    warm.set_params(max_epochs=3).fit(x, y)
    assert warm._scaling is scaling
    assert warm.model_ is model
    assert same(warm, whole)
    assert warm.loss_curve_ == whole.loss_curve_
    before = weights_of(warm)
    warm.set_params(lr=0.0, weight_decay=0.0).fit(x, y)
    np.testing.assert_array_equal(weights_of(warm), before)
    with pytest.raises(ValueError, match="hidden_size: expected 6, as in the fit before, got 7"):
        warm.set_params(hidden_size=7).fit(x, y)
    with pytest.raises(ValueError, match=r"y: expected the classes \[0, 1, 2\], got also \[5\]"):
        warm.set_params(hidden_size=6).fit(x, np.where(y == 1, 5, y))
    with pytest.raises(ValueError, match="X has 2 features, but LSTMClassifier is expecting 3"):
        warm.fit([one[:, :2] for one in x], y)
    anew = warm.set_params(warm_start=False, lr=1e-2, weight_decay=1e-2, max_epochs=5)
    assert same(anew.fit(x, y), whole)


def test_classes_of_partial_fit(x, y):
    model = LSTMClassifier(**SMALL)
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        model.partial_fit(x, y)
    model.partial_fit(x[:5], np.array([7, 9, 9, 7, 7]), classes=[9, 8, 7])
    assert model.classes_.tolist() == [7, 8, 9]
    with pytest.raises(ValueError, match=r"got also \[3\]"):
        model.partial_fit(x[:1], [3])
    with pytest.raises(ValueError, match="classes: expected"):
        model.partial_fit(x[:1], [7], classes=[7, 8])
    model.partial_fit(x[:1], [8], classes=[7, 8, 9])
    balanced = LSTMClassifier(**SMALL, class_weight="balanced")
    with pytest.raises(ValueError, match="class_weight: expected a dict"):
        balanced.partial_fit(x, y, classes=[0, 1, 2])


def test_a_seed_makes_a_fit(x, y):
    def fit(seed):
        return LSTMClassifier(**(SMALL | {"random_state": seed}), dropout=0.3).fit(x, y)

    assert same(fit(3), fit(3))
    assert not same(fit(3), fit(4))
    state = np.random.RandomState(3)
    assert same(fit(state), fit(3))
    assert not same(fit(state), fit(3))  # it went on
    assert not same(fit(None), fit(None))


# Files.


def test_a_fitted_estimator_is_pickled_small(rng):
    x, y = rng.standard_normal((9, 5, 4)), rng.standard_normal(9)
    model = LSTMRegressor(64, max_epochs=2).fit(x, y)
    wanted = model.predict(x)  # which makes packed copies of the weights
    data = pickle.dumps(model)
    assert len(data) < 3 * weights_of(model).nbytes + 8000  # the weights and Adam's two means
    for twin in (pickle.loads(data), copy.deepcopy(model)):
        np.testing.assert_array_equal(twin.predict(x), wanted)


def test_weights_may_be_mapped_from_a_file(tmp_path, rng):
    joblib = pytest.importorskip("joblib")
    x, y = rng.standard_normal((9, 5, 4)), rng.standard_normal(9)
    model = LSTMRegressor(64, max_epochs=2).fit(x, y)
    joblib.dump(model, tmp_path / "model")
    twin = joblib.load(tmp_path / "model", mmap_mode="r")
    np.testing.assert_array_equal(twin.predict(x), model.predict(x))
    assert same(twin.partial_fit(x, y), model.partial_fit(x, y))


# How a fit ends otherwise.


class StopAfter(LSTMRegressor):
    """Presses Ctrl-C in the second step."""

    def _train(self, data, held_out, random, **options):
        class Press:
            def on_step_end(self, run):
                if run.step == 2:
                    signal.raise_signal(signal.SIGINT)

        options["callbacks"] = [*options["callbacks"], Press()]
        return super()._train(data, held_out, random, **options)


def test_ctrl_c_keeps_what_was_learned(x, y):
    model = StopAfter(**SMALL)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
    try:
        with pytest.warns(UserWarning, match="Training interrupted by user") as found:
            model.fit(x, y)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found[0].filename == __file__
    assert model._position == (0, 2)
    assert model.n_iter_ == 0
    assert model.predict(x).shape == (12,)


def test_a_fit_that_fails_leaves_the_estimator_as_it_was(x, y):
    model = LSTMRegressor(**(SMALL | {"lr": 1e30}))
    with pytest.raises(DivergedError):
        model.fit(x, y)
    assert vars(model) == vars(LSTMRegressor(**(SMALL | {"lr": 1e30})))
    with pytest.raises(NotFittedError):
        model.predict(x)
    model.set_params(lr=1e-2).fit(x, y)
    before, steps = model.predict(x), model._optimizer.steps
    for options in ({}, {"warm_start": True, "weight_decay": 1e9}):
        with pytest.raises(DivergedError):
            model.set_params(lr=1e30, **options).fit(x, y)
        np.testing.assert_array_equal(model.predict(x), before)
        assert model._optimizer.steps == steps


def test_progress_is_shown_when_wanted(x, y):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        LSTMRegressor(**SMALL).fit(x, y)
        assert out.getvalue() == ""
        LSTMRegressor(**SMALL, verbose=2).fit(x, y)
    assert out.getvalue().startswith("epoch 1/3: loss")


def test_threads_are_those_of_the_estimator(x, y, monkeypatch):
    seen = []

    def spy(name):
        method = getattr(fl.Sequential, name)

        @functools.wraps(method)
        def call(self, *args, **options):
            seen.append((name, options.get("threads")))
            return method(self, *args, **options)

        monkeypatch.setattr(fl.Sequential, name, call)

    model = LSTMClassifier(**SMALL, threads=3).fit(x, y)
    for name in ("__call__", "forward", "backward"):
        spy(name)
    model.fit(x, y, X_val=x, y_val=y).predict_steps(x)
    assert {name for name, _ in seen} == {"__call__", "forward", "backward"}
    assert {threads for _, threads in seen} == {3}
    assert fl.get_num_threads() == 1
    assert same(model, LSTMClassifier(**SMALL).fit(x, y, X_val=x, y_val=y))


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_other_cells(cell, x, y):
    model = LSTMClassifier(**SMALL, cell=cell, num_layers=2, bidirectional=True).fit(x, y)
    assert type(model.model_[0]).__name__ == cell.upper()
    assert model.predict_proba(x).shape == (12, 3)
