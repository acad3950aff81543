"""Prediction intervals of the forecaster: their widths by hand, and how often they hold."""

import math

import numpy as np
import pytest

pytest.importorskip("sklearn")

from fastlstm.in_sklearn.forecast.intervals import radius, rank_of
from fastlstm.sklearn import LSTMForecaster

SMALL = {"hidden_size": 5, "max_epochs": 3, "window": 11, "random_state": 3, "dtype": "float64"}


def small(**options):
    return LSTMForecaster(**(SMALL | options))


def walk(seed, *shape):
    return 20 + 0.3 * np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)


@pytest.mark.parametrize("exogenous", [0, 2])
@pytest.mark.parametrize("strategy", ["recursive", "direct"])
def test_widths_are_quantiles_of_errors_in_the_tail(strategy, exogenous):
    """The errors are those of forecasts of the tail that begin at every step of it."""
    T, tail, horizon = 75, 15, 3
    y, X = walk(0, T, 2), walk(1, T + horizon, 2) if exogenous else None

    def part(*ends):
        return None if X is None else X[slice(*ends)]

    forecaster = small(strategy=strategy, horizon=horizon, difference=1).fit(y, part(T))
    errors = [[], [], []]  # by the number of steps ahead
    for origin in range(T - tail, T):
        rows = horizon if strategy == "direct" else min(horizon, T - origin)
        if X is not None and origin + rows > T:
            continue  # a direct forecast takes exogenous values that fit did not have
        later = part(origin, origin + rows)
        one = forecaster.predict(
            rows, last_window=y[:origin], X_window=part(origin), X_future=later
        )
        for lead in range(min(rows, T - origin)):
            errors[lead].append(np.abs(y[origin + lead] - one[lead]))
    fewest = [13] * 3 if exogenous and strategy == "direct" else [15, 14, 13]
    assert [len(one) for one in errors] == fewest

    found = forecaster.predict(X_future=part(T, None))
    for coverage in (0.07, 0.3, 0.5, 0.8, 0.92):
        lower, upper = forecaster.predict_interval(coverage=coverage, X_future=part(T, None))
        np.testing.assert_allclose((lower + upper) / 2, found, rtol=1e-12)
        for lead, one in enumerate(errors):
            rank = math.ceil((len(one) + 1) * coverage - 1e-9)
            half = np.sort(one, axis=0)[rank - 1]
            np.testing.assert_allclose((upper - lower)[lead] / 2, half, rtol=1e-8)


def test_errors_of_several_series_count_together_in_their_own_units():
    y = [walk(2, 60), 1000 * walk(3, 45)]  # tails of 12 and 9 steps
    forecaster = small(difference=1).fit(y)
    lower, upper = forecaster.predict_interval(1, coverage=0.75)
    errors, scales = [], []
    for place, one in enumerate(y):
        tail = round(0.2 * len(one))
        scale = np.diff(one[: len(one) - tail])[1:].std()
        again = small(difference=1)  # with the same weights, for this series alone
        again.fit(one).model_.load_state_dict(forecaster.model_.state_dict())
        for origin in range(len(one) - tail, len(one)):
            error = again.predict(1, last_window=one[:origin])[0] - one[origin]
            errors.append(abs(error) / scale)
        scales.append(scale)
        assert place < 2
    half = np.sort(errors)[math.ceil(22 * 0.75) - 1]
    for lo, up, scale in zip(lower, upper, scales, strict=True):
        np.testing.assert_allclose((up - lo) / 2, half * scale, rtol=1e-9)


def test_intervals_of_logarithms_lie_above_zero():
    y = np.exp(walk(4, 60) - 20)
    lower, upper = small(log=True, difference=1).fit(y).predict_interval(4, coverage=0.5)
    logs = small(difference=1).fit(np.log(y)).predict_interval(4, coverage=0.5)
    np.testing.assert_allclose([lower, upper], np.exp(logs), rtol=1e-12)
    assert (lower > 0).all()


def test_the_rank_is_that_of_split_conformal_prediction():
    assert [rank_of(n, 0.9) for n in (8, 9, 10, 19, 99)] == [9, 9, 10, 18, 90]
    assert rank_of(19, 0.95) == 19  # 20 * 0.95 is 19.000000000000000 or a little more
    errors = np.random.default_rng(0).permutation(38).reshape(19, 2)
    np.testing.assert_array_equal(radius(errors, 0.9, 1), np.sort(errors, axis=0)[17])
    # Exact coverage if errors are exchangeable: of 10 of them, each is the new one as often.
    draws = np.random.default_rng(1).exponential(size=(20_000, 10))
    halves = np.array([radius(one[:9, None], 0.9, 1)[0] for one in draws[:4000]])
    assert abs(np.mean(draws[:4000, 9] <= halves) - 0.9) < 0.015


def test_too_few_errors():
    forecaster = small(difference=1).fit(walk(5, 60))  # a tail of 12 steps
    forecaster.predict_interval(4)
    with pytest.raises(ValueError, match=r"coverage: expected at least 9 held-out errors for 0\.9, "
                       r"got 8 at 5 steps ahead"):  # fmt: skip
        forecaster.predict_interval(5)
    with pytest.raises(ValueError, match=r"at least 19 .* for 0\.95, got 12 at 1 step ahead"):
        forecaster.predict_interval(1, coverage=0.95)
    with pytest.raises(ValueError, match="held-out errors for 1, got 12"):  # at once
        forecaster.predict_interval(1, coverage=1 - 1e-9)
    for coverage in (0, 1, 1.5, np.nan):
        with pytest.raises(ValueError, match="coverage: expected a number"):
            forecaster.predict_interval(1, coverage=coverage)
    lower, upper = forecaster.predict_interval(12, coverage=0.5)
    assert lower.shape == upper.shape == (12,)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))]
)
@pytest.mark.parametrize("strategy", ["recursive", "direct"])
def test_intervals_hold_as_often_as_they_say(strategy, seed):
    """An AR(1) process, y[t] = 0.7 y[t-1] + e: nine of ten later values lie within."""
    noise = np.random.default_rng(seed).normal(size=1600)
    y = np.zeros(1600)
    for t in range(1, 1600):
        y[t] = 0.7 * y[t - 1] + noise[t]
    forecaster = LSTMForecaster(
        8, strategy=strategy, horizon=3, random_state=seed, max_epochs=20, n_iter_no_change=4,
        validation_fraction=0.4, difference=None,
    )  # fmt: skip
    forecaster.fit(y[:800])
    lower, upper = forecaster.predict_interval()
    half = (upper - lower) / 2
    # The best intervals: 1.645 standard deviations of the error, √Σ 0.49^j.
    best = 1.645 * np.sqrt(np.cumsum(0.49 ** np.arange(3)))
    assert (half < 1.25 * best).all()
    assert (half > 0.8 * best).all()
    inside = []
    for t in range(800, 1590):
        inside.append(np.abs(forecaster.predict() - y[t : t + 3]) <= half)
        forecaster.update(y[t : t + 1])
    # 320 errors give the quantile, with a standard deviation of 0.017 of coverage; more as those
    # of several steps ahead overlap.
    np.testing.assert_allclose(np.mean(inside, axis=0), 0.9, atol=0.06)


def test_of_a_long_tail_some_steps_are_forecast_from(monkeypatch):
    y = walk(7, 80)
    forecaster = small(difference=1).fit(y)  # a tail of 16 steps
    monkeypatch.setattr("fastlstm.in_sklearn.forecast.intervals.MOST", 6)
    lower, upper = forecaster.predict_interval(2, coverage=0.7)
    for lead in range(2):
        errors = [
            abs(forecaster.predict(2, last_window=y[:origin])[lead] - y[origin + lead])
            for origin in range(64, 80 - lead, 3)
        ]
        half = np.sort(errors)[math.ceil((len(errors) + 1) * 0.7) - 1]
        np.testing.assert_allclose((upper - lower)[lead] / 2, half, rtol=1e-9)
