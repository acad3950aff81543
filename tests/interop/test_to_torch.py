"""Models of this library as modules of torch: the same weights and numbers, or a refusal."""

import numpy as np
import pytest

import fastlstm as fl

torch = pytest.importorskip("torch", reason="to_torch makes modules of torch")
from fastlstm.interop.torch import to_torch  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*not supported with oneDNN:UserWarning"),
    pytest.mark.usefixtures("torch_on_one_thread"),
]
LAYERS = {
    "lstm": lambda **o: fl.LSTM(4, 5, 2, bidirectional=True, batch_first=True, rng=1, **o),
    "projected": lambda **o: fl.LSTM(4, 5, 3, proj_size=2, rng=2, **o),
    "gru": lambda **o: fl.GRU(4, 5, 2, bidirectional=True, rng=3, **o),
    "rnn": lambda **o: fl.RNN(4, 5, nonlinearity="relu", batch_first=True, rng=4, **o),
    "plain": lambda **o: fl.LSTM(4, 5, bias=False, rng=5, **o),
    "single": lambda **o: fl.GRU(4, 5, bias="single", rng=6, **o),
}
TOLERANCE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-14}


def tensors(value):
    """A state, or a part of one, as tensors."""
    if isinstance(value, tuple):
        return tuple(map(tensors, value))
    return None if value is None else torch.tensor(value)


def flat(value):
    if isinstance(value, tuple):
        return [array for part in value for array in flat(part)]
    return [value.detach().numpy() if isinstance(value, torch.Tensor) else value]


def assert_same(results, expected, dtype):
    for a, b in zip(flat(results), flat(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype])


def assert_same_weights(module, model):
    arrays = model.state_dict()
    state = module.state_dict()
    assert list(state) == list(arrays)
    for name, array in arrays.items():
        assert state[name].numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, dtype, rng):
    layer = LAYERS[name](dtype=dtype)
    module = to_torch(layer)
    assert type(module) is getattr(torch.nn, type(layer).__name__)
    assert_same_weights(module, layer)
    x = rng.standard_normal((6, 3, 4)).astype(dtype)
    rows = 6 if layer.batch_first else 3
    state = tuple(
        rng.standard_normal(part.shape).astype(dtype) for part in flat(layer.zero_state(rows))
    )
    state = state if len(state) > 1 else state[0]
    for given in (None, state):
        assert_same(module(torch.from_numpy(x), tensors(given)), layer(x, given), dtype)
    back = type(layer)(4, 5, *[getattr(layer, n) for n in ()], **options_of(layer))
    back.load_state_dict(module.state_dict())
    assert all((back.parameters()[n] == a).all() for n, a in layer.parameters().items())


def options_of(layer):
    names = "num_layers", "bias", "batch_first", "bidirectional", "proj_size", "nonlinearity"
    return {n: getattr(layer, n) for n in names if hasattr(layer, n)} | {"dtype": layer.dtype}


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells(kind, rng):
    cell = getattr(fl, kind)(4, 5, rng=1)
    module = to_torch(cell)
    assert_same_weights(module, cell)
    x, h, c = (rng.standard_normal((3, n), np.float32) for n in (4, 5, 5))
    state = (h, c) if kind == "LSTMCell" else h
    assert_same(module(torch.from_numpy(x), tensors(state)), cell(x, state), x.dtype)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        *[(kind, ()) for kind in ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "softsign")],
        *[(kind, ()) for kind in ("softplus", "softmax", "silu", "gelu", "gelu_tanh", "selu")],
        ("leaky_relu", (0.3,)),
        ("elu", (0.7,)),
        ("thresholded_relu", ()),
        ("thresholded_relu", (0.5,)),
        ("hard_sigmoid", (1 / 6, 0.5)),
    ],
)
def test_activations(kind, given, rng):
    layer = fl.Activation(kind, *given)
    x = 4 * rng.standard_normal((3, 7))
    np.testing.assert_allclose(to_torch(layer)(torch.from_numpy(x)).numpy(), layer(x), atol=1e-12)


def test_models(rng):
    inner = fl.Sequential(fl.LSTM(5, 6, rng=1), fl.Activation("tanh"), fl.GRU(6, 4, rng=2))
    head = fl.Sequential(fl.Linear(4, 3, rng=3), fl.Activation("softmax"))
    model = fl.Sequential(
        fl.Embedding(9, 5, padding_idx=2, rng=4), fl.Dropout(0.3), inner, fl.RNN(4, 4), head
    )
    module = to_torch(model)
    assert_same_weights(module, model)
    assert type(module[4]) is torch.nn.Sequential
    assert module[0].padding_idx == 2
    assert module[1].p == 0.3
    assert module.training
    module.eval()
    x = rng.integers(0, 9, (7, 2))
    y, state = model(x)
    assert_same(module(torch.from_numpy(x)), (y, state), y.dtype)
    assert_same(module(torch.from_numpy(x), tensors(state)), model(x, state), y.dtype)
    with pytest.raises(ValueError, match="state: expected 2 entries, got 1"):
        module(torch.from_numpy(x), (None,))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pool", [fl.Last, lambda: fl.Pool("mean"), lambda: fl.Pool("max")])
def test_pools(pool, bidirectional, batch_first, rng):
    gru = fl.GRU(4, 5, bidirectional=bidirectional, batch_first=batch_first, rng=1)
    F = gru._form.outputs
    model = fl.Sequential(gru, fl.Sequential(fl.Activation("tanh"), pool()), fl.Linear(F, 2, rng=2))
    module = to_torch(model)
    for shape in ((6, 3, 4), (7, 4)):
        x = rng.standard_normal(shape).astype(np.float32)
        given = torch.tensor(x, requires_grad=True)
        y, _ = module(given)
        (expected, _), tape = model.forward(x)
        assert_same(y, expected, x.dtype)
        dy = rng.standard_normal(expected.shape).astype(np.float32)
        y.backward(torch.from_numpy(dy))
        assert_same(given.grad, model.backward(tape, dy).x, x.dtype)


def test_a_pool_alone(rng):
    x = rng.standard_normal((6, 3, 4))
    for kind in ("last", "mean", "max"):
        layer = fl.Pool(kind, batch_first=True, bidirectional=True)
        assert_same(to_torch(layer)(torch.from_numpy(x)), layer(x), x.dtype)
        assert not to_torch(layer)(torch.zeros(6, 0, 4)).any()


def test_a_single_bias_stays_single():
    layer = fl.LSTM(4, 5, bias="single", rng=1)
    module = to_torch(layer)
    assert not module.bias_hh_l0.any()
    assert not module.bias_hh_l0.requires_grad
    assert module.bias_ih_l0.requires_grad
    module(torch.ones(3, 2, 4))[0].sum().backward()
    assert module.bias_hh_l0.grad is None


def test_weights_are_copies_and_no_random_number_is_drawn():
    layer, before = fl.LSTM(4, 5, rng=1), torch.get_rng_state()
    module = to_torch(layer)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        module.weight_ih_l0.zero_()
    assert layer.weight_ih_l0.any()


class OwnLinear(fl.Linear):
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fl.LSTM(3, 4, peepholes=True), "model: LSTM has peepholes=True"),
        (lambda: fl.LSTM(3, 4, coupled=True), "coupled=True"),
        (lambda: fl.LSTM(3, 4, layer_norm=True), "layer_norm=True"),
        (lambda: fl.LSTM(3, 4, zoneout=(0.1, 0)), "zoneout="),
        (lambda: fl.LSTM(3, 4, recurrent_dropout=0.1), "recurrent_dropout=0.1"),
        (lambda: fl.LSTM(3, 4, clip=2), "clip=2"),
        (
            lambda: fl.LSTMCell(3, 4, activations=("hard_sigmoid", "tanh", "tanh")),
            "LSTMCell has act",
        ),
        (lambda: fl.LSTM(3, 4, learn_initial_state=True), "learn_initial_state=True"),
        (lambda: fl.LSTM(3, [4, 5]), r"hidden_size=\[4, 5\]"),
        (lambda: fl.GRU(3, 4, linear_before_reset=False), "linear_before_reset=False"),
        (lambda: fl.GRUCell(3, 4, activations=("sigmoid", "relu")), "GRUCell has activations"),
        (lambda: fl.RNN(3, 4, nonlinearity="elu"), "nonlinearity='elu'; torch has tanh and relu"),
        (lambda: fl.Activation("affine", 2.0), "model: Activation 'affine' with alpha=2.0"),
        (lambda: fl.Activation("hard_sigmoid"), "Activation 'hard_sigmoid'"),
        (lambda: OwnLinear(3, 4), "model: OwnLinear has no counterpart in torch"),
        (
            lambda: fl.Sequential(fl.LSTM(3, 4), fl.Sequential(fl.Linear(4, 4), OwnLinear(4, 2))),
            r"model\[1\]\[1\]: OwnLinear has no counterpart",
        ),
    ],
)
def test_what_torch_has_not_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        to_torch(make())


def test_other_objects_are_refused():
    with pytest.raises(TypeError, match="model: expected a module of fastlstm, got Linear"):
        to_torch(torch.nn.Linear(3, 4))
