"""Series as users give them to the forecaster: frames with an index, and what does not fit."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn")

from fastlstm.sklearn import LSTMForecaster

SMALL = {"hidden_size": 5, "max_epochs": 2, "window": 11, "random_state": 3}


def small(**options):
    return LSTMForecaster(**(SMALL | options))


def walk(seed, *shape):
    return 20 + 0.3 * np.random.default_rng(seed).normal(size=shape).cumsum(axis=0)


def indexes():
    pd = pytest.importorskip("pandas")
    return {
        "months": pd.date_range("2001-01-31", periods=60, freq="ME", name="when"),
        "month starts, not marked": pd.DatetimeIndex(
            pd.date_range("2001-01-01", periods=60, freq="MS").to_numpy()
        ),
        "hours in a zone": pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin"),
        "business days": pd.date_range("2024-01-01", periods=60, freq="B"),
        "two weeks": pd.date_range("2024-01-01", periods=60, freq="2W"),
        "periods": pd.period_range("1990Q1", periods=60, freq="Q"),
        "time deltas": pd.timedelta_range("1h", periods=60, freq="30min"),
        "a range": pd.RangeIndex(5, 125, 2, name="n"),
        "numbers": pd.Index(np.arange(1900, 1960)),
        "fractions": pd.Index(np.arange(60) / 4),
    }


@pytest.mark.parametrize("kind", range(10))
def test_frames_come_back_with_the_index_that_follows(kind):
    pd = pytest.importorskip("pandas")
    index = list(indexes().values())[kind]
    values = walk(0, 60, 2)
    frame = pd.DataFrame(values, index=index, columns=["a", "b"])
    expected = small().fit(values[:50]).predict(10)
    forecaster = small().fit(frame[:50])
    found = forecaster.predict(10)
    pd.testing.assert_frame_equal(
        found, pd.DataFrame(expected, index[50:], ["a", "b"]), check_freq=False
    )
    lower, upper = forecaster.predict_interval(2, coverage=0.5)
    for one in (lower, upper):
        assert one.index.equals(index[50:52])
    assert ((lower < found[:2]) & (found[:2] < upper)).all(axis=None)

    for ends in ((50, 51), (51, 51), (51, 57)):
        forecaster.update(frame[slice(*ends)])
    assert forecaster.predict(3).index.equals(index[57:60])
    assert forecaster.update(frame[57:58].to_numpy()).predict(2).index.equals(index[58:60])
    window = forecaster.predict(2, last_window=frame[20:40])
    assert window.index.equals(index[40:42])
    with pytest.raises(ValueError, match="y_new: expected the index to go on with"):
        forecaster.update(frame[57:60])


def test_a_series_of_pandas():
    pd = pytest.importorskip("pandas")
    series = pd.Series(walk(1, 40), pd.date_range("2020", periods=40, freq="D"), name="load")
    forecaster = small().fit(series.iloc[:36])
    found = forecaster.predict(4)
    assert type(found) is pd.Series
    assert found.name == "load"
    assert found.index.equals(series.index[36:])
    pd.testing.assert_series_equal(pickle.loads(pickle.dumps(forecaster)).predict(4), found)
    np.testing.assert_array_equal(found, small().fit(series.iloc[:36].to_numpy()).predict(4))
    with pytest.raises(
        ValueError,
        match=r"y: expected an index that goes up in even steps.* got DatetimeIndex of 39 from "
        r"2020-01-01 00:00:00 to 2020-02-09 00:00:00; or pass y\.to_numpy",
    ):
        small().fit(series.iloc[[*range(20), *range(21, 40)]])
    with pytest.raises(ValueError, match=r"y\[1\]: expected an index that goes up in even steps"):
        small().fit([series, series.iloc[::-1]])
    with pytest.raises(ValueError, match="y: expected an index that goes up in even steps"):
        small().fit(series.set_axis([f"day {n}" for n in range(40)]))
    both = small().fit([series, series.iloc[:30].rename("other")]).predict(2)
    assert [one.name for one in both] == ["load", "other"]
    assert both[1].index.equals(series.index[30:32])


def test_exogenous_frames():
    pd = pytest.importorskip("pandas")
    index = pd.date_range("2020", periods=50, freq="D")
    y = pd.DataFrame(walk(2, 50, 1), index, ["y"])
    X = pd.DataFrame(walk(3, 50, 2), index, ["sun", "wind"])
    forecaster = small().fit(y[:40], X[:40])
    assert forecaster.n_features_in_ == 2
    found = forecaster.predict(5, X_future=X[40:45])
    plain = small().fit(y[:40].to_numpy(), X[:40].to_numpy())
    np.testing.assert_array_equal(found, plain.predict(5, X_future=X[40:45].to_numpy()))
    other = X[40:45] + 1
    assert np.abs(forecaster.predict(5, X_future=other) - found).to_numpy().min() > 0
    cases = {
        r"X_future: expected the columns \['sun', 'wind'\], got \['wind', 'sun'\]": X[
            ["wind", "sun"]
        ][40:45],
        "X_future: expected the index to go on with 2020-02-10": X[39:44],
        "X_future: expected 5 steps, got 4": X[40:44],
        "X_future: fit had X, so expected values of 5 steps, got None": None,
        "X_future: expected 2 columns, as in fit, got 1": X[40:45].to_numpy()[:, 0],
    }
    for message, given in cases.items():
        with pytest.raises(ValueError, match=message):
            forecaster.predict(5, X_future=given)
    with pytest.raises(ValueError, match="X: expected the index of y, got one from"):
        small().fit(y[:40], X[1:41])
    with pytest.raises(ValueError, match=r"y_new: expected the columns \['y'\], got \['z'\]"):
        forecaster.update(y[40:].rename(columns={"y": "z"}), X[40:])
    with pytest.raises(ValueError, match="X_new: fit had X"):
        forecaster.update(y[40:])
    assert forecaster.predict(5, X_future=X[40:45]).equals(found)  # nothing was changed
    with pytest.raises(ValueError, match="last_window: expected the columns"):
        forecaster.predict(1, last_window=y.rename(columns={"y": "z"}), X_window=X)


def test_plain_lists_of_numbers():
    y = walk(4, 40)
    expected = small().fit(y).predict(3)
    np.testing.assert_array_equal(small().fit(y.tolist()).predict(3), expected)
    np.testing.assert_array_equal(small().fit([y.tolist()]).predict(3)[0], expected)
    whole = np.random.default_rng(0).integers(0, 9, 40)
    np.testing.assert_array_equal(
        small().fit(whole).predict(3), small().fit(whole.astype(float)).predict(3)
    )


def test_a_constant_series_and_a_constant_column():
    np.testing.assert_allclose(small().fit(np.full(40, 7.0)).predict(3), 7, atol=0.5)
    y = np.column_stack([walk(5, 40), np.full(40, 3.0)])
    found = small(difference=1).fit(y).predict(3)
    assert np.isfinite(found).all()


Y = walk(6, 40)
GAP = np.where(np.arange(40) == 17, np.nan, Y)
BAD_FITS = [
    ({}, (GAP,), "y: expected finite numbers, got nan at step 17"),
    ({}, (np.where(np.arange(40) == 3, -np.inf, Y),), "y: expected finite numbers, got -inf at"),
    ({}, ([Y, GAP],), r"y\[1\]: expected finite numbers, got nan at step 17"),
    ({}, (Y, GAP), "X: expected finite numbers, got nan at step 17"),
    ({}, (Y[:2],), "y: expected at least 3 training steps"),
    ({}, ([],), "y: expected at least"),
    ({}, ([Y, Y[:3]],), r"y\[1\]: expected at least .* training steps"),
    ({"difference": (1, 12)}, (Y[:19],), "y: expected at least 16 training steps, for 1 ahead and "
        "differences over 13"),
    ({"strategy": "direct", "horizon": 9}, (Y,), "9 held-out ones, got 32 and 8"),
    ({}, (Y.reshape(2, 4, 5),), r"y: expected shape \(T,\) or \(T, k\), or a list of such series"),
    ({}, (np.float64(3),), "y: expected shape"),
    ({}, (Y.reshape(40, 1)[:, :0],), "y: expected at least one column"),
    ({}, ([Y, Y.reshape(20, 2)],), r"y\[1\]: expected 1 columns, as in fit, got 2"),
    ({}, (Y, Y[:39]), "X: expected 40 steps, got 39"),
    ({}, ([Y, Y], Y), "X: expected a list for each of 2 series, got ndarray"),
    ({}, ([Y, Y], [Y]), "X: expected a list for each of 2 series, got 1"),
    ({"log": True}, (Y - 30,), "y: expected values above 0 for log=True, got -"),
    ({"strategy": "both"}, (Y,), 'strategy: expected "recursive" or "direct"'),
    ({"strategy": "direct"}, (Y,), "horizon: expected a number of steps"),
    ({"horizon": 0}, (Y,), "horizon: expected 1 to"),
    ({"difference": "season"}, (Y,), 'difference: expected "auto", None or lags'),
    ({"difference": 0}, (Y,), "difference: expected 1 to"),
    ({"difference": (1, -2)}, (Y,), "difference: expected 1 to"),
    ({"validation_fraction": 1}, (Y,), "validation_fraction: expected a number in"),
    ({"validation_fraction": 0}, (Y,), "validation_fraction: expected above 0 for early_stopping"),
    ({"window": 0}, (Y,), "window: expected 1 to"),
    ({"max_epochs": 0}, (Y,), "max_epochs: expected 1 to"),
    ({"lr": -1}, (Y,), "lr: expected a finite number in"),
    ({"hidden_size": 0}, (Y,), "hidden_size: expected 1 to"),
    ({"cell": "qrnn"}, (Y,), 'cell: expected "lstm", "gru" or "rnn"'),
    ({"dtype": "int8"}, (Y,), "dtype: expected float32 or float64"),
    ({"threads": 0}, (Y,), "threads: expected 1 to"),
    ({"random_state": -1}, (Y,), "Seed must be"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "arguments", "message"), BAD_FITS, ids=[m for *_, m in BAD_FITS]
)
def test_what_fit_refuses(options, arguments, message):
    forecaster = small(**options)
    with pytest.raises(ValueError, match=message):
        forecaster.fit(*arguments)
    assert not hasattr(forecaster, "model_")


@pytest.mark.parametrize(
    ("value", "name"),
    [("a", "y"), (1.5, "window"), ("yes", "log"), (None, "early_stopping"), (2.0, "horizon")],
)
def test_wrong_types(value, name):
    if name == "y":
        with pytest.raises(TypeError, match="y: expected real or integer numbers"):
            small().fit(np.array([value] * 40))
        return
    with pytest.raises(TypeError, match=f"{name}: expected"):
        small(**{name: value}).fit(Y)


def test_what_later_calls_refuse():
    one, direct = small().fit(Y), small(strategy="direct", horizon=3).fit(Y, Y)
    several = small().fit([Y, Y])
    calls = [
        (lambda: one.predict(0), "horizon: expected 1 to"),
        (lambda: one.predict(), "horizon: expected a number of steps, here or in the constructor"),
        (lambda: one.predict(2, X_future=Y[:2]), "X_future: fit had no X, so expected None"),
        (lambda: one.predict(2, X_window=Y), "X_window: expected None without last_window"),
        (lambda: one.predict(2, last_window=[]), "last_window: expected at least"),
        (lambda: one.predict(2, last_window=GAP), "last_window: expected finite numbers"),
        (lambda: one.predict(2, last_window=Y.reshape(20, 2)), "last_window: expected 1 columns"),
        (lambda: several.predict(2, last_window=Y[:2]), "last_window: expected at least 3 steps"),
        (lambda: direct.predict(4, X_future=Y[:4]), "horizon: expected at most the 3 of fit"),
        (lambda: direct.predict(2, X_future=Y[:2]), "X_future: expected 3 steps, got 2"),
        (lambda: direct.predict(2, last_window=Y, X_future=Y[:3]), "X_window: fit had X, so"),
        (lambda: one.update(GAP), "y_new: expected finite numbers, got nan at step 17"),
        (lambda: one.update(Y.reshape(20, 2)), "y_new: expected 1 columns, as in fit, got 2"),
        (lambda: one.update(Y, Y), "X_new: fit had no X"),
        (lambda: direct.update(Y), "X_new: fit had X, so expected values of 40 steps, got None"),
        (lambda: several.update(Y), "y_new: expected a list for each of 2 series, got ndarray"),
        (lambda: several.update([Y]), "y_new: expected a list for each of 2 series, got 1"),
        (lambda: several.update([Y, GAP]), r"y_new\[1\]: expected finite numbers"),
        (lambda: direct.score(Y[:4], Y[:4]), "horizon: expected at most the 3 of fit"),
    ]  # fmt: skip
    before = one.predict(3), several.predict(3)
    for call, message in calls:
        with pytest.raises(ValueError, match=message):
            call()
    np.testing.assert_array_equal(one.predict(3), before[0])
    np.testing.assert_array_equal(several.predict(3), before[1])
    with pytest.raises(TypeError, match="horizon: expected a whole number"):
        one.predict(2.0)


def test_parameters_that_are_set_later_wait_for_the_next_fit():
    forecaster = small(strategy="direct", horizon=3).fit(Y)
    expected = forecaster.predict(2)
    forecaster.set_params(strategy="recursive", threads=1, log=True)
    np.testing.assert_array_equal(forecaster.predict(2), expected)
    with pytest.raises(ValueError, match="horizon: expected at most the 3 of fit"):
        forecaster.predict(4)


def test_progress_is_displayed_on_demand(capsys):
    small(verbose=True).fit(Y)
    assert "epoch 2/2" in capsys.readouterr().out
    small().fit(Y)
    assert capsys.readouterr().out == ""
