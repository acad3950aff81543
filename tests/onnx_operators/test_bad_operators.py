"""What has no meaning raises, naming the input or the attribute."""

import numpy as np
import pytest
from operators import ACTIVATIONS, OUTPUTS, call

import fastlstm as fl

T, B, I, H = 5, 4, 2, 3
BAD_INPUTS = {
    "X": {
        "one sequence": np.zeros((T, I)),
        "features": np.zeros((T, B, I + 1)),
        "single": np.zeros((T, B, I), np.float32),
        "ints": np.zeros((T, B, I), int),
        "complex": np.zeros((T, B, I), complex),
        "text": np.full((T, B, I), "0"),
        "masked": np.ma.zeros((T, B, I)),
        "nothing": None,
        "ragged": [[[0.0] * I], [[0.0]]],
        "byte order": np.zeros((T, B, I), ">f8"),
    },
    "W": {
        "no directions": np.zeros((4 * H, I)),
        "directions": np.zeros((2, 4 * H, I)),
        "rows": np.zeros((1, 4 * H + 4, I)),
        "no features": np.zeros((1, 4 * H, 0)),
        "long": np.zeros((1, 4 * H, I), np.longdouble),
        "ints": np.zeros((1, 4 * H, I), int),
        "nothing": None,
    },
    "R": {
        "no directions": np.zeros((4 * H, H)),
        "directions": np.zeros((2, 4 * H, H)),
        "columns": np.zeros((1, 4 * H, H + 1)),
        "nothing in it": np.zeros((1, 0, 0)),
        "single": np.zeros((1, 4 * H, H), np.float32),
        "nothing": None,
    },
    "B": {
        "one bias": np.zeros((1, 4 * H)),
        "directions": np.zeros((2, 8 * H)),
        "no directions": np.zeros(8 * H),
        "single": np.zeros((1, 8 * H), np.float32),
    },
    "P": {
        "one gate": np.zeros((1, H)),
        "directions": np.zeros((2, 3 * H)),
        "no directions": np.zeros(3 * H),
        "single": np.zeros((1, 3 * H), np.float32),
    },
    "sequence_lens": {
        "short": [3] * (B - 1),
        "beyond T": [3, T + 1, 3, 3],
        "negative": [3, -1, 3, 3],
        "floats": [3.0] * B,
        "number": 3,
    },
    "initial_h": {
        "batch": np.zeros((1, B + 1, H)),
        "directions": np.zeros((2, B, H)),
        "other layout": np.zeros((B, 1, H)),
        "single": np.zeros((1, B, H), np.float32),
    },
    "initial_c": {
        "features": np.zeros((1, B, H + 1)),
        "no directions": np.zeros((B, H)),
        "object": np.zeros((1, B, H), object),
    },
}
BAD_ATTRIBUTES = {
    "direction": ["both", "Forward", None, 1],
    "hidden_size": [0, -1, 2.5, "3", True],
    "layout": [2, -1, None, "1", 1.0],
    "clip": [0, -1.0, np.nan, np.inf, "1"],
    "input_forget": [2, None, "yes"],
    "linear_before_reset": [2, None, "yes"],
    "activations": [
        "Tanh",
        ["Tanh"] * 7,
        [],
        ["Swish"] * 3,
        [None] * 3,
        ["leaky_relu"] * 3,
        [b"Tanh"] * 3,
    ],
    "activation_alpha": [[0.3], [np.nan], ["a"], 0.3, [[0.3]], [0.3, 0.4]],
    "activation_beta": [[0.3], [np.inf], [None], 0.3],
}


def raises(argument):
    return pytest.raises((ValueError, TypeError), match=f"^{argument}[:\\[]")


def rows(table):
    return [
        pytest.param(name, value, id=f"{name}, {what}")
        for name, values in table.items()
        for what, value in values.items()
    ]


@pytest.mark.parametrize(("name", "value"), rows(BAD_INPUTS))
def test_inputs(kernels, rng, name, value):
    made = call(rng, "LSTM", T, B, I, H)
    with raises(name):
        made.with_({name: value})()


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_weights_of_the_other_number_of_directions(kernels, rng, kind, direction):
    other = "bidirectional" if direction == "reverse" else "reverse"
    made = call(rng, kind, direction=direction)
    for name, value in call(rng, kind, direction=other).inputs.items():
        if name != "X":
            with raises(name):
                made.with_({name: value})()


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(n, v, id=f"{n}={v!r}") for n, values in BAD_ATTRIBUTES.items() for v in values],
)
def test_attributes(rng, name, value):
    kind = "GRU" if name == "linear_before_reset" else "LSTM"
    with raises(name):
        call(rng, kind, T, B, I, H).with_(**{name: value})()


def test_hidden_size_that_is_not_that_of_the_weights(rng):
    with raises("R"):
        call(rng, "LSTM").with_(hidden_size=H + 1)()


@pytest.mark.parametrize("kind", OUTPUTS)
def test_number_of_activations(rng, kind):
    count = ACTIVATIONS[kind]
    for direction, names in (("reverse", 2 * count), ("bidirectional", count)):
        with raises("activations"):
            call(rng, kind, direction=direction, activations=["Tanh"] * names)()


def test_more_alphas_than_activations_that_take_one(rng):
    names = ["HardSigmoid", "Tanh", "LeakyRelu"]
    call(rng, "LSTM", activations=names, activation_alpha=[0.3, 0.4])()
    with raises("activation_alpha"):
        call(rng, "LSTM", activations=names, activation_alpha=[0.3, 0.4, 0.5])()
    with raises("activation_beta"):
        call(rng, "LSTM", activations=names, activation_beta=[0.3, 0.4])()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("RNN", "input_forget"),
        ("GRU", "input_forget"),
        ("LSTM", "linear_before_reset"),
        ("LSTM", "output_sequence"),
        ("RNN", "P"),
        ("GRU", "initial_c"),
    ],
)
def test_attributes_and_inputs_of_other_operators(rng, kind, name):
    inputs = call(rng, kind).inputs
    with pytest.raises(TypeError, match=name):
        getattr(fl.onnx, kind.lower())(**inputs, **{name: 1})
