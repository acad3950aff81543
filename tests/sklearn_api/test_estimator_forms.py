"""The forms of X, y and lengths, what comes back, and what is refused."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.exceptions import DataConversionWarning, NotFittedError

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

SMALL = {"hidden_size": 5, "max_epochs": 2, "batch_size": 4, "random_state": 0}
COUNTS = np.array([4, 7, 2, 7, 5, 3, 6])


def ragged(rng, channels=3):
    return [rng.standard_normal((count, channels)) for count in COUNTS]


def padded(arrays, T=9, fill=np.nan):
    result = np.full((len(arrays), T, *arrays[0].shape[1:]), fill)
    for row, array in zip(result, arrays, strict=True):
        row[: len(array)] = array
    return result


def logits_of(classifier, x):
    """What the network gives for one sequence, from its parts."""
    scaled = (x - classifier._scaling.mean) / classifier._scaling.scale
    return classifier.model_(scaled[None].astype(np.float32))[0][0]


LABELS = np.array(["b", "a", "b", "c", "a", "c", "b"])


# X.


def test_a_list_and_an_array_with_lengths_are_the_same(rng):
    x = ragged(rng)
    of_list = LSTMClassifier(**SMALL).fit(x, LABELS)
    of_array = LSTMClassifier(**SMALL).fit(padded(x), LABELS, lengths=COUNTS)
    of_objects = np.empty(len(x), object)
    of_objects[:] = x
    wanted = of_list.predict_proba(x)
    for found in (
        of_array.predict_proba(padded(x, 8, 1e30), lengths=COUNTS),
        of_array.predict_proba(x),
        LSTMClassifier(**SMALL).fit(of_objects, LABELS).predict_proba(of_objects),
        of_list.predict_proba([one.tolist() for one in x]),
    ):
        np.testing.assert_array_equal(found, wanted)


def test_channels_first_is_the_transpose(rng):
    x = ragged(rng)
    first = {"channels_first": True}
    wanted = LSTMRegressor(**SMALL).fit(x, COUNTS).predict(x)
    turned = [one.T for one in x]
    found = LSTMRegressor(**SMALL, **first).fit(turned, COUNTS).predict(turned)
    np.testing.assert_array_equal(found, wanted)
    whole = rng.standard_normal((7, 4, 3))
    wanted = LSTMRegressor(**SMALL).fit(whole, COUNTS).predict(whole)
    turned = whole.swapaxes(1, 2)
    found = LSTMRegressor(**SMALL, **first).fit(turned, COUNTS).predict(turned)
    np.testing.assert_array_equal(found, wanted)


def test_a_table_has_one_channel(rng):
    x = rng.standard_normal((7, 4))
    table = LSTMClassifier(**SMALL).fit(x, LABELS)
    cube = LSTMClassifier(**SMALL).fit(x[:, :, None], LABELS)
    rows = LSTMClassifier(**SMALL).fit(list(x), LABELS)
    assert (table.n_features_in_, table.n_channels_in_) == (4, 1)
    assert (cube.n_features_in_, cube.n_channels_in_) == (1, 1)
    assert (rows.n_features_in_, rows.n_channels_in_) == (1, 1)
    wanted = table.predict_proba(x)
    for found in (
        table.predict_proba(x[:, :, None]),
        cube.predict_proba(x),
        cube.predict_proba(list(x)),
        rows.predict_proba(x.tolist()),
    ):
        np.testing.assert_array_equal(found, wanted)
    longer = rng.standard_normal((7, 6))
    assert cube.predict(longer).shape == (7,)
    with pytest.raises(ValueError, match="X has 6 features, but LSTMClassifier is expecting 4"):
        table.predict(longer)
    np.testing.assert_array_equal(table.predict(longer[:, :, None]), cube.predict(longer))


def test_names_of_a_frame_are_kept_until_a_fit_without(rng):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rng.standard_normal((7, 3)), columns=["mo", "tu", "we"])
    classifier = LSTMClassifier(**SMALL).fit(frame, LABELS)
    assert classifier.feature_names_in_.tolist() == ["mo", "tu", "we"]
    classifier.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[["tu", "mo", "we"]])
    assert not hasattr(classifier.fit(frame.to_numpy()[:, :, None], LABELS), "feature_names_in_")


def test_predictions_do_not_depend_on_the_batch(rng):
    x = [rng.standard_normal((count, 3)) for count in rng.integers(1, 30, 300)]
    y = rng.integers(0, 2, 300)
    classifier = LSTMClassifier(9, max_epochs=1, random_state=0, pooling="mean").fit(x[:20], y[:20])
    together = classifier.decision_function(x)
    alone = np.concatenate([classifier.decision_function([one]) for one in x])
    np.testing.assert_array_equal(alone, together)
    wanted = [float(np.diff(logits_of(classifier, one))[0]) for one in x[:5]]
    np.testing.assert_array_equal(together[:5], np.float64(wanted))


# y.


@pytest.mark.parametrize("kind", [str, object, np.int64, np.uint8, bool])
def test_labels_come_back_as_they_are(kind, rng):
    y = (np.arange(8) % 2).astype(bool) if kind is bool else np.arange(8) % 3 * 4
    y = y.astype(str).astype(object) if kind is object else y.astype(kind)
    x = rng.standard_normal((8, 3, 2))
    classifier = LSTMClassifier(**SMALL).fit(x, y)
    assert classifier.classes_.tolist() == sorted(set(y.tolist()))
    labels, proba = classifier.predict(x), classifier.predict_proba(x)
    assert labels.dtype == y.dtype
    np.testing.assert_array_equal(labels, classifier.classes_[proba.argmax(axis=1)])
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-14)


def test_probabilities_are_those_of_the_logits(rng):
    x = ragged(rng)
    classifier = LSTMClassifier(**SMALL).fit(x, LABELS)
    logits = np.float64([logits_of(classifier, one) for one in x])
    np.testing.assert_array_equal(classifier.decision_function(x), logits)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.predict_proba(x), wanted, rtol=1e-6)
    assert classifier.score(x, LABELS) == np.mean(classifier.predict(x) == LABELS)
    assert classifier.score(x, np.full(7, "unseen")) == 0
    two = LSTMClassifier(**SMALL).fit(x, LABELS == "a")
    np.testing.assert_array_equal(two.decision_function(x) > 0, two.predict(x))


@pytest.mark.parametrize("form", ["array", "list", "lengths"])
def test_targets_of_steps(form, rng):
    x = ragged(rng) if form != "array" else [rng.standard_normal((6, 3)) for _ in COUNTS]
    labels = [np.where(one[:, 0] > 0, "up", "down") for one in x]
    numbers = [one[:, :2].cumsum(axis=0) for one in x]
    options = {"lengths": COUNTS} if form == "lengths" else {}
    T = 9 if form == "lengths" else 6

    def given(arrays, fill=np.nan):
        if form == "list":
            return arrays
        result = np.full((len(arrays), T, *arrays[0].shape[1:]), fill, np.array(fill).dtype)
        for row, array in zip(result, arrays, strict=True):
            row[: len(array)] = array
        return result

    X = given(x)
    classifier = LSTMClassifier(**SMALL).fit(X, given(labels, "none"), **options)
    assert classifier.classes_.tolist() == ["down", "up"]
    found, proba = classifier.predict(X, **options), classifier.predict_proba(X, **options)
    steps = classifier.predict_steps(X, **options, proba=True)
    margin = classifier.decision_function(X, **options)
    for k, one in enumerate(x):
        n = len(one)
        logits = logits_of(classifier, one)
        np.testing.assert_array_equal(found[k][:n], classifier.classes_[logits.argmax(axis=1)])
        np.testing.assert_array_equal(steps[k], proba[k])
        np.testing.assert_array_equal(margin[k][:n], np.diff(np.float64(logits))[:, 0])
        assert proba[k][:n].shape == (n, 2)
        if form == "lengths":
            assert (found[k, n:] == "").all()
            assert np.isnan(proba[k, n:]).all()
    right = np.concatenate([a == b[: len(a)] for a, b in zip(labels, found, strict=True)])
    assert classifier.score(X, given(labels, "none"), **options) == pytest.approx(right.mean())

    regressor = LSTMRegressor(**SMALL).fit(X, given(numbers), **options)
    found = regressor.predict(X, **options)
    for k, one in enumerate(x):
        wanted = regressor._target_scaling.undo(logits_of(regressor, one))
        np.testing.assert_array_equal(found[k][: len(one)], wanted)
        assert form != "lengths" or np.isnan(found[k, len(one) :]).all()
    single = LSTMRegressor(**SMALL).fit(X, given([one[:, 0] for one in numbers]), **options)
    assert np.shape(single.predict(X, **options)[0]) == np.shape(X[0])[:1]


def test_several_targets_a_sequence(rng):
    x = rng.standard_normal((40, 6, 2))
    y = np.stack([x[:, -1].sum(axis=1), 1e3 * x[:, -2, 0], np.ones(40)], axis=1)
    regressor = LSTMRegressor(16, random_state=0).fit(x, y)
    assert regressor.n_outputs_ == 3
    found = regressor.predict(x)
    assert found.shape == (40, 3)
    errors = np.abs(found - y).max(axis=0)
    assert (errors < 0.3 * np.array([y[:, 0].std(), y[:, 1].std(), 1])).all()
    column = LSTMRegressor(**SMALL)
    with pytest.warns(DataConversionWarning):
        column.fit(x, y[:, :1])
    assert column.predict(x).shape == (40,)
    as_list = LSTMRegressor(**SMALL).fit(list(x), np.repeat(y, 2, axis=1))  # six of six steps
    assert as_list.predict(list(x)).shape == (40, 6)


def test_a_list_for_each_step_of_a_list(rng):
    """Also nested lists of equal lengths, which are an array, too."""
    x = [rng.standard_normal((4, 2)) for _ in range(6)]
    y = [one[:, 0] > 0 for one in x]
    wanted = LSTMClassifier(**SMALL).fit(x, y).predict_proba(x)
    for given in ([one.tolist() for one in y], tuple(y)):
        found = LSTMClassifier(**SMALL).fit(x, given).predict_proba(x)
        np.testing.assert_array_equal(found, wanted)
    assert np.shape(wanted) == (6, 4, 2)
    numbers = LSTMRegressor(**SMALL).fit(x, [[1.0, 2.0, 3.0]] * 6)
    assert numbers.predict(x).shape == (6, 3)


# Every step, of targets of sequences.


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_steps_are_predicted_as_if_the_sequence_ended_there(pooling, bidirectional, rng):
    x = ragged(rng)
    options = {"pooling": pooling, "bidirectional": bidirectional, "dtype": "float64"}
    classifier = LSTMClassifier(**SMALL, **options, dropout=0.1).fit(x, LABELS)
    regressor = LSTMRegressor(**SMALL, **options, num_layers=2).fit(x, COUNTS)
    proba = classifier.predict_steps(padded(x), lengths=COUNTS, proba=True)
    labels = classifier.predict_steps(x)
    values = regressor.predict_steps(x)
    for k, one in enumerate(x):
        beginnings = [one[: n + 1] for n in range(len(one))]
        np.testing.assert_allclose(
            proba[k, : len(one)], classifier.predict_proba(beginnings), rtol=1e-12
        )
        assert np.isnan(proba[k, len(one) :]).all()
        np.testing.assert_array_equal(labels[k], classifier.predict(beginnings))
        np.testing.assert_allclose(values[k], regressor.predict(beginnings), rtol=1e-12)


# What is refused.


@pytest.mark.parametrize("make", [LSTMClassifier, LSTMRegressor])
def test_bad_inputs(make, rng):
    x, y = ragged(rng), np.arange(7) % 2
    estimator = make(**SMALL)
    with pytest.raises(NotFittedError):
        estimator.predict(x)
    estimator.fit(x, y)
    before = estimator.predict(x)
    bad = ragged(rng)
    bad[3][2, 1] = np.nan
    name = make.__name__
    for X, y_bad, options, text in (
        (bad, y, {}, r"Input X contains NaN.\n" + name),
        (padded(x), y, {}, "Input X contains NaN"),
        (padded(bad), y, {"lengths": COUNTS}, "Input X contains NaN"),
        (x, y[:-1], {}, "inconsistent numbers of samples"),
        (x, None, {}, "requires y to be passed, but the target y is None"),
        ([*x[:6], x[0][:, :2]], y, {}, r"X\[6\]: expected 3 channels, as X\[0\], got 2"),
        ([*x[:6], x[0][:0]], y, {}, r"X\[6\]: expected shape \(steps, channels\)"),
        ([*x[:6], x[0][None]], y, {}, r"X\[6\]: expected shape \(steps, channels\)"),
        (x, y, {"lengths": COUNTS}, "lengths: a list of sequences has its own"),
        (padded(x), y, {"lengths": COUNTS[:3]}, r"lengths: expected shape \(7,\)"),
        (padded(x), y, {"lengths": COUNTS - 2}, "lengths: expected 1 to 9, got 0 to 5"),
        (padded(x), y, {"lengths": COUNTS + 3}, "lengths: expected 1 to 9, got 5 to 10"),
        (np.zeros((7, 2, 3, 4)), y, {}, "Found array with dim 4"),
        (np.zeros((7, 0, 3)), y, {}, "at least one step"),
        ([], [], {}, "Expected 2D array, got 1D array"),
        (
            x,
            [np.zeros(count + (k == 2)) for k, count in enumerate(COUNTS)],
            {},
            r"y\[2\]: expected",
        ),
        (x, y, {"sample_weight": np.zeros(7)}, "(?i)sample.weight"),
        (x, y, {"sample_weight": -np.ones(7)}, "sample_weight: expected finite numbers"),
        (x, y, {"sample_weight": np.ones(6)}, "(?i)sample.weight"),
        (x, y, {"X_val": x}, "X_val, y_val: expected both"),
        (x, y, {"lengths_val": COUNTS}, "X_val, y_val: expected both"),
    ):
        with pytest.raises(ValueError, match=text):
            estimator.fit(X, y_bad, **options)
    with pytest.raises(ValueError, match=f"X has 2 features, but {name} is expecting 3 features"):
        estimator.predict([one[:, :2] for one in x])
    np.testing.assert_array_equal(estimator.predict(x), before)  # no fit left a trace


@pytest.mark.parametrize("make", [LSTMClassifier, LSTMRegressor])
def test_bad_validation_sets(make, rng):
    """Errors name the argument that was given, and those of X and y do not change."""
    x, y = ragged(rng), np.arange(7) % 2
    of_steps = [np.arange(count) % 2 for count in COUNTS]
    table = rng.standard_normal((7, 5))
    bad = ragged(rng)
    bad[3][2, 1] = np.nan
    whole, bad_table = padded(x), table.copy()
    bad_table[0, 0] = np.inf
    name = make.__name__
    for X, target, X_val, y_val, options, text in (
        (x, y, bad, y, {}, "Input X_val contains NaN"),
        (x, y, whole, y, {}, "Input X_val contains NaN"),
        (x, y, padded(bad), y, {"lengths_val": COUNTS}, "Input X_val contains NaN"),
        (x, y, [one[:, :2] for one in x], y, {}, f"X_val has 2 features, but {name} is expecting"),
        (x, y, [*x[:6], x[0][:, :2]], y, {}, r"X_val\[6\]: expected 3 channels, as X_val\[0\]"),
        (x, y, [*x[:6], x[0][:0]], y, {}, r"X_val\[6\]: expected shape \(steps, channels\)"),
        (x, y, np.zeros((7, 0, 3)), y, {}, "X_val: expected at least one step"),
        (x, y, np.zeros((7, 2, 3, 4)), y, {}, "X_val: Found array with dim 4"),
        (table, y, table[:, :4], y, {}, f"X_val has 4 features, but {name} is expecting 5"),
        (table, y, bad_table, y, {}, "Input X_val contains infinity"),
        (x, y, x, y, {"lengths_val": COUNTS}, "lengths_val: a list of sequences has its own"),
        (x, y, whole, y, {"lengths_val": COUNTS[:3]}, r"lengths_val: expected shape \(7,\)"),
        (x, y, whole, y, {"lengths_val": COUNTS + 3}, "lengths_val: expected 1 to 9, got 5 to 10"),
        (x, y, x, y[:-1], {}, "y_val: .*inconsistent numbers of samples"),
        (x, y, x, [np.nan, *y[1:]], {}, "Input y_val contains NaN"),
        (x, y, x, np.zeros((7, 2), int), {}, "y_val.*(should be a 1d|expected targets of shape)"),
        (x, y, x, of_steps, {}, "y_val: expected a target for each sequence, as in the fit"),
        (x, of_steps, x, [*of_steps[:6], [0]], {}, r"y_val\[6\]: expected 6 steps, as X_val\[6\]"),
    ):
        with pytest.raises(ValueError, match="^" + text):
            make(**SMALL).fit(X, target, X_val=X_val, y_val=y_val, **options)
    with pytest.raises(TypeError, match=r"^lengths_val: expected integers"):
        make(**SMALL).fit(x, y, X_val=whole, y_val=y, lengths_val=COUNTS / 2)
    with pytest.raises(ValueError, match=r"^Input X contains NaN"):
        make(**SMALL).fit(bad, y, X_val=x, y_val=y)


def test_unknown_labels_of_a_validation_set(rng):
    x, y = ragged(rng), np.arange(7) % 2
    classifier = LSTMClassifier(**SMALL)
    with pytest.raises(ValueError, match=r"^y_val: expected the classes \[0, 1\], got also \[3\]"):
        classifier.fit(x, y, X_val=x, y_val=[3, *y[1:]])
    with pytest.raises(ValueError, match=r"^y_val: Unknown label type"):
        classifier.fit(x, y, X_val=x, y_val=np.linspace(0, 1, 7))
    assert not hasattr(classifier, "model_")


def test_columns_of_a_validation_set(rng):
    pandas = pytest.importorskip("pandas")
    table, y = rng.standard_normal((7, 3)), np.arange(7) % 2
    held_out = pandas.DataFrame(table, columns=["a", "b", "c"])
    classifier = LSTMClassifier(**SMALL).fit(held_out, y, X_val=held_out, y_val=y)
    assert classifier.feature_names_in_.tolist() == ["a", "b", "c"]
    for wrong in (held_out.rename(columns={"c": "d"}), held_out[["b", "a", "c"]]):
        with pytest.raises(ValueError, match=r"^X_val: The feature names should match"):
            classifier.fit(held_out, y, X_val=wrong, y_val=y)


def test_one_class_or_one_sample(rng):
    x = ragged(rng)
    for X, y in ((x, np.ones(7)), (x[:1], ["a"]), (x, [np.zeros(n, int) for n in COUNTS])):
        with pytest.raises(ValueError, match=r"at least 2 classes .* only one class"):
            LSTMClassifier(**SMALL).fit(X, y)
    assert LSTMRegressor(**SMALL).fit(x[:1], [2.5]).predict(x[:1]) == pytest.approx(2.5, abs=1)


def test_bad_targets(rng):
    x = ragged(rng)
    for y, text in (
        (np.zeros((7, 2), int), "y should be a 1d array"),
        (np.linspace(0, 1, 7), "Unknown label type"),
        ([np.nan, *np.zeros(6)], "Input y contains NaN"),
    ):
        with pytest.raises(ValueError, match=text):
            LSTMClassifier(**SMALL).fit(x, y)
    with pytest.raises(ValueError, match="Input y contains infinity"):
        LSTMRegressor(**SMALL).fit(x, [np.inf, *np.zeros(6)])
    whole = rng.standard_normal((7, 4, 3))
    with pytest.raises(ValueError, match="y: expected a target for each of 4 steps"):
        LSTMRegressor(**SMALL).fit(whole, np.zeros((7, 3, 2)))
    of_steps = LSTMRegressor(**SMALL, warm_start=True).fit(whole, whole[:, :, 0])
    for fit in (of_steps.fit, of_steps.partial_fit, of_steps.score):
        with pytest.raises(ValueError, match="y: expected a target for each step, as in the fit"):
            fit(whole, np.arange(7.0))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_layers": 1.5}, "num_layers"),
        ({"bidirectional": 1}, "bidirectional"),
        ({"dropout": 1.0}, "dropout"),
        ({"cell": "LSTM"}, "cell"),
        ({"pooling": "all"}, "pooling"),
        ({"pooling": None}, "pooling"),
        ({"lr": -1.0}, "lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"max_epochs": 0}, "max_epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"early_stopping": "yes"}, "early_stopping"),
        ({"early_stopping": True, "validation_fraction": 0.0}, "validation_fraction"),
        ({"n_iter_no_change": 0}, "n_iter_no_change"),
        ({"tol": -1.0}, "tol"),
        ({"channels_first": 0}, "channels_first"),
        ({"warm_start": 1}, "warm_start"),
        ({"dtype": "int8"}, "dtype"),
        ({"threads": 0}, "threads"),
        ({"verbose": "much"}, "verbose"),
    ],
)
def test_bad_settings(options, text, rng):
    estimator = LSTMRegressor(**(SMALL | options))
    with pytest.raises((ValueError, TypeError), match=rf"^{text}: expected"):
        estimator.fit(ragged(rng), COUNTS)
    assert not hasattr(estimator, "n_channels_in_")
