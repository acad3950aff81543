"""Forecasts and carried states, against a walk over the whole history for every single step."""

import pickle
import signal
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

from fastlstm.in_sklearn.forecast.encoding import CRITICAL, Encoding, choose_lags, stationarity
from fastlstm.in_sklearn.forecast.windows import training_windows
from fastlstm.in_sklearn.scaling import measure_scaling
from fastlstm.sklearn import LSTMForecaster
from fastlstm.training.trainer import Trainer

SMALL = {"hidden_size": 5, "max_epochs": 3, "window": 11, "random_state": 3, "dtype": "float64"}


def small(**options):
    return LSTMForecaster(**(SMALL | options))


def walk(seed, *shape, level=20.0):
    steps = np.random.default_rng(seed).normal(size=shape)
    return level + 0.3 * steps.cumsum(axis=0)


def scored(forecaster, y, X=None):
    """The mean and deviation of training targets, as sums over steps one after another."""
    leads = forecaster.horizon if forecaster.strategy == "direct" else 1
    size = len(y) - max(1, round(forecaster.validation_fraction * len(y)))
    lags = forecaster.difference_
    depth = sum(lags)
    rows = [
        np.concatenate(
            [y[t + h] - base(y[: t + 1], forecaster.difference_, h) for h in range(1, leads + 1)]
        )
        for t in range(depth, size - leads)
    ]
    numbers = SimpleNamespace(mean=np.mean(rows, axis=0), scale=np.std(rows, axis=0))
    if X is not None:
        numbers.x_mean, numbers.x_scale = X[:size].mean(axis=0), X[:size].std(axis=0)
    return numbers


def base(y, lags, ahead):
    """The value `ahead` steps after a series if its differences are 0 from there on."""
    if not lags:
        return 0.0
    y = list(y)
    for _ in range(ahead):
        if len(lags) == 1:
            y.append(y[-lags[0]])
        else:
            a, b = lags
            y.append(y[-a] + y[-b] - y[-a - b])
    return y[-1]


def one_by_one(forecaster, y, horizon, numbers, X=None):
    """Forecasts for which the network reads the whole history again for every step."""
    lags, k = forecaster.difference_, y.shape[1]
    leads = forecaster.horizon if forecaster.strategy == "direct" else 1
    known, found = list(y), []
    while len(found) < horizon:
        z = [
            (known[t] - base(known[:t], lags, 1) - numbers.mean[:k]) / numbers.scale[:k]
            for t in range(sum(lags), len(known))
        ]
        rows = z
        if X is not None:
            later = (X - numbers.x_mean) / numbers.x_scale
            rows = [
                np.concatenate([one, *later[t + 1 : t + 1 + leads]])
                for t, one in enumerate(z, start=sum(lags))
            ]
        outputs, _ = forecaster.model_(np.array(rows)[None])
        values = (outputs[0, -1] * numbers.scale + numbers.mean).reshape(leads, k)
        new = [value + base(known, lags, h) for h, value in enumerate(values, 1)]
        known += new
        found += new
    return np.array(found)[:horizon]


@pytest.mark.parametrize("lags", [(), (1,), (4,), (1, 4)], ids=str)
@pytest.mark.parametrize("exogenous", [0, 3])
@pytest.mark.parametrize(
    ("strategy", "cell", "layers"), [("recursive", "lstm", 2), ("direct", "gru", 1)]
)
def test_forecasts_are_those_of_a_walk_over_all_steps(strategy, cell, layers, exogenous, lags):
    y, horizon = walk(0, 47, 2), 6
    X = walk(1, 53, exogenous) if exogenous else None
    forecaster = small(strategy=strategy, horizon=horizon, cell=cell, num_layers=layers)
    forecaster.set_params(difference=lags).fit(y, None if X is None else X[:47])
    assert forecaster.difference_ == lags
    numbers = scored(forecaster, y, None if X is None else X[:47])
    expected = one_by_one(forecaster, y, horizon, numbers, X)
    found = forecaster.predict(X_future=None if X is None else X[47:])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    if X is None or strategy == "recursive":
        fewer = forecaster.predict(4, X_future=None if X is None else X[47:51])
    else:
        fewer = forecaster.predict(4, X_future=X[47:])
    np.testing.assert_array_equal(fewer, found[:4])


def test_logarithms_are_forecast_in_place_of_values():
    y = np.exp(walk(2, 40, 1, level=2.0))
    forecaster = small(log=True, difference=1).fit(y)
    expected = small(difference=1).fit(np.log(y)).predict(5)
    np.testing.assert_allclose(forecaster.predict(5), np.exp(expected), rtol=1e-14)
    assert forecaster.predict(5).shape == (5, 1)
    assert forecaster.fit(y[:, 0]).predict(5).shape == (5,)


@pytest.mark.parametrize("strategy", ["recursive", "direct"])
@pytest.mark.parametrize("exogenous", [0, 2])
def test_update_is_as_if_the_whole_history_had_been_read(strategy, exogenous):
    y, X = walk(4, 70, 2), walk(5, 74, 2) if exogenous else None

    def part(*ends):
        return None if X is None else X[slice(*ends)]

    forecaster = small(strategy=strategy, horizon=4, difference=(1, 3)).fit(y[:50], part(50))
    before = forecaster.predict(X_future=part(50, 54))
    for first, last in [(50, 51), (51, 52), (52, 52), (52, 63), (63, 70)]:
        assert forecaster.update(y[first:last], part(first, last)) is forecaster
    after = forecaster.predict(X_future=part(70, 74))
    whole = forecaster.predict(last_window=y, X_window=part(70), X_future=part(70, 74))
    np.testing.assert_array_equal(after, whole)  # the same bits
    numbers = scored(forecaster, y[:50], part(50))
    np.testing.assert_allclose(after, one_by_one(forecaster, y, 4, numbers, X), rtol=1e-10)
    assert not np.array_equal(before, after)
    assert np.abs(after - y[-1]).max() < np.abs(after - y[49]).max() + 5


def test_update_computes_a_step_for_each_new_value():
    forecaster = small(difference=1).fit(walk(6, 60))
    steps = []
    model = forecaster.model_

    class Counting:
        def __call__(self, x, *arguments, **options):
            steps.append(x.shape[1])
            return model(x, *arguments, **options)

    forecaster._network.model = Counting()
    forecaster.update(walk(7, 1)).update(walk(8, 9))
    assert steps == [1, 9]


def test_nothing_of_the_tail_reaches_the_training():
    """Whatever stands in the tail, the trained weights have the same bits."""
    y, X = walk(9, 60, 2), walk(10, 60, 1)
    size = 60 - 12  # validation_fraction=0.2
    for strategy in ("recursive", "direct"):
        options = {"strategy": strategy, "horizon": 3, "early_stopping": False}
        usual = small(**options).fit(y, X)
        for places in (slice(size, size + 1), slice(size, None)):
            other_y, other_X = y.copy(), X.copy()
            other_y[places], other_X[places] = 1e6, -1e6
            other = small(**options).fit(other_y, other_X)
            assert other.loss_curve_ == usual.loss_curve_
            assert other.difference_ == usual.difference_
            assert other.validation_loss_curve_[0] > 1e3 * usual.validation_loss_curve_[0]
            for name, array in usual.model_.state_dict().items():
                np.testing.assert_array_equal(other.model_.state_dict()[name], array)
        other_y = y.copy()
        other_y[size - 1] += 1  # of the training
        assert small(**options).fit(other_y, X).loss_curve_ != usual.loss_curve_


@pytest.mark.parametrize("leads", [1, 3])
def test_windows_end_with_the_training_and_have_all_its_steps(leads):
    y = np.arange(31.0)[:, None] ** 2
    encoding = Encoding((1,), leads)
    scaling = measure_scaling(encoding.targets(y))
    data = training_windows(encoding, [(y, None)], [scaling], 5, np.float64)
    assert {one.shape for one in data.x} == {(5, 1)}
    steps = np.unique(np.concatenate([scaling.undo(one)[:, 0] for one in data.y]).round(6))
    np.testing.assert_allclose(steps, np.diff(y[:, 0])[1 : 31 - leads], atol=1e-6)
    ends = [scaling.undo(one)[-1, leads - 1] for one in data.y]
    np.testing.assert_allclose(max(ends), y[-1, 0] - y[-1 - leads, 0])
    assert len(data.x) == 31 - 1 - leads - 5 + 1


def test_many_windows_begin_every_few_steps():
    y = walk(0, 9000, 1)
    encoding = Encoding((), 1)
    data = training_windows(encoding, [(y, None)], [measure_scaling(y)], 4, np.float32)
    assert len(data.x) == -(-8996 // 3)
    assert data.x[0].dtype == np.float32


def test_several_series_of_several_lengths():
    """Each is standardized by itself, and forecast as if it were alone."""
    series = [walk(11, 50, 2), walk(12, 9, 2, level=1e3), 100 * walk(13, 33, 2)]
    forecaster = small(difference=1).fit(series)
    found = forecaster.predict(4)
    assert isinstance(found, list)
    for one, given in zip(series, found, strict=True):
        expected = one_by_one(forecaster, one, 4, scored(forecaster, one))
        np.testing.assert_allclose(given, expected, rtol=1e-10)
    more = walk(14, 3, 2)
    forecaster.update([series[0][:0], more, series[0][:0]])
    again = forecaster.predict(4)
    np.testing.assert_array_equal(again[0], found[0])
    np.testing.assert_array_equal(again[2], found[2])
    joined = np.concatenate([series[1], more])
    expected = one_by_one(forecaster, joined, 4, scored(forecaster, series[1]))
    np.testing.assert_allclose(again[1], expected, rtol=1e-10)

    new = 1e4 * walk(15, 30, 2)  # a series that fit did not see, by its own numbers
    rows = np.diff(new, axis=0)[1:]
    numbers = SimpleNamespace(mean=rows.mean(axis=0), scale=rows.std(axis=0))
    expected = one_by_one(forecaster, new, 4, numbers)
    np.testing.assert_allclose(forecaster.predict(4, last_window=new), expected, rtol=1e-10)
    both = forecaster.predict(4, last_window=[new, new[:20]])
    np.testing.assert_allclose(both[0], expected, rtol=1e-10)
    assert len(both) == 2


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads():
    y = walk(16, 60)
    options = {"dropout": 0.3, "dtype": "float32", "hidden_size": 16}
    first = small(**options, threads=1).fit(y)
    second = clone(first).set_params(threads=2).fit(y)
    np.testing.assert_array_equal(first.predict(7), second.predict(7))
    assert first.loss_curve_ == second.loss_curve_
    other = clone(first).set_params(random_state=4).fit(y)
    assert first.loss_curve_ != other.loss_curve_
    assert first.model_.parameters()["0.weight_ih_l0"].dtype == np.float32
    given = small(random_state=np.random.RandomState(5)).fit(y)
    same = small(random_state=np.random.RandomState(5)).fit(y)
    assert given.loss_curve_ == same.loss_curve_


def test_the_seed_of_the_training_is_drawn_too(monkeypatch):
    """The order of windows and the dropout differ as the first weights do."""
    seeds = []

    class Recording(Trainer):
        def __init__(self, *arguments, seed, **options):
            seeds.append(seed)
            assert options["clip_norm"] == 1
            super().__init__(*arguments, seed=seed, **options)

    monkeypatch.setattr("fastlstm.in_sklearn.forecast.fitting.Trainer", Recording)
    for state in (3, 4, 3):
        small(random_state=state).fit(walk(22, 40))
    assert seeds[0] == seeds[2] != seeds[1]


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_size": 6},
        {"num_layers": 2},
        {"dropout": 0.5},
        {"cell": "rnn"},
        {"window": 12},
        {"log": True},
        {"lr": 0.02},
        {"weight_decay": 0.5},
        {"batch_size": 8},
        {"validation_fraction": 0.3},
    ],
    ids=str,
)
def test_each_option_changes_the_training(options):
    y = walk(23, 50)
    usual, other = small().fit(y), small(**options).fit(y)
    assert usual.loss_curve_[-1] != other.loss_curve_[-1]
    assert small(**options).fit(y).loss_curve_ == other.loss_curve_


def test_no_improvement_by_less_than_tol():
    options = {"max_epochs": 50, "n_iter_no_change": 2}
    assert small(tol=1e6, **options).fit(walk(24, 50)).n_iter_ == 3
    assert small(tol=1e6, early_stopping=False, **options).fit(walk(24, 50)).n_iter_ == 50


def test_ctrl_c_ends_the_training_with_a_warning(monkeypatch):
    class Interrupted(Trainer):
        def fit(self, *arguments, **options):
            def end_epoch(run):
                if run.epoch == 1:
                    signal.raise_signal(signal.SIGINT)

            callback = SimpleNamespace(on_epoch_end=end_epoch)
            return super().fit(*arguments, **options, callbacks=[callback])

    monkeypatch.setattr("fastlstm.in_sklearn.forecast.fitting.Trainer", Interrupted)
    with pytest.warns(UserWarning, match="fit: interrupted after 2 epochs"):
        forecaster = small().fit(walk(25, 40))
    assert forecaster.n_iter_ == 2
    assert np.isfinite(forecaster.predict(3)).all()


def test_a_pickle_goes_on_alike_and_is_small():
    y = walk(17, 4000)
    forecaster = small(max_epochs=1, window=50, batch_size=64, validation_fraction=0.02).fit(y[:-5])
    data = pickle.dumps(forecaster)
    assert len(data) < 20_000
    twin = pickle.loads(data)
    for one in (forecaster, twin):
        one.update(y[-5:])
    np.testing.assert_array_equal(twin.predict(3), forecaster.predict(3))
    np.testing.assert_array_equal(twin.predict_interval(3), forecaster.predict_interval(3))


def test_the_best_epoch_on_the_tail_is_kept():
    y = walk(18, 80)
    forecaster = small(max_epochs=200, n_iter_no_change=4, lr=0.03).fit(y)
    curve = forecaster.validation_loss_curve_
    assert forecaster.n_iter_ == len(curve) == len(forecaster.loss_curve_) < 200
    assert forecaster.best_iteration_ == 1 + int(np.argmin(curve)) == forecaster.n_iter_ - 4
    # The lowest loss is that of the weights that were kept: one step ahead, over the tail.
    numbers = scored(forecaster, y[:, None])
    errors = [
        (forecaster.predict(1, last_window=y[:t])[0] - y[t]) / numbers.scale[0]
        for t in range(64, 80)
    ]
    np.testing.assert_allclose(np.mean(np.square(errors)), min(curve), rtol=1e-9)


def test_no_tail():
    forecaster = small(early_stopping=False, validation_fraction=0).fit(walk(19, 40))
    assert forecaster.validation_loss_curve_ is None
    assert forecaster.best_iteration_ <= forecaster.n_iter_ == 3
    with pytest.raises(ValueError, match="validation_fraction: expected a tail held out in fit"):
        forecaster.predict_interval(1)


def test_a_grid_search_over_splits_in_time():
    y = walk(20, 80)
    search = GridSearchCV(small(), {"hidden_size": [2, 4]}, cv=TimeSeriesSplit(3, test_size=5))
    search.fit(y)
    assert search.best_params_["hidden_size"] in (2, 4)
    split = small(hidden_size=2).fit(y[:75])
    found, truth = split.predict(5), y[75:]
    expected = 1 - ((truth - found) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert search.cv_results_["split2_test_score"][0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("T", "lags"), [(4, 0), (14, 1), (29, 4), (54, 9), (55, 10), (90, 11)])
def test_the_test_of_stationarity_is_that_of_the_paper(T, lags):
    y = walk(21, T)
    e = y - y.mean()
    sums = [sum(e[: t + 1]) for t in range(T)]
    variance = sum(one**2 for one in e) / T
    for lag in range(1, lags + 1):
        weight = 2 * (1 - lag / (lags + 1))
        variance += weight * sum(e[t] * e[t - lag] for t in range(lag, T)) / T
    expected = sum(one**2 for one in sums) / T**2 / variance
    assert stationarity(y) == pytest.approx(expected, rel=1e-12)
    assert stationarity(np.full(9, 3.0)) == 0


def test_the_choice_of_differences():
    noise = np.random.default_rng(0).normal(size=(300, 1))
    trend, season = np.arange(300.0)[:, None], np.sin(np.arange(300.0) / 2)[:, None]
    assert stationarity(season[:, 0] + noise[:, 0]) < CRITICAL < stationarity(trend[:, 0])
    assert choose_lags("auto", [trend + noise]) == (1,)
    assert choose_lags("auto", [season + noise]) == ()
    assert choose_lags("auto", [np.hstack([trend, season])]) == (1,)
    assert choose_lags("auto", [trend, season, noise]) == ()


def test_a_line_of_any_length_is_found():
    for T in range(5, 200):
        assert stationarity(np.arange(T)) > CRITICAL


# Kinds of series, lengths, and the least and largest share of them that may be differenced.
RATES = [
    ("noise", (20, 29, 40, 120), 0, 0.08),
    ("AR(0.8)", (20, 29, 40, 120), 0, 0.25),
    ("season", (20, 29, 40, 240), 0, 0),
    ("line", (20, 29, 40, 120), 1, 1),
    ("weak line", (29, 40, 120), 0.9, 1),
    ("walk", (20, 29, 40, 120), 0.3, 1),
    ("walk", (500,), 0.8, 1),
]


@pytest.mark.parametrize(("kind", "sizes", "least", "most"), RATES)
def test_how_often_differences_are_chosen(kind, sizes, least, most):
    rng = np.random.default_rng(3)
    for T in sizes:
        w, t = rng.normal(size=(200, T + 100)), np.arange(T)
        if kind == "AR(0.8)":
            for step in range(1, T + 100):
                w[:, step] += 0.8 * w[:, step - 1]
        y = w[:, 100:]
        if kind == "season":
            y = y + 10 * np.sin(2 * np.pi * (t + rng.uniform(0, 12, (200, 1))) / 12)
        elif kind == "walk":
            y = y.cumsum(axis=1)
        elif "line" in kind:
            y = y + (3 if kind == "weak line" else 10) * t / T
        share = np.mean([choose_lags("auto", [one[:, None]]) == (1,) for one in y])
        assert least <= share <= most


def test_a_short_line_is_forecast():
    y = 3.0 * np.arange(48) + np.random.default_rng(0).normal(0, 0.5, 48)
    forecaster = LSTMForecaster(random_state=0).fit(y[:36])
    assert forecaster.difference_ == (1,)
    assert np.abs(forecaster.predict(12) - y[36:]).mean() < 2 < np.abs(y[35] - y[36:]).mean() / 8


def test_before_fit():
    for call in (
        lambda one: one.predict(1),
        lambda one: one.predict_interval(1),
        lambda one: one.update([1.0]),
        lambda one: one.score([1.0]),
    ):
        with pytest.raises(NotFittedError):
            call(LSTMForecaster())


SLOW = [pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4)]


@pytest.mark.parametrize("seed", [0, *SLOW])
def test_a_trend_with_a_season_is_forecast_better_than_by_old_values(seed):
    t = np.arange(168)
    y = 50 + 0.5 * t + 10 * np.sin(2 * np.pi * t / 12) + 4 * np.cos(4 * np.pi * t / 12)
    y += np.random.default_rng(seed).normal(0, 1, 168)
    truth = y[-12:]
    forecaster = LSTMForecaster(random_state=seed).fit(y[:-12])
    assert forecaster.difference_ == (1,)
    error, last, season = (
        np.abs(truth - one).mean() for one in (forecaster.predict(12), y[-13], y[-24:-12])
    )
    assert error < 0.6 * min(last, season)
