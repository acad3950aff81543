"""Saliency, integrated gradients and effective memory, by finite differences and known chains."""

import numpy as np
import pytest
from compare import assert_same_bits
from models import Residual
from slopes import slope

import fastlstm as fl
from fastlstm.inspection import effective_memory, integrated_gradients, saliency
from fastlstm.inspection.calls.inference import without_draws

T, B, I, H = 6, 2, 3, 4
F64 = {"dtype": np.float64, "rng": 0}


def lstm(**options):
    return fl.LSTM(I, H, **(F64 | options))


def pooled():
    model = fl.LSTM(I, H, dropout=0.4, num_layers=2, bidirectional=True, **F64)
    return fl.Sequential(fl.Dropout(0.5, rng=0), model, fl.Last(), fl.Linear(2 * H, 3, **F64))


MODELS = {
    "lstm": lstm,
    "dropout": lambda: lstm(num_layers=2, dropout=0.5),
    "recurrent dropout": lambda: lstm(recurrent_dropout=0.5),
    "zoneout": lambda: lstm(zoneout=(0.2, 0.3), bidirectional=True, num_layers=2),
    "zoneout, projection, norm": lambda: lstm(
        zoneout=(0.2, 0.3), proj_size=3, layer_norm=True, peepholes=True, clip=0.8
    ),
    "coupled, learned": lambda: lstm(coupled=True, zoneout=(0.0, 1.0), learn_initial_state=True),
    "gru": lambda: fl.GRU(I, H, batch_first=True, **F64),
    "rnn": lambda: fl.RNN(I, H, 2, **F64),
    "pooled": pooled,
    "own": lambda: Residual(I, rng=0),
    "within": lambda: fl.Sequential(
        fl.Sequential(fl.Dropout(0.9, rng=0), lstm(zoneout=(0.5, 0.1)))
    ),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, B, I))


def output(model, x, **options):
    result = model(x, **options)
    return result[0] if isinstance(result, tuple) else result


def last(model, x, **options):
    """The last output of each row, when all have the same length."""
    y = output(model, x, **options)
    if y.ndim == 2:
        return y
    return y[:, -1] if getattr(model, "batch_first", False) else y[-1]


def test_saliency_is_the_slope_of_a_call(model, x):
    for target, units in ((None, slice(None)), (1, 1), (-1, -1)):
        expected = slope(lambda units=units: last(model, x)[:, units].sum(), x)
        actual = saliency(model, x, target)
        np.testing.assert_allclose(actual, np.abs(expected), rtol=1e-6, atol=1e-8)


def all_arrays(result):
    if isinstance(result, np.ndarray):
        return [result]
    return [array for part in result for array in all_arrays(part)]


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_drawn(name, x):
    """The forward that is differentiated gives a call's result, and no generator moves."""
    model, other = MODELS[name](), MODELS[name]()
    result, expected = without_draws(model).forward(x)[0], model(x)
    for actual, wanted in zip(all_arrays(result), all_arrays(expected), strict=True):
        assert_same_bits(actual, wanted)
    saliency(model, x)
    effective_memory(model, x)
    in_training = zip(all_arrays(model.forward(x)[0]), all_arrays(other.forward(x)[0]), strict=True)
    for actual, wanted in in_training:
        assert_same_bits(actual, wanted)


class Steps(fl.Module):
    """The last h of a cell that is called for each step."""

    def __init__(self):
        self.cell = fl.LSTMCell(I, H, zoneout=(0.2, 0.3), **F64)

    def __call__(self, x):
        state = None
        for step in x:
            state = self.cell(step, state)
        return state[0]

    def forward(self, x):
        state, tapes = None, []
        for step in x:
            state, tape = self.cell.forward(step, state)
            tapes.append(tape)
        return state[0], tapes

    def backward(self, tapes, dh):
        dstate, dx = (dh, 0 * dh), []
        for tape in reversed(tapes):
            grads = self.cell.backward(tape, dstate)
            dstate = grads.state
            dx.insert(0, grads.x)
        return self.collect(x=np.stack(dx), cell=grads)


@pytest.mark.parametrize("shape", [(T, B, I), (T, I)])
def test_a_cell_with_zoneout_in_a_loop(shape, rng):
    x, model = rng.standard_normal(shape), Steps()
    expected = slope(lambda: model(x).sum(), x)

    def target(y):
        return float(y.sum()), np.ones_like(y)

    actual = saliency(model, x, target)
    np.testing.assert_allclose(actual, np.abs(expected), rtol=1e-6, atol=1e-8)


def test_a_function_chooses_the_output(model, x):
    def target(y):
        return float((y**2).sum()), 2 * y

    expected = slope(lambda: (output(model, x) ** 2).sum(), x)
    np.testing.assert_allclose(saliency(model, x, target), abs(expected), rtol=1e-6, atol=1e-8)


def test_ragged_rows_and_a_state(x, rng):
    model, lengths = lstm(), np.array([3, T])
    state = tuple(rng.standard_normal((1, B, H)) for _ in "hc")
    x[3:, 0] = np.nan  # padding

    def function():
        y = model(x, state, lengths=lengths)[0]
        return y[2, 0].sum() + y[-1, 1].sum()

    expected = slope(function, x)
    actual = saliency(model, x, state=state, lengths=lengths)
    np.testing.assert_allclose(actual, np.abs(expected), rtol=1e-6, atol=1e-8)
    assert not actual[3:, 0].any()


@pytest.mark.parametrize("batch_first", [False, True])
def test_one_row_without_a_batch(batch_first, rng):
    x, model = rng.standard_normal((T, I)), lstm(batch_first=batch_first)
    expected = slope(lambda: model(x)[0][-1].sum(), x)
    np.testing.assert_allclose(saliency(model, x), np.abs(expected), rtol=1e-6, atol=1e-8)
    contributions = integrated_gradients(model, x)
    whole = model(x)[0][-1].sum() - model(0 * x)[0][-1].sum()
    np.testing.assert_allclose(contributions.sum(), whole, rtol=1e-8)
    assert effective_memory(model, x).gradient.shape == (T,)


def words():
    table = fl.Embedding(9, I, **F64)
    rest = fl.Sequential(lstm(zoneout=(0.1, 0.2)), fl.Linear(H, 5, **F64))
    return fl.Sequential(table, fl.Dropout(0.5), rest), table, rest


def test_of_indices_it_is_that_of_vectors(rng):
    model, table, rest = words()
    ids, lengths = rng.integers(9, size=(T, B)), np.array([T, 4])
    vectors = table(ids)
    ids[4:, 1] = -1
    of_vectors = saliency(rest, vectors, 3, lengths=lengths)
    of_ids = saliency(model, ids, 3, lengths=lengths)
    np.testing.assert_allclose(of_ids, np.linalg.norm(of_vectors, axis=-1), rtol=1e-12)
    start = table(np.zeros_like(ids))
    expected = integrated_gradients(rest, vectors, start, target=3, lengths=lengths)
    actual = integrated_gradients(model, ids, np.zeros_like(ids), target=3, lengths=lengths)
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-15)
    assert actual.shape == (T, B, I)
    zeros = integrated_gradients(model, ids, target=3, lengths=lengths)
    expected = integrated_gradients(rest, vectors, target=3, lengths=lengths)
    np.testing.assert_allclose(zeros, expected, rtol=1e-10, atol=1e-15)
    a, b = (
        effective_memory(model, ids, lengths=lengths),
        effective_memory(rest, vectors, lengths=lengths),
    )
    np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-10)
    assert a.perturbation.shape == (T,)


@pytest.mark.parametrize("name", [name for name in MODELS if "norm" not in name])
def test_integrated_gradients_are_complete(name, x, rng):
    """Layer norm of few units is too steep for 64 steps, which the warning says."""
    model = MODELS[name]()
    baseline = rng.standard_normal(x.shape)
    contributions = integrated_gradients(model, x, baseline, 64, 1)
    assert contributions.shape == x.shape
    whole = (last(model, x) - last(model, baseline))[:, 1].sum()
    np.testing.assert_allclose(contributions.sum(), whole, rtol=1e-6)


def test_of_a_line_they_are_the_weights_times_x(x):
    model = fl.Linear(I, 3, **F64)
    contributions = integrated_gradients(model, x, 0.25, 1, 2)
    np.testing.assert_allclose(contributions[-1], (x[-1] - 0.25) * model.weight[2])
    assert not contributions[:-1].any()


def test_too_few_steps_are_told(rng):
    model = lstm(rng=1)
    with pytest.warns(UserWarning, match="steps: 1 are too few"):
        integrated_gradients(model, 20 * rng.standard_normal((T, B, I)), steps=1)


def test_in_float32_they_have_its_dtype(x):
    model = fl.Sequential(fl.LSTM(I, H, rng=0), fl.Last(), fl.Linear(H, 2, rng=0))
    x = x.astype(np.float32)
    contributions = integrated_gradients(model, x, target=0)
    whole = (last(model, x) - last(model, 0 * x))[:, 0].sum()
    assert contributions.dtype == np.float32
    np.testing.assert_allclose(contributions.sum(), whole, rtol=1e-4)


def test_they_agree_with_captum(x, rng):
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr")

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(I, H, 2, bidirectional=True)
            self.linear = torch.nn.Linear(2 * H, 3)

        def forward(self, x):  # captum's first axis is that of rows
            return self.linear(self.lstm(x.swapaxes(0, 1))[0][-1])

    torch.manual_seed(0)
    theirs = Classifier().double()
    recurrent, linear = fl.LSTM(I, H, 2, bidirectional=True, **F64), fl.Linear(2 * H, 3, **F64)
    recurrent.load_state_dict(theirs.lstm.state_dict())
    linear.load_state_dict(theirs.linear.state_dict())
    ours = fl.Sequential(recurrent, linear)
    baseline = rng.standard_normal(x.shape)
    rows, start = (torch.tensor(array.swapaxes(0, 1).copy()) for array in (x, baseline))
    expected = attr.IntegratedGradients(theirs).attribute(rows, start, target=2, n_steps=50)
    actual = integrated_gradients(ours, x, baseline, target=2)
    np.testing.assert_allclose(actual, expected.numpy().swapaxes(0, 1), rtol=0, atol=1e-5)
    expected = attr.Saliency(theirs).attribute(rows.requires_grad_(), target=2)
    np.testing.assert_allclose(saliency(ours, x, 2), expected.numpy().swapaxes(0, 1), atol=1e-9)


def chain(factor, nonlinearity="relu"):
    """h' = factor ∗ h + x + 5: each step back counts `factor` times the step after it."""
    model = fl.RNN(2, 2, nonlinearity=nonlinearity, bias=True, dtype=np.float64)
    one = np.eye(2)
    model.load_state_dict(
        dict(zip(model.parameters(), (one, factor * one, [5.0, 5], [0.0, 0]), strict=True))
    )
    return model


@pytest.mark.parametrize(("factor", "back"), [(1, 29), (0.5, 6), (0.8, 20), (0.0, 0)])
def test_a_chain_has_a_known_memory(factor, back, rng):
    x = rng.standard_normal((30, 3, 2)) / 2
    memory = effective_memory(chain(factor), x)
    curve = float(factor) ** np.arange(30)
    np.testing.assert_allclose(memory.gradient, curve, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(memory.perturbation, curve, rtol=1e-9, atol=1e-12)
    assert (memory.by_gradient, memory.by_perturbation) == (back, back)
    assert f"up to {back} steps back" in str(memory)


def test_the_memory_of_ragged_rows_counts_from_their_ends(rng, monkeypatch):
    x, lengths = rng.standard_normal((9, 2, 2)) / 2, np.array([8, 4])
    monkeypatch.setattr("fastlstm.inspection.attribution.AT_A_TIME", 3 * x.size)
    memory = effective_memory(chain(0.5), x, 0.1, lengths=lengths)
    weight = np.array([2, 2, 2, 2, 1, 1, 1, 1])  # rows that reach so far back
    expected = 0.5 ** np.arange(8) * np.sqrt(weight / 2)
    np.testing.assert_allclose(memory.gradient, expected, rtol=1e-9)
    assert memory.perturbation.shape == (8,)
    assert memory.by_gradient == 3


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, "model: expected a layer"),
        ({"model": fl.LSTMCell(I, H)}, TypeError, "model: expected a layer"),
        ({"x": [np.ones((2, I))]}, TypeError, "x: expected an array, got a list"),
        ({"x": np.ones(I)}, ValueError, "x: expected axes of steps"),
        ({"target": H}, ValueError, f"target: expected -{H} to {H - 1}, got {H}"),
        ({"target": 0.5}, TypeError, "target: expected a whole number"),
        ({"target": lambda y: y}, TypeError, r"target: expected a function that returns"),
        ({"lengths": [T + 1, 1]}, ValueError, "lengths: expected 0 to"),
        ({"baseline": np.ones(7)}, ValueError, "baseline: expected a shape that broadcasts"),
        ({"steps": 0}, ValueError, "steps: expected 1 to"),
    ],
)
def test_what_does_not_fit_raises(change, error, message, x):
    arguments = {"model": lstm(), "x": x} | change
    function = integrated_gradients if change.keys() & {"baseline", "steps"} else saliency
    with pytest.raises(error, match=message):
        function(**arguments)


def test_a_memory_needs_steps_and_finite_numbers(x):
    with pytest.raises(ValueError, match="x: expected at least one step"):
        effective_memory(lstm(), x[:0])
    with pytest.raises(ValueError, match=r"threshold: expected a number in \(0, 1\]"):
        effective_memory(lstm(), x, 0)
    x[0] = np.nan
    with pytest.raises(ValueError, match="expected finite outputs"):
        effective_memory(lstm(), x)


def test_an_x_without_deviation_is_changed_by_noise_of_1():
    memory = fl.inspection.effective_memory(
        fl.LSTM(3, 4, dtype=np.float64, rng=0), np.ones((6, 2, 3))
    )
    assert memory.perturbation.max() == 1
