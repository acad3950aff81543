"""The estimators among scikit-learn's tools."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from fastlstm.sklearn import LSTMClassifier, LSTMRegressor

SMALL = {"hidden_size": 6, "max_epochs": 2, "batch_size": 8, "random_state": 1}


@pytest.fixture
def x(rng):
    return [rng.standard_normal((count, 2)) for count in rng.integers(3, 9, 24)]


@pytest.fixture
def y():
    return np.arange(24) % 2


def padded(arrays):
    result = np.full((len(arrays), 9, 2), np.nan)
    for row, array in zip(result, arrays, strict=True):
        row[: len(array)] = array
    return result, np.array([len(array) for array in arrays])


def test_a_clone_is_not_fitted(x, y):
    model = LSTMClassifier(**SMALL, class_weight={0: 1.0, 1: 2.0}, dtype=np.float64)
    twin = clone(model.fit(x, y))
    assert twin.get_params() == model.get_params()
    assert not hasattr(twin, "classes_")


def test_a_search_over_lists(x, y):
    """Each fold is fitted on the sequences of a list, and scored on the others."""
    grid = {"hidden_size": [3, 6], "cell": ["lstm", "gru"]}
    search = GridSearchCV(LSTMClassifier(**SMALL), grid, cv=3).fit(x, y)
    assert set(search.best_params_) == set(grid)
    best = LSTMClassifier(**(SMALL | search.best_params_)).fit(x, y)
    np.testing.assert_array_equal(search.predict_proba(x), best.predict_proba(x))
    scores = cross_val_score(LSTMRegressor(**SMALL), x, y, cv=KFold(3))
    wanted = []
    for train, test in KFold(3).split(x):
        model = LSTMRegressor(**SMALL).fit([x[k] for k in train], y[train])
        wanted.append(model.score([x[k] for k in test], y[test]))
    np.testing.assert_array_equal(scores, wanted)


def test_pipelines(x, y, rng):
    class Differences(TransformerMixin, BaseEstimator):
        def fit(self, X, y=None):
            return self

        def transform(self, X):
            return [np.diff(one, axis=0) for one in X]

    pipeline = make_pipeline(Differences(), LSTMClassifier(**SMALL)).fit(x, y)
    wanted = LSTMClassifier(**SMALL).fit([np.diff(one, axis=0) for one in x], y)
    np.testing.assert_array_equal(
        pipeline.decision_function(x), wanted.decision_function([np.diff(one, axis=0) for one in x])
    )
    wide, lengths = padded(x)
    pipeline = make_pipeline(FunctionTransformer(), LSTMClassifier(**SMALL))
    pipeline.fit(wide, y, lstmclassifier__lengths=lengths)
    assert pipeline.predict(wide, lengths=lengths).shape == (24,)


def test_set_output_changes_nothing(rng, y):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(rng.standard_normal((24, 4)), columns=list("abcd"))
    pipeline = make_pipeline(StandardScaler(), LSTMClassifier(**SMALL))
    wanted = pipeline.fit(table.to_numpy(), y).predict_proba(table.to_numpy())
    pipeline.set_output(transform="pandas").fit(table, y)
    np.testing.assert_array_equal(pipeline.predict_proba(table), wanted)
    assert pipeline[-1].feature_names_in_.tolist() == list("abcd")


def test_metadata_are_routed(x, y):
    wide, lengths = padded(x)
    weight = np.arange(24.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = LSTMClassifier(**SMALL).set_fit_request(lengths=True, sample_weight=True)
        model.set_score_request(lengths=True, sample_weight=False)
        search = GridSearchCV(model, {"hidden_size": [4]}, cv=2)
        search.fit(wide, y, lengths=lengths, sample_weight=weight)
        found = search.predict_proba(list(x))
    wanted = LSTMClassifier(**(SMALL | {"hidden_size": 4})).fit(x, y, weight).predict_proba(x)
    np.testing.assert_array_equal(found, wanted)


# Callbacks of scikit-learn.


def test_epochs_are_told_to_callbacks(x, y):
    pytest.importorskip("sklearn.callback")
    calls, kept = [], []

    class Watch:
        def setup(self, estimator, context):
            calls.append("setup")

        def teardown(self, estimator, context):
            calls.append("teardown")

        def on_fit_task_begin(self, estimator, context, *, X=None):
            assert X is x
            calls.append(("begin", context.task_name, context.task_id))

        def on_fit_task_end(self, estimator, context, *, y=None, fitted_estimator=None):
            calls.append(("end", context.task_name, fitted_estimator.score(x, y)))
            kept.append(fitted_estimator)
            return context.task_id == 1 and context.task_name == "epoch"

    model = LSTMClassifier(**(SMALL | {"max_epochs": 5})).set_callbacks(Watch())
    model.fit(x, y)
    assert model.n_iter_ == 2  # it asked to stop
    assert calls[0] == "setup"
    assert calls[-1] == "teardown"
    assert [call[:2] for call in calls[1:-1]] == [
        ("begin", "fit"),
        *[("begin", "epoch"), ("end", "epoch")] * 2,
        ("end", "fit"),
    ]
    for epochs, one in enumerate(kept[:2], 1):
        own = LSTMClassifier(**(SMALL | {"max_epochs": epochs})).fit(x, y)
        np.testing.assert_array_equal(one.predict_proba(x), own.predict_proba(x))
    np.testing.assert_array_equal(kept[2].predict_proba(x), model.predict_proba(x))
    assert kept[0].partial_fit(x, y).loss_curve_ != model.loss_curve_  # a copy may go on
    np.testing.assert_array_equal(kept[2].predict_proba(x), model.predict_proba(x))


def test_callbacks_of_a_search_and_scores(x, y):
    callback = pytest.importorskip("sklearn.callback")
    wide, lengths = padded(x)
    weight = np.arange(24.0)
    for options in ({}, {"channels_first": True}):
        monitor = callback.ScoringMonitor(scoring="accuracy")
        model = LSTMClassifier(**SMALL, **options).set_callbacks(monitor)
        X = wide.swapaxes(1, 2) if options else wide
        model.fit(X, y, weight, lengths)
        logs = monitor.get_logs().data
        assert len(logs) == 3  # of two epochs, and of the fit
        assert logs[-1]["accuracy"] == model.score(X, y, weight, lengths)
    search = GridSearchCV(LSTMClassifier(**SMALL), {"hidden_size": [3, 4]}, cv=2)
    search.set_callbacks(callback.ScoringMonitor(scoring="accuracy")).fit(x, y)
    assert search.best_score_ > 0


def test_estimators_work_without_callbacks(tmp_path):
    """scikit-learn before 1.9 has none."""
    code = (
        "import sys, sklearn.metrics, sklearn.model_selection\n"
        "sys.modules['sklearn.callback'] = None\n"
        "from fastlstm.sklearn import LSTMRegressor\n"
        "import numpy as np\n"
        "model = LSTMRegressor(3, max_epochs=2).fit(np.ones((4, 3, 2)), np.arange(4))\n"
        "print(model.n_iter_, hasattr(model, 'set_callbacks'))"
    )
    assert run(code).stdout.split() == ["2", "False"]


# The door.


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        text=True,
    )


def test_the_package_does_not_import_scikit_learn():
    code = "import sys, fastlstm; print('sklearn' in sys.modules, fastlstm.sklearn.__name__)"
    assert run(code).stdout.split() == ["False", "fastlstm.sklearn"]


def test_what_is_missing_is_said():
    done = run("import sys; sys.modules['sklearn'] = None; import fastlstm.sklearn")
    assert done.stderr.splitlines()[-1] == (
        'ImportError: fastlstm.sklearn needs scikit-learn: pip install "fastlstm[sklearn]"'
    )
