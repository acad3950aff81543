"""The options of recurrent layers: attributes in the form in which a user writes them."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from compare import assert_same_bits

import fastlstm as fl

KINDS = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]
kinds = pytest.mark.parametrize("kind", KINDS)
DEFAULTS = {
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0.0,
    "bidirectional": False,
    "proj_size": 0,
    "peepholes": False,
    "coupled": False,
    "layer_norm": False,
    "clip": None,
    "recurrent_dropout": 0.0,
    "zoneout": (0.0, 0.0),
    "init": "torch",
    "forget_bias": None,
    "t_max": None,
    "learn_initial_state": False,
    "dtype": np.float32,
    "linear_before_reset": True,
    "nonlinearity": "tanh",
}
DEFAULT_ACTIVATIONS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh")}
GIVEN = {  # what is given, and what the attribute then is
    "num_layers": (3, 3),
    "bias": (False, False),
    "batch_first": (True, True),
    "bidirectional": (True, True),
    "proj_size": (2, 2),
    "peepholes": (True, True),
    "coupled": (True, True),
    "layer_norm": (True, True),
    "clip": (2, 2.0),
    "recurrent_dropout": (1, 1.0),
    "zoneout": ([0.25, 0], (0.25, 0.0)),
    "init": ("keras", "keras"),
    "forget_bias": (1, 1.0),
    "learn_initial_state": (True, True),
    "dtype": ("float64", np.float64),
    "linear_before_reset": (False, False),
    "nonlinearity": (("elu", 2), ("elu", 2.0)),
}


def made(kind, **options):
    return getattr(fl, kind)(3, 4, **options)


def arguments(kind):
    """Names of all options of a layer."""
    names = inspect.signature(getattr(fl, kind)).parameters
    return [name for name in names if name not in ("input_size", "hidden_size", "rng")]


@kinds
def test_defaults(kind):
    layer = made(kind)
    assert (layer.input_size, layer.hidden_size) == (3, 4)
    for name in arguments(kind):
        if name == "activations":
            assert layer.activations == DEFAULT_ACTIVATIONS[kind.removesuffix("Cell")]
        else:
            assert getattr(layer, name) == DEFAULTS[name], name


@kinds
def test_what_is_given(kind):
    for name in arguments(kind):
        if name in GIVEN:
            value, expected = GIVEN[name]
            assert getattr(made(kind, **{name: value}), name) == expected, name


@kinds
def test_every_option_is_tested(kind):
    other = {"activations", "dropout", "t_max"}
    assert set(arguments(kind)) - other <= set(GIVEN)


def test_options_that_need_others():
    assert fl.LSTM(3, 4, 2, dropout=0.5).dropout == 0.5
    assert fl.GRU(3, 4, 2, dropout=1).dropout == 1.0
    lstm = fl.LSTM(3, 4, init="chrono", t_max=10)
    assert (lstm.init, lstm.t_max) == ("chrono", 10)
    assert fl.LSTM(3, [4, 5]).hidden_size == [4, 5]
    assert fl.LSTM(3, [4, 5]).num_layers == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("softsign", "softsign"),
        (("softsign",), "softsign"),
        (["elu", 0.5], ("elu", 0.5)),
        (("elu", 1), "elu"),  # which is the default
        (("affine", 1), "affine"),
        (("affine", 2), ("affine", 2.0, 0.0)),
        (("hard_sigmoid", 0.2, 0.5), "hard_sigmoid"),
    ],
    ids=str,
)
def test_activations(given, expected):
    """Names, with numbers where these are not the defaults."""
    for kind in ("LSTM", "LSTMCell"):
        layer = made(kind, activations=["sigmoid", given, "tanh"])
        assert layer.activations == ("sigmoid", expected, "tanh")
    for kind in ("GRU", "GRUCell"):
        assert made(kind, activations=(given, "tanh")).activations == (expected, "tanh")
    for kind in ("RNN", "RNNCell"):
        assert made(kind, nonlinearity=given).nonlinearity == expected


@kinds
def test_attributes_build_the_same_layer(rng, kind):
    """Also those of a copy, and of a pickle."""
    given = {name: GIVEN[name][0] for name in arguments(kind) if name in GIVEN}
    if "LSTM" in kind:
        given |= {"forget_bias": None, "coupled": False}
    layer = made(kind, **given, rng=1)
    x = rng.standard_normal((5, 2, 3) if "Cell" not in kind else (2, 3))
    for one in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        options = {name: getattr(one, name) for name in arguments(kind)}
        twin = made(kind, **options, rng=1)
        assert repr(twin) == repr(layer)
        for name, array in layer.state_dict().items():
            assert_same_bits(twin.state_dict()[name], array, name)
        result, expected = twin(x), layer(x)
        while not isinstance(result, np.ndarray):
            result, expected = result[0], expected[0]
        assert_same_bits(result, expected)


@pytest.mark.parametrize("kind", ["GRU", "RNN", "GRUCell", "RNNCell"])
def test_keras_init(rng, kind):
    layer = made(kind, init="keras", rng=rng)
    arrays = {name.removesuffix("_l0"): array for name, array in layer.state_dict().items()}
    R, W = arrays["weight_hh"], arrays["weight_ih"]
    np.testing.assert_allclose(R.T @ R, np.eye(4), atol=1e-6)
    assert 0 < np.abs(W).max() <= (6 / sum(W.shape)) ** 0.5
    assert (arrays["bias_ih"] == 0).all()
    assert (arrays["bias_hh"] == 0).all()
    with pytest.raises(ValueError, match="init"):
        made(kind, init="chrono")
