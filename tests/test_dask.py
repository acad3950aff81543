"""Predictions by Dask have the bits of one process, whatever the chunks and the scheduler."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from compare import assert_same_bits

import fastlstm as fl
from fastlstm import training

da = pytest.importorskip("dask.array")
db = pytest.importorskip("dask.bag")
distributed = pytest.importorskip("distributed")

T, FEATURES = 9, 3
LENGTHS = 9, 1, 5, 0, 7, 3, 9, 2, 4, 6, 8
ROWS = 4, 6, 1  # of chunks


@pytest.fixture(scope="module")
def client():
    """Two workers, processes of their own."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as one,
    ):
        yield one


@pytest.fixture
def by_client(client):
    with client.as_current():
        yield client


@pytest.fixture
def x(rng):
    return rng.standard_normal((len(LENGTHS), T, FEATURES))


def tagger(**options):
    """Of every step; both directions, two layers."""
    return fl.Sequential(
        fl.LSTM(FEATURES, 5, 2, bidirectional=True, rng=0, **options), fl.Linear(10, 2, rng=0)
    )


def classifier():
    return fl.Sequential(fl.GRU(FEATURES, 5, rng=0), fl.Last(), fl.Linear(5, 4, rng=0))


class Own(fl.Module):
    """A module of one's own, without a recurrent layer and without threads."""

    def __call__(self, x):
        return np.asarray(x, np.float32).sum(axis=1)

    def forward(self, x):
        return self(x), x


class OwnRecurrent(fl.Module):
    """A recurrent one, whose calls have no threads either."""

    is_recurrent = True

    def __call__(self, x, state=None):
        return np.asarray(x, np.float32).cumsum(axis=1), None

    def forward(self, x, state=None):
        return self(x, state), x


MODELS = {
    "tagger": tagger,
    "batch first": lambda: tagger(batch_first=True),
    "classifier": classifier,
    "LSTM": lambda: fl.LSTM(FEATURES, 6, rng=0),
}


def chunked(array):
    """In the chunks `ROWS`."""
    return da.from_array(array, chunks=(ROWS, *((size,) for size in array.shape[1:])))


def expected(model, x, **options):
    trainer = training.Trainer(model, "mse", fl.optim.SGD(0.1))
    return trainer.predict(x, **options)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("options", [(), ("lengths",), ("mask",), ("lengths", "mask")], ids=str)
def test_an_array_has_the_bits_of_one_process(rng, x, model, options):
    model = MODELS[model]()
    given = {"lengths": np.array(LENGTHS), "mask": rng.random((len(LENGTHS), T)) < 0.7}
    given = {name: given[name] for name in options}
    wanted = expected(model, x, **given)
    for form in (lambda one: one, lambda one: da.from_array(one, chunks=3), chunked):
        rows = {name: form(one) for name, one in given.items()}
        result = fl.dask.predict(model, chunked(x), batch_size=2, **rows)
        assert result.shape == wanted.shape
        assert result.dtype == result._meta.dtype == wanted.dtype
        assert result.chunks == (ROWS, *((size,) for size in wanted.shape[1:]))
        assert_same_bits(result.compute(scheduler="threads"), wanted)


def test_a_float64_model_of_one_step(x):
    model = fl.LSTM(FEATURES, 6, dtype=np.float64, rng=0)
    result = fl.dask.predict(model, chunked(x[:, :1]))
    assert_same_bits(result.compute(scheduler="sync"), expected(model, x[:, :1]))


def test_chunks_of_unknown_sizes_of_which_one_is_empty(x):
    model, X, lengths = tagger(), chunked(x), chunked(np.array(LENGTHS))
    kept = np.array(LENGTHS) < 8
    X, lengths = X[chunked(kept)], lengths[chunked(kept)]
    assert np.isnan(X.shape[0])
    result = fl.dask.predict(model, X, lengths=lengths).compute(scheduler="sync")
    assert_same_bits(result, expected(model, x[kept], lengths=np.array(LENGTHS)[kept]))
    with pytest.raises(ValueError, match=r"^lengths: expected a dask array in the 3 chunks of X"):
        fl.dask.predict(model, X, lengths=LENGTHS)
    with pytest.raises(ValueError, match=r"^lengths: expected a dask array in the 3 chunks of X"):
        fl.dask.predict(model, X, lengths=da.ones(11, dtype=int, chunks=11))


def test_an_embedding_reads_an_array_without_features(rng):
    model = fl.Sequential(fl.Embedding(7, 4, rng=0), fl.RNN(4, 5, rng=0), fl.Pool("mean"))
    x = rng.integers(7, size=(11, T))
    result = fl.dask.predict(model, chunked(x), lengths=LENGTHS)
    assert_same_bits(
        result.compute(scheduler="sync"), expected(model, x, lengths=np.array(LENGTHS))
    )


@pytest.mark.parametrize("model", MODELS)
def test_a_bag_has_the_results_of_each_sequence_alone(x, model):
    model = MODELS[model]()
    sequences = [one[:length] for one, length in zip(x, LENGTHS, strict=True) if length]
    bag = db.from_sequence(sequences, npartitions=4).filter(lambda one: len(one) != 3)
    results = fl.dask.predict(model, bag).compute(scheduler="sync")
    alone = [expected(model, [one])[0] for one in sequences if len(one) != 3]
    assert len(results) == len(alone) == 9
    for result, one in zip(results, alone, strict=True):
        assert_same_bits(result, one)
    nothing = bag.filter(lambda one: False)
    assert fl.dask.predict(model, nothing).compute(scheduler="sync") == []


# What tasks share.


class Sent:
    """A count of the copies of an estimator that were made for other processes."""

    copies = 0


class Counted:
    """An estimator that counts how often it is pickled."""

    def __repr__(self):  # in the names of tests, which are the same in every process
        return "Counted()"

    def predict(self, X):
        return np.asarray(X).sum(axis=(1, 2))

    def __getstate__(self):
        Sent.copies += 1
        return {}

    def __deepcopy__(self, memo):
        return self


def test_the_model_is_one_key_of_the_graph(x):
    model = fl.LSTM(FEATURES, 64, rng=0)
    size = sum(array.nbytes for array in model.parameters().values())
    for parts in (chunked(x), da.from_array(x, chunks=(1, T, FEATURES))):
        graph = fl.dask.predict(model, parts).dask
        assert size < len(pickle.dumps(graph)) < 1.3 * size + 10_000
    one, other = (fl.dask.predict(model, chunked(x)) for _ in range(2))
    assert len(pickle.dumps((one + other).dask)) > 2 * size  # each has a model of its own


def test_workers_get_the_model_once(x, by_client):
    Sent.copies = 0
    results = fl.dask.predict(Counted(), da.from_array(x, chunks=(1, T, FEATURES)))
    sent = Sent.copies
    assert 1 <= sent <= 2
    np.testing.assert_allclose(results.compute(), x.sum(axis=(1, 2)))
    assert Sent.copies == sent  # the graph has none
    assert len(pickle.dumps(results.dask)) < 50_000 + x.nbytes


def test_training_later_does_not_change_the_result(x):
    model = classifier()
    wanted = expected(model, x)
    result = fl.dask.predict(model, chunked(x))
    model.load_state_dict({name: 0 * one for name, one in model.state_dict().items()})
    assert_same_bits(result.compute(scheduler="sync"), wanted)


@pytest.mark.parametrize("threads", [1, 3, None])
def test_how_many_threads_a_task_has(x, monkeypatch, threads):
    seen = []
    call = fl.LSTM.__call__

    def spy(*arguments, threads=None, **options):
        seen.append(threads)
        return call(*arguments, threads=threads, **options)

    monkeypatch.setattr(fl.LSTM, "__call__", spy)
    given = {} if threads == 1 else {"threads": threads}
    fl.dask.predict(fl.LSTM(FEATURES, 5), chunked(x), **given).compute(scheduler="sync")
    assert set(seen) == {threads}


def test_estimators_get_the_threads_too(x):
    class Estimator:
        threads, inner__threads, other = 5, 6, 7

        def get_params(self):
            return {name: getattr(self, name) for name in ("threads", "inner__threads", "other")}

        def set_params(self, **params):
            for name, value in params.items():
                setattr(self, name, value)

        def predict_proba(self, X, lengths=None):
            row = [self.threads, self.inner__threads, self.other, lengths is not None]
            return np.tile(np.array(row, np.int16), (len(X), 1))

        predict = predict_proba

    own = Estimator()
    for options, wanted in (
        ({}, [1, 1, 7, 0]),
        ({"threads": 2, "lengths": LENGTHS}, [2, 2, 7, 1]),
        ({"threads": None}, [5, 6, 7, 0]),
    ):
        result = fl.dask.predict(own, chunked(x), method="predict_proba", **options)
        assert (result.dtype, result.shape) == (np.int16, (11, 4))
        assert (result.compute(scheduler="sync") == wanted).all()
    assert own.threads == 5
    with pytest.raises(ValueError, match=r"^mask: Estimator.predict has none, so expected None"):
        fl.dask.predict(own, chunked(x), mask=np.ones((11, T), bool))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "predict_steps"])
def test_a_fitted_classifier(x, method):
    pytest.importorskip("sklearn")
    from fastlstm.sklearn import LSTMClassifier

    labels = np.array(list("abcabcabcab"))
    own = LSTMClassifier(4, max_epochs=2, random_state=0, threads=2).fit(x, labels)
    lengths = np.maximum(LENGTHS, 1)
    for options in ({}, {"lengths": lengths}):
        wanted = getattr(own, method)(x, **options)
        result = fl.dask.predict(own, chunked(x), method=method, **options)
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        assert (result.compute(scheduler="threads") == wanted).all()
    sequences = [one[:length] for one, length in zip(x, lengths, strict=True)]
    bag = fl.dask.predict(own, db.from_sequence(sequences, npartitions=3), method=method)
    for one, alone in zip(bag.compute(scheduler="sync"), sequences, strict=True):
        assert np.array_equal(one, getattr(own, method)([alone])[0])


def test_a_classifier_that_is_not_fitted(x):
    exceptions = pytest.importorskip("sklearn.exceptions")
    from fastlstm.sklearn import LSTMClassifier

    with pytest.raises(exceptions.NotFittedError, match="LSTMClassifier"):
        fl.dask.predict(LSTMClassifier(), chunked(x))


@pytest.mark.parametrize("kind", [Own, OwnRecurrent])
def test_a_module_of_ones_own(x, kind):
    result = fl.dask.predict(kind(), chunked(x))
    assert_same_bits(result.compute(scheduler="sync"), expected(kind(), x))


# Two processes.


def test_twenty_thousand_sequences_by_two_workers(rng, by_client):
    x = rng.standard_normal((20_000, 8, FEATURES), np.float32)
    lengths = rng.integers(1, 9, len(x))
    for model, options in ((classifier(), {}), (tagger(), {"lengths": lengths})):
        X = da.from_array(x, chunks=(1_700, -1, -1))
        result = fl.dask.predict(model, X, batch_size=256, **options).compute()
        assert_same_bits(result, expected(model, x, batch_size=100, **options))
    assert len(by_client.scheduler_info()["workers"]) == 2


def test_a_bag_by_two_workers(x, by_client):
    model = tagger()
    sequences = [one[:length] for one, length in zip(x, LENGTHS, strict=True) if length]
    results = fl.dask.predict(model, db.from_sequence(sequences, npartitions=4)).compute()
    for result, one in zip(results, sequences, strict=True):
        assert_same_bits(result, expected(model, [one])[0])


# What does not fit.


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": np.ones((4, 3, 3))}, TypeError, "X: expected a dask array or bag, got ndarray"),
        ({"X": da.ones(4)}, ValueError, r"X: expected shape \(N, T, ...\), got \(4,\)"),
        (
            {"X": da.ones((4, 6, 3), chunks=(2, 3, 3))},
            ValueError,
            r"X: expected chunks along axis 0 alone, got 2 along axis 1: X.rechunk\(\{1: -1\}\)",
        ),
        (
            {"X": da.ones((4, 6, 3), chunks=(2, 6, 1))},
            ValueError,
            r"X: expected chunks along axis 0 alone, got 3 along axis 2: X.rechunk\(\{2: -1\}\)",
        ),
        ({"X": da.ones((4, 6, 5))}, ValueError, "x: expected shape"),
        ({"model": 3}, TypeError, "model: expected a Module or a fitted estimator, got int"),
        ({"method": "predict_proba"}, ValueError, "method: a Module has only 'predict'"),
        ({"model": Counted(), "method": "score"}, ValueError, "method: expected one of Counted"),
        ({"model": Counted(), "batch_size": 3}, ValueError, "batch_size: an estimator has its"),
        ({"batch_size": 0}, ValueError, "batch_size: expected"),
        ({"threads": 0}, ValueError, "threads: expected"),
        ({"threads": 1.5}, TypeError, "threads: expected"),
        ({"lengths": [6, 6, 6]}, ValueError, r"lengths: expected shape \(4,\), got \(3,\)"),
        ({"lengths": [[6]] * 4}, ValueError, r"lengths: expected shape \(4,\), got \(4, 1\)"),
        ({"lengths": np.ones(4)}, TypeError, "lengths: expected whole numbers, got dtype float64"),
        ({"mask": np.ones((4, 6), complex)}, TypeError, "mask: expected bools, .* complex128"),
        ({"mask": np.ones(4, bool)}, ValueError, r"mask: expected shape \(4, 6\), got \(4,\)"),
        ({"mask": np.ones((4, 5), bool)}, ValueError, r"mask: expected shape \(4, 6\), got"),
    ],
    ids=str,
)
def test_what_does_not_fit(change, error, message):
    given = {"model": tagger(), "X": da.ones((4, 6, 3), chunks=(2, 6, 3)), **change}
    with pytest.raises(error, match=f"^{message}"):
        fl.dask.predict(given.pop("model"), given.pop("X"), **given)


def test_lengths_beyond_the_steps():
    result = fl.dask.predict(tagger(), da.ones((4, 6, 3)), lengths=[6, 7, 1, 1])
    with pytest.raises(ValueError, match=r"^lengths: expected 0 to 6, got 1 to 7$"):
        result.compute(scheduler="sync")


@pytest.mark.parametrize("kind", [int, np.float32])
def test_a_mask_of_0_and_1(rng, x, kind):
    mask, model = rng.random((len(LENGTHS), T)) < 0.7, tagger()
    wanted = expected(model, x, mask=mask)
    for form in (lambda one: one, chunked):
        result = fl.dask.predict(model, chunked(x), mask=form(mask.astype(kind)))
        assert_same_bits(result.compute(scheduler="sync"), wanted)
    result = fl.dask.predict(model, chunked(x), mask=2 * mask)
    with pytest.raises(ValueError, match="mask: expected only 0 and 1, got 2"):
        result.compute(scheduler="sync")


@pytest.mark.parametrize("name", ["lengths", "mask"])
def test_a_bag_has_lengths_of_its_own(name):
    bag = db.from_sequence([np.ones((3, FEATURES))])
    with pytest.raises(ValueError, match=f"^{name}: X is a bag, so expected None"):
        fl.dask.predict(tagger(), bag, **{name: [3]})


def test_without_dask(tmp_path):
    (tmp_path / "dask.py").write_text("raise ModuleNotFoundError(name='dask')")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", "import fastlstm as fl; fl.dask"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr.splitlines()[-1] == (
        'ImportError: fastlstm.dask needs dask: pip install "fastlstm[dask]"'
    )
