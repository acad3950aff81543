"""`inspection.trace` beside torch's cells, step by step, and beside inference, bit for bit."""

import gc
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from models import Residual
from random_layers import GRU_AND_RNN, OPTIONS, VARIANTS, each, example

import fastlstm as fl
from fastlstm.inspection import trace

GATES = {
    "LSTM": ("input_gate", "forget_gate", "candidate", "output_gate"),
    "GRU": ("reset_gate", "update_gate", "candidate"),
    "RNN": (),
}
ALL = OPTIONS | VARIANTS | GRU_AND_RNN
EVERY_WAY = [{}, {"lengths": True}, {"resets": True}, {"lengths": True, "resets": True}]


def hidden_of(found, layer):
    """The output of a stack's last layer."""
    directions = 2 if layer.bidirectional else 1
    return np.concatenate([own.hidden for own in found.layers[-directions:]], axis=-1)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("way", EVERY_WAY, ids=str)
def test_hidden_is_inferences_y(kernels, dtype, rng, name, way):
    e = example(rng, dtype=dtype, **way, **ALL[name])
    y, _ = e()
    found = trace(e.layer, e.x, e.state, **e.options)
    assert np.array_equal(hidden_of(found, e.layer), y)
    assert np.array_equal(found.y, y)
    lengths = e.options.get("lengths")
    ended = np.zeros(e.x.shape[:2], bool) if lengths is None else np.arange(7)[:, None] >= lengths
    for layer in found.layers:
        assert list(layer.arrays)[: len(GATES[layer.kind])] == list(GATES[layer.kind])
        for array in layer.arrays.values():
            assert array.dtype == dtype
            assert np.isfinite(array).all()
            assert not array[ended].any()
            assert array[~ended].any()


def torch_cell(torch, layer, k, direction):
    """torch's cell with the parameters of one layer and direction."""
    kind = type(layer).__name__
    end = f"_l{k}{'_reverse' if direction else ''}"
    own = {n.removesuffix(end): v for n, v in layer.state_dict().items() if n.endswith(end)}
    inputs = own["weight_ih"].shape[1]
    cell = getattr(torch.nn, f"{kind}Cell")(inputs, layer.hidden_size, dtype=torch.float64)
    cell.load_state_dict({name: torch.from_numpy(value) for name, value in own.items()})
    return cell, own


def gates_of_torch(torch, kind, own, x, h):
    """The gates, from the definition in torch's documentation."""
    names = "weight_ih", "weight_hh", "bias_ih", "bias_hh"
    W, R, b, b_h = (torch.from_numpy(own[name]) for name in names)
    z, z_h = x @ W.T + b, h @ R.T + b_h
    if kind == "LSTM":
        i, f, g, o = (z + z_h).chunk(4, 1)
        return i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    if kind == "GRU":
        (r, u, n), (r_h, u_h, n_h) = z.chunk(3, 1), z_h.chunk(3, 1)
        r = (r + r_h).sigmoid()
        return r, (u + u_h).sigmoid(), (n + r * n_h).tanh()
    return ()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_all_arrays_are_those_of_torchs_cells(kernels, rng, kind):
    torch = pytest.importorskip("torch")
    e = example(rng, kind=kind, num_layers=2, bidirectional=True, dtype=np.float64)
    found = trace(e.layer, e.x, e.state)
    assert [layer.name for layer in found.layers] == ["l0", "l0_reverse", "l1", "l1_reverse"]
    x, states = torch.from_numpy(e.x), e.state if kind == "LSTM" else (e.state,)
    with torch.no_grad():
        for k in range(2):
            outputs = []
            for d in range(2):
                cell, own = torch_cell(torch, e.layer, k, d)
                state = [torch.from_numpy(part[2 * k + d]) for part in states]
                wanted = {}
                for t in range(7)[:: -1 if d else 1]:
                    gates = gates_of_torch(torch, kind, own, x[t], state[0])
                    new = cell(x[t], tuple(state) if kind == "LSTM" else state[0])
                    state = list(new) if kind == "LSTM" else [new]
                    names = *GATES[kind], "hidden", *(["cell"] if kind == "LSTM" else [])
                    for name, value in zip(names, (*gates, *state), strict=True):
                        wanted.setdefault(name, {})[t] = value.numpy()
                layer = found.layers[2 * k + d]
                assert layer.kind == kind
                assert set(layer.arrays) == set(wanted)
                for name, steps in wanted.items():
                    by_time = np.stack([steps[t] for t in range(7)])
                    np.testing.assert_allclose(layer.arrays[name], by_time, rtol=0, atol=1e-11)
                outputs.append(torch.from_numpy(np.stack([wanted["hidden"][t] for t in range(7)])))
            x = torch.cat(outputs, 2)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("way", EVERY_WAY[::3], ids=str)
def test_the_arrays_of_a_variant_fit_together(kernels, rng, name, way):
    """c' = m c + (1 - m)(f c + i g), and the c of a step is that of calls up to the step."""
    e = example(rng, dtype=np.float64, **way, **VARIANTS[name])
    found = trace(e.layer, e.x, e.state, **e.options)
    lengths = e.options.get("lengths", np.full(5, 7))
    resets = e.options.get("resets", np.zeros((7, 5), bool))
    share = e.layer.zoneout[1]
    D = 2 if e.layer.bidirectional else 1
    for place, layer in enumerate(found.layers):
        k, d = divmod(place, D)
        c0 = e.state[1][k][d] if isinstance(e.state[1], list) else e.state[1][place]
        if e.layer.coupled:
            np.testing.assert_allclose(layer.save, (1 - layer.remember) * (layer.save != 0))
        for row in range(5):
            c = c0[row]
            steps = range(lengths[row])
            for t in reversed(steps) if d else steps:
                cut = resets[t, row] if not d else t + 1 < lengths[row] and resets[t + 1, row]
                c = np.zeros_like(c) if cut else c
                new = layer.remember[t, row] * c + layer.save[t, row] * layer.candidate[t, row]
                c = share * c + (1 - share) * new
                np.testing.assert_allclose(layer.cell[t, row], c, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_cell_is_one_step(kernels, rng, kind):
    cell = getattr(fl, f"{kind}Cell")(3, 4, rng=rng)
    x, h, c = rng.standard_normal((5, 3)), rng.standard_normal((5, 4)), rng.standard_normal((5, 4))
    state = (h, c) if kind == "LSTM" else h
    new = cell(x, state)
    found = trace(cell, x, state)
    (layer,) = found.layers
    new = new if kind == "LSTM" else (new,)
    assert np.array_equal(layer.hidden[0], new[0])
    assert np.array_equal(found.y, new[0])
    if kind == "LSTM":
        assert np.array_equal(layer.cell[0], new[1])
    assert all(array.shape == (1, 5, 4) for array in layer.arrays.values())
    with pytest.raises(ValueError, match="lengths: a cell takes one step"):
        trace(cell, x, lengths=[1] * 5)


@pytest.mark.parametrize("zoneout", [(0, 0), (0.2, 0.3)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_forms_of_x(kernels, rng, batch_first, zoneout):
    """A list, a mask and one sequence give the arrays of the batch, time first."""
    options = {"num_layers": 2, "bidirectional": True, "dtype": np.float64, "zoneout": zoneout}
    e = example(rng, lengths=True, **options)
    lstm = fl.LSTM(3, 4, batch_first=batch_first, rng=0, **options)
    lstm.load_state_dict(e.layer.state_dict())
    lengths = e.options["lengths"]
    x = e.x.copy()
    x[np.arange(7)[:, None] >= lengths] = np.nan
    expected = trace(e.layer, x, e.state, lengths=lengths)
    assert not np.isnan(expected.x).any()

    def as_given(array):
        return array.swapaxes(0, 1) if batch_first else array

    ragged = trace(lstm, as_given(x), e.state, lengths=lengths)
    listed = trace(lstm, [x[:n, row] for row, n in enumerate(lengths)], e.state)
    masked = trace(lstm, as_given(x), e.state, mask=as_given(np.arange(7)[:, None] < lengths))
    for found in (ragged, listed, masked):
        T = len(found.y)
        for layer, wanted in zip(found.layers, expected.layers, strict=True):
            for name, array in layer.arrays.items():
                assert np.array_equal(array, wanted.arrays[name][:T])
        assert np.array_equal(found.x, expected.x[:T])
        assert np.array_equal(found.y, expected.y[:T])
        assert np.array_equal(found.lengths, lengths)
    n = lengths[2]
    alone = trace(lstm, x[:n, 2], each(lambda part: part[:, 2], e.state))
    assert alone.y.shape == (n, 8)
    of_row = expected.layers[3].cell[:n, 2]  # the reference's bits depend on the number of rows
    np.testing.assert_allclose(alone.layers[3].cell[:, 0], of_row, rtol=1e-13, atol=1e-14)
    assert np.array_equal(alone.x[:, 0], x[:n, 2])


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_trace_says_which_steps_were_masked(rng, tmp_path, batch_first):
    layer = fl.LSTM(3, 4, bidirectional=True, batch_first=batch_first, rng=rng)
    x, mask, lengths = rng.standard_normal((2, 6, 3)), rng.random((2, 6)) < 0.6, np.array([6, 3])
    x[~mask] = 0
    wanted = (mask & (np.arange(6) < lengths[:, None])).T
    given = [x, mask] if batch_first else [x.swapaxes(0, 1), mask.T]
    for found in (
        trace(layer, given[0], mask=given[1], lengths=lengths),
        trace(fl.Masking(layer), given[0], lengths=lengths),
    ):
        assert found.mask.dtype == bool
        assert (found.mask == wanted).all()
        assert found.lengths is None
        for record in found.layers:
            assert (record.forget_gate.any(axis=-1) == wanted).all()
    found.to_npz(tmp_path / "t.npz")
    assert (np.load(tmp_path / "t.npz")["mask"] == wanted).all()
    assert trace(layer, given[0], lengths=lengths).mask is None


def test_masked_steps_are_zero(kernels, rng):
    e = example(rng, num_layers=2, dtype=np.float64)
    mask = rng.random((7, 5)) < 0.6
    begins = rng.random((7, 5)) < 0.2
    y, _ = e.layer(e.x, e.state, mask=mask, resets=begins)
    model = fl.Sequential(fl.Dropout(0.5), e.layer)
    own = trace(e.layer, e.x, e.state, resets=begins, mask=mask)
    for t in (own, trace(model, e.x, (e.state,), resets=begins, mask=mask)):
        assert t.lengths is None
        assert np.array_equal(t.y, y)
        assert np.array_equal(t.layers[-1].hidden, y)
        assert not t.layers[0].input_gate[~mask].any()
        assert t.layers[0].input_gate[mask].all()
        assert np.array_equal(t.x, np.where(mask[..., None], e.x, 0))


def test_a_sequential(kernels, rng):
    lstm = fl.LSTM(5, [6, 4], bidirectional=True, dropout=0.5, rng=0)
    gru = fl.GRU(8, 3, rng=1)
    model = fl.Sequential(
        fl.Embedding(9, 5, rng=2), fl.Dropout(0.5), lstm, fl.Sequential(fl.Dropout(0.5), gru)
    )
    model = fl.Sequential(*model, fl.Last(), fl.Linear(3, 2, rng=3))
    x = [[1, 2, 8, 4], [3], [5, 7]]
    random = model[1]._rng.bit_generator.state, lstm._rng.bit_generator.state
    found = trace(model, x)
    names = "2.l0", "2.l0_reverse", "2.l1", "2.l1_reverse", "3.1.l0"
    assert tuple(layer.name for layer in found.layers) == names
    y, _ = model(x)
    assert np.array_equal(found.y, y)
    embedded = model[:1](x)
    ys, _ = lstm(embedded)
    for row, own in enumerate(ys):
        hidden = [layer.hidden[: len(own), row] for layer in found.layers[2:4]]
        assert np.array_equal(np.concatenate(hidden, axis=-1), own)
        assert np.array_equal(found.x[: len(own), row], embedded[row])
    assert np.array_equal(found.lengths, [4, 1, 2])
    assert random == (model[1]._rng.bit_generator.state, lstm._rng.bit_generator.state)


def test_a_model_of_ones_own(kernels, rng):
    model, x = Residual(4, rng=rng), rng.standard_normal((7, 2, 4))
    found = trace(model, x)
    assert [layer.name for layer in found.layers] == ["lstm.l0"]
    assert np.array_equal(found.layers[0].hidden, model.lstm(x)[0])
    assert np.array_equal(found.y, model(x))
    assert type(model.lstm) is fl.LSTM  # the model is as it was


@pytest.mark.parametrize("method", ["__call__", "forward", "backward"])
def test_a_recurrent_layer_that_computes_otherwise_is_refused(rng, method):
    kind = type("Own", (fl.GRU,), {method: lambda self, *args, **options: None})
    for model in (kind(3, 4), fl.Sequential(kind(3, 4), fl.Last())):
        with pytest.raises(ValueError, match=f"^model: Own has a {method} of its own"):
            trace(model, rng.standard_normal((5, 2, 3)))
    named, x = type("Named", (fl.GRU,), {})(3, 4, rng=rng), rng.standard_normal((5, 2, 3))
    assert np.array_equal(trace(named, x).y, named(x)[0])


class Twice(fl.Module):
    def __init__(self):
        self.rnn = fl.RNN(3, 3)

    def __call__(self, x):
        return self.rnn(self.rnn(x)[0])[0]


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (fl.Sequential(fl.Linear(3, 2)), ValueError, "expected one with a recurrent layer"),
        (fl.Linear(3, 2), ValueError, "expected one with a recurrent layer, got Linear"),
        (Twice(), ValueError, "one call of each recurrent layer, got two of rnn"),
        (np.tanh, TypeError, "model: expected a layer"),
    ],
)
def test_what_is_no_model_for_a_trace(model, error, message):
    with pytest.raises(error, match=message):
        trace(model, np.ones((5, 2, 3)))


def test_names_of_arrays(rng):
    layer = trace(fl.LSTM(3, 4, rng=0), np.ones((7, 2, 3))).layers[0]
    assert layer.save is layer.input_gate
    assert layer.remember is layer.forget_gate
    assert layer.focus is layer.output_gate
    assert {"save", "forget_gate", "cell"} <= set(dir(layer))
    gru = trace(fl.GRU(3, 4, rng=0), np.ones((7, 2, 3))).layers[0]
    with pytest.raises(AttributeError, match="cell: expected one of reset_gate, update_gate, cand"):
        _ = gru.cell


def test_a_trace_keeps_its_numbers(rng):
    """Neither a later call nor a change of x, the state or lengths changes it."""
    lstm, x = fl.LSTM(3, 4, 2, rng=0), rng.standard_normal((7, 5, 3)).astype(np.float32)
    h = np.ones((2, 5, 4), np.float32)
    lengths = np.array([7, 3, 0, 5, 6])
    found = trace(lstm, x, (h, h), lengths=lengths)
    before = [array.copy() for layer in found.layers for array in layer.arrays.values()]
    inputs, ends = found.x.copy(), found.lengths.copy()
    x += 1
    lengths[:] = 1
    lstm(x), trace(lstm, x)
    after = [array for layer in found.layers for array in layer.arrays.values()]
    assert all(map(np.array_equal, before, after))
    assert np.array_equal(found.x, inputs)
    assert np.array_equal(found.lengths, ends)


def test_gates_are_views(rng):
    found = trace(fl.LSTM(3, 4, rng=0), np.ones((7, 2, 3)))
    layer = found.layers[0]
    assert layer.input_gate.base is layer.output_gate.base
    assert np.shares_memory(layer.hidden, found.y)


def test_one_set_of_parameters():
    """While another thread sets parameters, all layers have those of one moment."""
    model = fl.Sequential(*(fl.RNN(1, 1, bias=False, rng=0) for _ in range(2)))
    sets = [{name: np.full((1, 1), k, np.float32) for name in model.parameters()} for k in (-1, 1)]
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for parameters in sets:
                model.load_state_dict(parameters)

    model.load_state_dict(sets[0])
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            found = trace(model, np.ones((1, 1, 1)))
            assert found.layers[1].hidden[0, 0, 0] > 0  # the product of two equal signs
    finally:
        stop.set()
        thread.join()


def test_npz(rng, tmp_path):
    e = example(rng, lengths=True, num_layers=2)
    found = trace(e.layer, e.x, e.state, **e.options)
    found.to_npz(tmp_path / "trace.npz")
    with np.load(tmp_path / "trace.npz") as file:
        assert set(file) == {
            "x", "y", "lengths",
            *(f"l{k}.{name}" for k in range(2) for name in (*GATES["LSTM"], "cell", "hidden")),
        }  # fmt: skip
        assert np.array_equal(file["l1.forget_gate"], found.layers[1].forget_gate)
        assert np.array_equal(file["lengths"], e.options["lengths"])


def test_xarray(rng):
    pytest.importorskip("xarray")
    e = example(rng, lengths=True, proj_size=2)
    found = trace(e.layer, e.x, e.state, **e.options)
    data = found.to_xarray()
    assert data["l0.forget_gate"].dims == ("time", "batch", "unit")
    assert data["l0.hidden"].dims == ("time", "batch", "unit_2")
    assert data["l0.forget_gate"].attrs == {"layer": "l0", "kind": "LSTM"}
    assert np.array_equal(data["l0.cell"], found.layers[0].cell)
    assert np.array_equal(data["lengths"], e.options["lengths"])
    assert data["x"].dims == ("time", "batch", "feature")


def test_without_xarray(monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"^to_xarray needs xarray: pip install xarray$"):
        trace(fl.RNN(3, 4), np.ones((2, 1, 3))).to_xarray()


@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0)])
@pytest.mark.parametrize("zoneout", [(0, 0), (0.2, 0.3)])
def test_no_steps_and_no_rows(kernels, T, B, zoneout):
    found = trace(fl.LSTM(3, 4, zoneout=zoneout), np.ones((T, B, 3)))
    assert all(array.shape == (T, B, 4) for array in found.layers[0].arrays.values())


@pytest.mark.parametrize("make", [fl.inspection.trace, fl.inspection.gradient_flow])
def test_arrays_are_freed_at_once(rng, make):
    """Not at a later run of the collector: each call would take new pages of memory."""
    layer, x = fl.LSTM(3, 50, rng=rng), rng.normal(size=(200, 4, 3))
    make(layer, x)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(3):
            make(layer, x)
        left, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert left < most / 5
