"""`export`: random models in ONNX Runtime, and weights there and back."""

import numpy as np
import pytest
from compare import assert_same_bits
from onnx_graphs import onnx, session

import fastlstm as fl
from fastlstm.engine import Stack
from fastlstm.interop.onnx.out.writer import newest_opset

export, layers = fl.interop.onnx.export, fl.interop.onnx.layers
ACTIVATIONS = (
    *("sigmoid", "tanh", "relu", "leaky_relu", "elu", "softsign", "softplus", "softmax", "silu"),
    *("gelu", "gelu_tanh", "selu", "exponential", "affine", "scaled_tanh", "hard_sigmoid"),
    "thresholded_relu",
)
# The last is the newest of the installed onnx package, or of ONNX Runtime.
OPSETS = (17, 18, 20, min(23, newest_opset()))
GATES = ("sigmoid", ("hard_sigmoid", 0.3, 0.4), ("affine", 0.3, 0.5))
CANDIDATES = ("tanh", "softsign", ("scaled_tanh", 0.7, 1.2), ("leaky_relu", 0.2), ("elu", 0.5))


def pick(rng, values):
    return values[rng.integers(len(values))]


def random_recurrent(rng, I, **options):
    """A layer with any of the variants that ONNX has."""
    kind, L = pick(rng, ("LSTM", "GRU", "RNN")), int(rng.integers(1, 4))
    options |= {
        "bias": bool(rng.random() < 0.8),
        "bidirectional": bool(rng.random() < 0.5),
        "learn_initial_state": bool(rng.random() < 0.3),
        "clip": pick(rng, (None, None, 0.8)),
    }
    widths = pick(rng, (int(rng.integers(1, 9)), [int(H) for H in rng.integers(1, 9, L)]))
    if not isinstance(widths, list):
        options["num_layers"] = L
    if kind == "LSTM":
        options |= {"peepholes": bool(rng.random() < 0.3), "coupled": bool(rng.random() < 0.3)}
        if rng.random() < 0.3:
            options["activations"] = pick(rng, GATES), pick(rng, CANDIDATES), pick(rng, CANDIDATES)
        if rng.random() < 0.2 and L > 1:
            options["dropout"] = 0.5
    elif kind == "GRU":
        options["linear_before_reset"] = bool(rng.random() < 0.5)
        if rng.random() < 0.3:
            options["activations"] = pick(rng, GATES), pick(rng, CANDIDATES)
    else:
        options["nonlinearity"] = pick(rng, ("tanh", "relu", ("scaled_tanh", 0.7, 1.2)))
    layer = getattr(fl, kind)(I, widths, rng=rng, **options)
    return with_random_parameters(rng, layer)


def with_random_parameters(rng, model):
    """The model with no parameter equal to another, nor to zero."""
    arrays = model.state_dict()
    for name, array in arrays.items():
        arrays[name] = rng.uniform(-0.6, 0.6, array.shape).astype(array.dtype)
    model.load_state_dict(arrays)
    return model


def random_model(rng):
    """A model and an input of it."""
    T, B, I = (int(size) for size in rng.permutation([2, 3, 5, 7])[:3])
    batch_first = bool(rng.random() < 0.5)
    shape = (B, T) if batch_first else (T, B)
    x = rng.standard_normal((*shape, I)).astype(np.float32)
    modules = []
    if rng.random() < 0.3:
        modules.append(fl.Embedding(11, I, rng=rng))
        x = rng.integers(0, 11, shape)
    for _ in range(rng.integers(1, 3)):
        modules.append(random_recurrent(rng, I, batch_first=batch_first))
        I = modules[-1]._form.outputs
        if rng.random() < 0.3:
            modules.append(pick(rng, (fl.Dropout(0.5), fl.Activation("relu"))))
    pool = rng.integers(4)
    if pool:
        modules.append((fl.Last(), fl.Pool("mean"), fl.Pool("max"))[pool - 1])
    if rng.random() < 0.7:
        modules.append(fl.Linear(I, 4, bool(rng.random() < 0.7), rng=rng))
        modules.append(fl.Activation(pick(rng, ACTIVATIONS)))
    if len(modules) == 1 and rng.random() < 0.5:
        return modules[0], x
    return fl.Sequential(*modules), x


def flat(state):
    """All arrays of a state, by layer."""
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state for array in flat(part)]


def check_in_onnx_runtime(rng, model, x, path, opset, state):
    export(model, path, opset=opset, state=state)
    run = session(str(path))
    (y, final), outputs = model(x), run.run(None, {"x": x})
    assert outputs[0].shape == y.shape
    np.testing.assert_allclose(outputs[0], y, atol=1e-5, rtol=1e-5)
    if not state:
        assert len(outputs) == 1
        return
    entries = final if isinstance(model, fl.Sequential) else (final,)
    for theirs, ours in zip(outputs[1:], flat(entries), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=1e-5)
    # Carried on: the names of inputs are those of outputs without "_n".
    names = [part.name for part in run.get_outputs()][1:]
    feed = {name.replace("_n", ""): array for name, array in zip(names, outputs[1:], strict=True)}
    again = run.run(None, {"x": x, **feed})
    np.testing.assert_allclose(again[0], model(x, final)[0], atol=1e-5, rtol=1e-5)


def check_load(model, x, path):
    """The file loads as a model of the same bits."""
    again = fl.load(path)
    assert sum(a.size for a in again.parameters().values()) == model.num_parameters()
    np.testing.assert_allclose(again(x)[0], model(x)[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_onnx_runtime_agrees(tmp_path, seed):
    rng = np.random.default_rng(seed)
    model, x = random_model(rng)
    check_in_onnx_runtime(rng, model, x, tmp_path / "m", OPSETS[seed % 4], seed % 3 > 0)
    check_load(model, x, tmp_path / "m")


def check_lengths(rng, model, x, path, opset, state):
    """Rows of different lengths, also of none, with any numbers in their padding."""
    batch_first = next(m.batch_first for m in modules_of(model) if isinstance(m, Stack))
    rows = x if batch_first else x.swapaxes(0, 1)  # a view
    B, T = rows.shape[:2]
    lengths = rng.integers(0, T + 1, B)
    for row, end in zip(rows, lengths, strict=True):
        row[end:] = np.nan if x.dtype == np.float32 else 99
    export(model, path, opset=opset, state=state, lengths=True)
    (y, final), given = model(x, lengths=lengths), {"x": x, "lengths": lengths.astype(np.int32)}
    outputs = session(str(path)).run(None, given)
    np.testing.assert_allclose(outputs[0], y, atol=1e-5, rtol=1e-5)
    if state:
        entries = final if isinstance(model, fl.Sequential) else (final,)
        for theirs, ours in zip(outputs[1:], flat(entries), strict=True):
            np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"it has sequence_lens|no counterpart"):
        fl.load(path)
    assert len(layers(path)) >= 1


def modules_of(model):
    return list(model) if isinstance(model, fl.Sequential) else [model]


@pytest.mark.parametrize("seed", range(12))
def test_lengths(tmp_path, seed):
    rng = np.random.default_rng([7, seed])
    model, x = random_model(rng)
    check_lengths(rng, model, x, tmp_path / "m", OPSETS[seed % 4], seed % 3 > 0)


@pytest.mark.parametrize("pool", [fl.Last, lambda: fl.Pool("mean"), lambda: fl.Pool("max")])
@pytest.mark.parametrize("between", [fl.Dropout, lambda: fl.Activation("sigmoid")])
def test_pools_of_ragged_rows(tmp_path, rng, pool, between):
    lstm = fl.LSTM(3, 4, bidirectional=True, learn_initial_state=True, rng=rng)
    model = fl.Sequential(lstm, between(), pool(), fl.Linear(8, 2, rng=rng))
    x = rng.standard_normal((6, 5, 3)).astype(np.float32)
    check_lengths(rng, with_random_parameters(rng, model), x, tmp_path / "m", 17, True)


def test_lengths_without_a_recurrent_layer_are_refused(tmp_path):
    with pytest.raises(ValueError, match="lengths: no layer is recurrent"):
        export(fl.Linear(3, 2), tmp_path / "m", lengths=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_200_random_models(tmp_path, seed):
    for k in range(200):
        rng = np.random.default_rng([seed, k])
        model, x = random_model(rng)
        check_in_onnx_runtime(rng, model, x, tmp_path / "m", pick(rng, OPSETS), k % 2 > 0)
        check_load(model, x, tmp_path / "m")
        check_lengths(rng, model, x, tmp_path / "m", pick(rng, OPSETS), k % 2 > 0)


@pytest.mark.parametrize("state", [False, True])
def test_every_variant_at_once(tmp_path, rng, state):
    lstm = fl.LSTM(
        3,
        [4, 5],
        bidirectional=True,
        batch_first=True,
        peepholes=True,
        coupled=True,
        clip=0.6,
        activations=(("hard_sigmoid", 0.3, 0.4), ("leaky_relu", 0.2), "softsign"),
        learn_initial_state=True,
        recurrent_dropout=0.5,
        rng=rng,
    )
    gru = fl.GRU(
        10, 4, batch_first=True, linear_before_reset=False, learn_initial_state=True, rng=rng
    )
    model = with_random_parameters(rng, fl.Sequential(lstm, gru))
    x = rng.standard_normal((2, 7, 3)).astype(np.float32)
    check_in_onnx_runtime(rng, model, x, tmp_path / "m", 17, state)


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_every_activation(tmp_path, rng, kind):
    takes = {"affine": (0.3, -0.2), "scaled_tanh": (0.7, 1.2), "hard_sigmoid": (0.3, 0.4)}
    model, x = fl.Activation(kind, *takes.get(kind, ())), np.linspace(-3, 3, 30, dtype=np.float32)
    export(model, tmp_path / "m")
    (y,) = session(str(tmp_path / "m")).run(None, {"x": x.reshape(5, 2, 3)})
    np.testing.assert_allclose(y, model(x.reshape(5, 2, 3)), atol=2e-6)
    again = fl.load(tmp_path / "m")
    assert again.kind == kind
    np.testing.assert_array_equal(again(x), model(x))


def test_other_nodes_than_those_of_an_activation(tmp_path, rng):
    """One number of gelu is another one: the file is refused, not read as gelu."""
    export(fl.Activation("gelu"), tmp_path / "m")
    proto = onnx.load(tmp_path / "m")
    half = next(t for t in proto.graph.initializer if t.name.startswith("0.5"))
    half.CopyFrom(onnx.numpy_helper.from_array(np.array(0.25, np.float32), half.name))
    onnx.save(proto, tmp_path / "m")
    with pytest.raises(ValueError, match=r"Mul .* has no counterpart"):
        fl.load(tmp_path / "m")


def test_dtypes_that_change_come_back(tmp_path, rng):
    model = fl.Sequential(fl.GRU(3, 4, rng=rng), fl.Linear(4, 2, dtype=np.float64, rng=rng))
    export(model, tmp_path / "m")
    x = rng.standard_normal((6, 5, 3)).astype(np.float32)
    y, expected = fl.load(tmp_path / "m")(x)[0], model(x)[0]
    assert y.dtype == expected.dtype == np.float64
    np.testing.assert_array_equal(y, expected)


def test_a_layer_that_reads_from_the_end(tmp_path, rng):
    cells = fl.LSTM(2, 3, rng=rng).cells.by_layer
    stack = with_random_parameters(rng, Stack(cells, reverse=(True,), batch_first=True))
    x = rng.standard_normal((4, 5, 2)).astype(np.float32)
    model = fl.Sequential(stack, fl.Activation("tanh"), fl.Last(), fl.Linear(3, 2, rng=rng))
    check_in_onnx_runtime(rng, model, x, tmp_path / "m", 17, True)
    np.testing.assert_array_equal(fl.load(tmp_path / "m")(x)[0], model(x)[0])
    found = layers(tmp_path / "m")["0.l0"]
    assert type(found) is Stack
    np.testing.assert_array_equal(
        found(x[:, ::-1].swapaxes(0, 1))[0], stack(x[:, ::-1])[0].swapaxes(0, 1)
    )


def test_double_precision_in_the_backend(tmp_path, rng):
    """ONNX Runtime has recurrent nodes in float32 only."""
    lstm = fl.LSTM(3, 4, 2, bidirectional=True, batch_first=True, dtype=np.float64, rng=rng)
    model = fl.Sequential(lstm, fl.Last(), fl.Linear(8, 2, dtype=np.float64, rng=rng))
    model = fl.Sequential(model, fl.Linear(2, 3, rng=rng))  # which casts to float32
    export(model, tmp_path / "m")
    x = rng.standard_normal((2, 5, 3))
    prepared = fl.interop.onnx.Backend.prepare(onnx.load(tmp_path / "m"))
    (y,) = prepared.run([x])
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, model(x)[0], rtol=1e-6)
    wide = layers(tmp_path / "m")["0.0.l1"]
    assert wide.dtype == np.float64
    np.testing.assert_array_equal(wide.weight_ih_l0, lstm.weight_ih_l1)


@pytest.mark.parametrize("seed", range(6))
def test_weights_come_back_with_their_bits(tmp_path, seed):
    rng = np.random.default_rng(seed)
    layer = random_recurrent(rng, 5)
    export(layer, tmp_path / "m", state=bool(seed % 2))
    found = layers(tmp_path / "m")
    assert list(found) == [f"l{k}" for k in range(layer.num_layers)]
    for k in range(layer.num_layers):
        for name, array in found[f"l{k}"].parameters().items():
            own = layer.parameters()[name.replace("_l0", f"_l{k}")]
            np.testing.assert_array_equal(array, own, err_msg=name)
            assert array.dtype == own.dtype
    again = fl.load(tmp_path / "m")
    x = rng.standard_normal((7, 3, 5))
    np.testing.assert_array_equal(again(x)[0], layer(x)[0])
    assert sum(a.size for a in again.parameters().values()) == layer.num_parameters()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_from_torch_through_onnx_to_torch(tmp_path, kind):
    torch = pytest.importorskip("torch", reason="the weights are torch's")
    torch.manual_seed(2)
    theirs = getattr(torch.nn, kind)(3, 5, num_layers=2, bidirectional=True)
    ours = getattr(fl, kind)(3, 5, num_layers=2, bidirectional=True)
    ours.load_state_dict({name: array.numpy() for name, array in theirs.state_dict().items()})
    export(ours, tmp_path / "m")
    back = {}
    for k, layer in enumerate(layers(tmp_path / "m").values()):
        for name, array in layer.parameters().items():
            back[name.replace("_l0", f"_l{k}")] = torch.tensor(array)
    again = getattr(torch.nn, kind)(3, 5, num_layers=2, bidirectional=True)
    again.load_state_dict(back)
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


class Own(fl.Module):
    def __call__(self, x):
        return x


class Twice(fl.LSTM):
    def __call__(self, *args, **options):
        y, state = super().__call__(*args, **options)
        return 2 * y, state


class Named(fl.LSTM):
    """Only a name, which changes no number."""


class Chain(fl.Sequential):
    def __call__(self, *args, **options):
        return None


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (lambda: fl.Sequential(Twice(3, 4)), "an operator for, got Twice at 0$"),
        (lambda: Chain(fl.LSTM(3, 4)), "an operator for, got Chain$"),
        (lambda: fl.Sequential(Chain(fl.LSTM(3, 4)), fl.Last()), "got Chain at 0$"),
        (lambda: fl.LSTM(3, 4, proj_size=2), r"ONNX's LSTM has no counterpart of proj_size=2$"),
        (lambda: fl.LSTM(3, 4, layer_norm=True), "no counterpart of layer_norm=True"),
        (lambda: fl.LSTM(3, 4, zoneout=(0.1, 0)), r"no counterpart of zoneout=\(0\.1, 0"),
        (lambda: fl.Sequential(fl.LSTM(3, 4), Own()), "an operator for, got Own at 1$"),
        (lambda: fl.Masking(fl.LSTM(3, 4)), "an operator for, got Masking$"),
        (lambda: fl.Sequential(fl.Masking(fl.LSTM(3, 4)), fl.Last()), "got Masking at 0$"),
        (lambda: fl.Sequential(fl.Backwards(fl.LSTM(3, 4))), "got Backwards at 0$"),
        (lambda: fl.Sequential(fl.LSTM(3, 4), fl.Merge("sum")), "got Merge at 1$"),
        (lambda: fl.LSTMCell(3, 4), "an operator for, got LSTMCell$"),
        (lambda: fl.Sequential(fl.Sequential(fl.LSTM(3, 4, proj_size=2))), "proj_size=2 at 0.0"),
    ],
)
def test_what_onnx_does_not_have_is_refused_by_name(tmp_path, model, text):
    path = tmp_path / "m"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=f"^model: .*{text}"):
        export(model(), path)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_class_that_only_has_a_name_is_exported(rng, tmp_path):
    model = fl.Sequential(Named(3, 4, rng=rng))
    export(model, tmp_path / "m")
    x = rng.standard_normal((5, 2, 3), dtype=np.float32)
    assert_same_bits(fl.load(tmp_path / "m")(x)[0], model(x)[0])


def test_arguments(tmp_path):
    with pytest.raises(TypeError, match=r"^model: expected a Module, got int"):
        export(3, tmp_path / "m")
    for opset in (16, 99):
        with pytest.raises(ValueError, match=rf"^opset: expected 17 to .*, got {opset}"):
            export(fl.LSTM(3, 4), tmp_path / "m", opset=opset)
    with pytest.raises(TypeError, match=r"^state: "):
        export(fl.LSTM(3, 4), tmp_path / "m", state="yes")


def test_names_of_the_state(tmp_path):
    model = fl.Sequential(fl.Embedding(9, 3), fl.LSTM(3, 4, 2), fl.GRU(4, [5, 6]))
    export(model, tmp_path / "m", state=True)
    graph = onnx.load(tmp_path / "m").graph
    assert [part.name for part in graph.input] == ["x", "1.h", "1.c", "2.h_l0", "2.h_l1"]
    expected = ["y", "1.h_n", "1.c_n", "2.h_n_l0", "2.h_n_l1"]
    assert [part.name for part in graph.output] == expected
