"""`from_arrays`: layers found among named arrays, and what is refused."""

import numpy as np
import pytest
from compare import assert_same_bits

import fastlstm as fl

KINDS = [fl.LSTM, fl.GRU, fl.RNN]
NAMES = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]


def said(kind):
    """What must be said of a kind beside its arrays."""
    return {"nonlinearity": "relu"} if kind is fl.RNN else {}


def random_layer(rng):
    """A layer of any kind and shape that torch has, or that has widths of its own."""
    kind = KINDS[rng.integers(3)]
    layers = int(rng.integers(1, 4))
    widths = [int(n) for n in rng.integers(1, 7, size=layers)]
    options = {"bidirectional": bool(rng.integers(2)), "bias": bool(rng.integers(2))}
    if kind is fl.LSTM:
        options |= {"peepholes": bool(rng.integers(2)), "layer_norm": bool(rng.integers(2))}
        if rng.integers(2):
            widths = [n + 1 for n in widths]
            options["proj_size"] = min(widths) - 1
    options["learn_initial_state"] = bool(rng.integers(2))
    dtype = np.dtype(["float32", "float64"][rng.integers(2)])
    if len(set(widths)) == 1:
        widths = widths[0]
    I = int(rng.integers(1, 8))
    return kind(I, widths, layers, dtype=dtype, rng=rng, **said(kind), **options)


@pytest.mark.parametrize("seed", range(12))
def test_a_layer_is_found_by_its_arrays(seed):
    check_a_random_layer(np.random.default_rng(seed))


@pytest.mark.slow
def test_any_layer_is_found_by_its_arrays():
    for seed in range(12, 500):
        check_a_random_layer(np.random.default_rng(seed))


def check_a_random_layer(rng):
    layer = random_layer(rng)
    prefix = ["", "lstm.", "model.decoder.rnn_", "a/b/"][rng.integers(4)]
    arrays = {prefix + name: array for name, array in layer.state_dict().items()}
    names = [*arrays, f"{prefix}x", "fc.weight", "fc.bias", "embedding.weight"]
    mapping = {names[k]: arrays.get(names[k], np.ones(2)) for k in rng.permutation(len(names))}
    found = fl.from_arrays(mapping, **said(type(layer)))
    assert repr(found) == repr(layer)
    for name, array in layer.state_dict().items():
        assert_same_bits(found.parameters()[name], array, name)


def test_what_a_layer_computes_is_the_cells(rng):
    """Arrays of a cell of torch make a layer, whose step is the cell's."""
    cell = fl.LSTMCell(3, 5, rng=rng)
    arrays = {f"lstm_cell.{name}": array for name, array in cell.state_dict().items()}
    layer = fl.from_arrays(arrays)
    x, state = rng.standard_normal((2, 3)), tuple(rng.standard_normal((2, 2, 5)))
    h, c = cell(x, state)
    y, (h_n, c_n) = layer(x[None], (state[0][None], state[1][None]))
    for got, expected in ((y[0], h), (h_n[0], h), (c_n[0], c)):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_two_cells_of_opposite_directions(rng):
    layer = fl.LSTM(3, 5, bidirectional=True, rng=rng)
    arrays = {name.replace("_l0", ""): array for name, array in layer.state_dict().items()}
    found = fl.from_arrays(arrays)
    assert repr(found) == repr(layer)
    for name, array in layer.state_dict().items():
        assert_same_bits(found.parameters()[name], array, name)


def test_short_names(rng):
    layer = fl.GRU(3, 5, rng=rng)
    short = [f"enc_{name}" for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    arrays = dict(zip(short, layer.state_dict().values(), strict=True)) | {"enc_emb": np.eye(3)}
    found = fl.from_arrays(arrays)
    for name, array in layer.state_dict().items():
        assert_same_bits(found.parameters()[name], array, name)


def several(rng):
    lstm, gru = fl.LSTM(3, 5, 2, bidirectional=True, rng=rng), fl.GRU(10, 4, rng=rng)
    parts = {"encoder.rnn.": lstm, "decoder.": gru}
    return parts, {
        f"{p}{n}": a for p, layer in parts.items() for n, a in layer.state_dict().items()
    }


def test_a_prefix_chooses_among_several(rng):
    parts, arrays = several(rng)
    for prefix, layer in parts.items():
        for given in (prefix, prefix[:-1], prefix[:3]):  # the beginning is enough
            assert repr(fl.from_arrays(arrays, given)) == repr(layer)
    expected = (
        r"prefix: .*several: 'encoder.rnn.' \(LSTM, 3 to 5, 2 layers, bidirectional\), "
        r"'decoder.' \(GRU, 10 to 4\)"
    )
    with pytest.raises(ValueError, match=expected):
        fl.from_arrays(arrays)
    with pytest.raises(ValueError, match=r"prefix: no .* 'ecoder'; got 'encoder.rnn.' .*'dec"):
        fl.from_arrays(arrays, "ecoder")
    del arrays["decoder.weight_hh_l0"]
    with pytest.raises(ValueError, match=r"'decoder.' \(incomplete"):
        fl.from_arrays(arrays)
    with pytest.raises(ValueError, match=r"decoder.weight_hh_l0: expected an array, got none"):
        fl.from_arrays(arrays, "decoder")


def test_the_exact_prefix_comes_before_a_beginning(rng):
    small, large = fl.GRU(3, 5, rng=rng), fl.GRU(3, 7, rng=rng)
    arrays = small.state_dict() | {f"more.{n}": a for n, a in large.state_dict().items()}
    assert repr(fl.from_arrays(arrays, "")) == repr(small)
    assert repr(fl.from_arrays(arrays, "more.")) == repr(large)


def test_nothing_recurrent(rng):
    for arrays in ({}, fl.Linear(3, 4, rng=rng).state_dict(), {"draw_ih": np.eye(3)}):
        with pytest.raises(
            ValueError, match=r"expected the names .*weight_ih_l0.*recurrent_kernel"
        ):
            fl.from_arrays(arrays)


@pytest.mark.parametrize(
    "kind", [list, dict, "torch", np.float16, "bfloat16", np.float32, "view"], ids=str
)
def test_values_of_many_kinds(rng, kind):
    layer = fl.LSTM(3, 5, rng=rng)
    arrays = layer.state_dict()
    exact = dict(arrays)
    if kind is list:
        arrays = {name: array.tolist() for name, array in arrays.items()}
    elif kind == "torch":
        torch = pytest.importorskip("torch")
        arrays = {n: torch.nn.Parameter(torch.tensor(a)) for n, a in arrays.items()}
    elif kind == "bfloat16":
        bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
        arrays = {name: array.astype(bfloat16) for name, array in arrays.items()}
        exact = {name: array.astype(np.float32) for name, array in arrays.items()}
    elif kind == "view":
        arrays = {name: np.repeat(array, 2, axis=0)[::2] for name, array in arrays.items()}
    elif kind is not dict:
        arrays = {name: array.astype(kind) for name, array in arrays.items()}
        exact = {name: array.astype(np.float32) for name, array in arrays.items()}
    found = fl.from_arrays(arrays, dtype=np.float32)
    other = fl.LSTM(3, 5, rng=0)
    other.load_state_dict(arrays)
    for name, array in exact.items():
        assert_same_bits(found.parameters()[name], array, name)
        assert_same_bits(other.parameters()[name], array, name)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2"])
def test_tensors_of_few_bits(rng, dtype):
    torch = pytest.importorskip("torch")
    layer = fl.GRU(3, 5, rng=rng)
    tensors = {n: torch.tensor(a).to(getattr(torch, dtype)) for n, a in layer.state_dict().items()}
    found = fl.from_arrays(tensors)
    for name, tensor in tensors.items():
        assert_same_bits(found.parameters()[name], tensor.float().numpy(), name)


def test_dtype(rng):
    double = fl.GRU(3, 5, dtype=np.float64, rng=rng).state_dict()
    assert fl.from_arrays(double).dtype == np.float64
    assert fl.from_arrays(double, dtype=np.float32).dtype == np.float32
    mixed = double | {"bias_hh_l0": double["bias_hh_l0"].astype(np.float32)}
    assert fl.from_arrays(mixed).dtype == np.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_hh_l0": None}, "weight_hh_l0: expected an array, got none"),
        ({"weight_ih_l0_reverse": None}, "weight_ih_l0_reverse: expected an array, got none"),
        ({"bias_hh_l1": None}, "bias_hh_l1: expected an array, got none"),
        ({f"{n[:-1]}1": None for n in NAMES}, "l1.*: expected an array"),
        ({"weight_hr_l2": np.ones((5, 5))}, "weight_hr_l0: expected an array, got none"),
        ({"weight_hh_l2": np.ones((20, 6))}, r"weight_hh_l2: .*4, 3 or 1 times the 6"),
        ({"weight_hh_l2": np.ones((25, 5))}, r"weight_hh_l2: .*4, 3 or 1 times the 5"),
        ({"weight_hh_l2": np.ones((15, 5))}, r"_l2: expected shape \(15, 10\), got \(20, 10\)"),
        ({"weight_hh_l2": np.ones(20)}, r"weight_hh_l2: expected a matrix"),
        ({"weight_hh_l2": np.ones((0, 0))}, r"weight_hh_l2: expected a matrix"),
        ({"weight_ih_l0": np.ones((20, 0))}, r"weight_ih_l0: expected a matrix"),
        ({"weight_ih_l2": np.ones((20, 5))}, r"weight_ih_l2: expected shape \(20, 10\)"),
        ({"weight_ih_l0": np.ones((20, 4, 1))}, r"weight_ih_l0: expected a matrix"),
        ({"weight_ih_l0_reverse": np.ones((20, 4))}, r"weight_ih_l0_reverse: expected shape"),
        ({"bias_ih_l1": np.ones((20, 1))}, r"bias_ih_l1: expected shape \(20,\)"),
        ({"bias_ih_l1": np.ones(20, np.int8)}, "bias_ih_l1: .*floating-point numbers, .*quantized"),
        ({"bias_ih_l1": np.ones(20, complex)}, "bias_ih_l1: expected real"),
        ({"bias_ih_l1": "text"}, "bias_ih_l1: expected real"),
        ({"bias_ih_l1": np.full(20, 1e300)}, "bias_ih_l1: expected values within float32"),
        ({"weight_hh_l0_raw": np.ones((20, 5))}, "weight_hh_l0_raw: .*weight_hh_l0 itself"),
        ({"weight_hh_l1_g": np.ones((20, 1))}, "weight_hh_l1_g: .*weight_hh_l1 itself"),
        ({"weight_ih_l9": np.ones((20, 10))}, "weight_ih_l3: expected an array, as layer 9 has"),
        ({3: np.ones(2)}, "expected text as names"),
    ],
    ids=lambda part: str(list(part)) if isinstance(part, dict) else "",
)
@pytest.mark.parametrize("prefix", ["", "model.rnn."])
def test_gaps_and_shapes(rng, change, message, prefix):
    arrays = fl.LSTM(3, 5, 3, bidirectional=True, rng=rng).state_dict() | change
    arrays = {
        prefix + name if isinstance(name, str) else name: array
        for name, array in arrays.items()
        if array is not None
    }
    with pytest.raises((ValueError, TypeError), match=f"{message}") as raised:
        fl.from_arrays(arrays)
    if prefix and 3 not in change:
        assert prefix in str(raised.value)


def test_all_of_one_layer_is_missing(rng):
    arrays = fl.LSTM(3, 5, 3, rng=rng).state_dict()
    arrays = {name: array for name, array in arrays.items() if not name.endswith("_l1")}
    with pytest.raises(ValueError, match="weight_ih_l1: expected an array, as layer 2 has"):
        fl.from_arrays(arrays)
    arrays = fl.LSTM(3, 5, 1, rng=rng).state_dict() | {"bias_ih_l1": np.ones(20)}
    with pytest.raises(ValueError, match="weight_ih_l1: expected an array, got none"):
        fl.from_arrays(arrays)


@pytest.mark.parametrize("part", ["bias_ih", "bias_hh"])
def test_one_of_two_biases(rng, part):
    arrays = fl.GRU(3, 5, 2, rng=rng).state_dict()
    one = {name: array for name, array in arrays.items() if part not in name}
    with pytest.raises(ValueError, match=f"{part}_l0: expected an array, got none"):
        fl.from_arrays(one)


def test_layers_of_two_kinds(rng):
    arrays = fl.LSTM(3, 5, rng=rng).state_dict()
    gru = fl.GRU(5, 5, rng=rng).state_dict()
    arrays |= {name.replace("l0", "l1"): array for name, array in gru.items()}
    with pytest.raises(ValueError, match="'': expected layers of one kind, got GRU and LSTM"):
        fl.from_arrays(arrays)


def test_a_projected_gru(rng):
    arrays = {
        "weight_ih_l0": np.ones((15, 3)),
        "weight_hh_l0": np.ones((15, 2)),
        "weight_hr_l0": np.ones((2, 5)),
    }
    with pytest.raises(ValueError, match="weight_hr_l0: expected no projection of a GRU"):
        fl.from_arrays(arrays)
    arrays["weight_hh_l0"] = arrays["weight_ih_l0"] = np.ones((20, 3))
    with pytest.raises(ValueError, match=r"weight_hr_l0: expected shape \(3, 5\), got \(2, 5\)"):
        fl.from_arrays(arrays)


def test_what_must_be_said(rng):
    rnn, gru = fl.RNN(3, 5, rng=rng).state_dict(), fl.GRU(3, 5, rng=rng).state_dict()
    with pytest.raises(ValueError, match="nonlinearity: expected as an argument"):
        fl.from_arrays(rnn)
    with pytest.raises(ValueError, match="nonlinearity: expected one of"):
        fl.from_arrays(rnn, nonlinearity="tan")
    with pytest.raises(ValueError, match="nonlinearity: expected None"):
        fl.from_arrays(gru, nonlinearity="tanh")
    with pytest.raises(ValueError, match="recurrent_activation: expected None"):
        fl.from_arrays(gru, recurrent_activation="sigmoid")
    with pytest.raises(TypeError, match="batch_first: expected True or False"):
        fl.from_arrays(gru, batch_first=1)
    with pytest.raises(TypeError, match="prefix: expected text"):
        fl.from_arrays(gru, 3)
    assert fl.from_arrays(gru, batch_first=True).batch_first is True


@pytest.mark.parametrize("given", [None, [1, 2], "weights", fl.LSTM(3, 5)], ids=repr)
def test_it_takes_a_mapping(given):
    with pytest.raises(TypeError, match="mapping: expected a mapping of names to arrays"):
        fl.from_arrays(given)


def test_published_models(cases):
    """Each in at most three lines from its arrays."""
    arrays = dict(np.load(cases / "models/gtcrn-grus/case.npz"))
    for prefix in ("encoder.en_convs.2.tra.att_gru.", "dpgrnn1.intra_rnn.rnn1.", "dpgrnn1.inter"):
        gru = fl.from_arrays(arrays, prefix, batch_first=True)
        prefix = "dpgrnn1.inter_rnn.rnn1." if prefix == "dpgrnn1.inter" else prefix
        y, h = gru(arrays[f"{prefix}x"])
        np.testing.assert_allclose(y, arrays[f"{prefix}y"], rtol=0, atol=2e-6)
        np.testing.assert_allclose(h, arrays[f"{prefix}h_n"], rtol=0, atol=2e-6)
        loaded = fl.load(cases / "models/gtcrn-grus/case.npz", prefix=prefix, batch_first=True)
        assert repr(loaded) == repr(gru)
    path = cases / "models/g2pm-bilstm/case.npz"
    arrays = np.load(path)
    lstm = fl.load(path, batch_first=True)
    y, _ = lstm(arrays["x"], lengths=arrays["lengths"])
    np.testing.assert_allclose(y, arrays["y"], rtol=0, atol=2e-6)


def test_the_arrays_stay_the_callers():
    """They are copied: a later change of one does not reach the layer, and is allowed."""
    arrays = {name: np.array(value) for name, value in fl.LSTM(3, 4, rng=0).state_dict().items()}
    layer = fl.from_arrays(arrays)
    before = layer.weight_ih_l0.copy()
    for array in arrays.values():
        array[...] = 7
    np.testing.assert_array_equal(layer.weight_ih_l0, before)
