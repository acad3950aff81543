"""The operators against the specification."""

import inspect

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from operators import ACTIVATIONS, INPUTS, OUTPUTS, TAKES, WEIGHTS, call, random_call
from oracle_onnx import operator

import fastlstm as fl

KINDS = list(OUTPUTS)
DIRECTIONS = ["forward", "reverse", "bidirectional"]
LENGTHS = [3, 0, 5, 1]


def expected(made):
    """The oracle's outputs."""
    inputs = {name: array.tolist() for name, array in made.inputs.items()}
    return [np.array(output) for output in operator(made.kind, **inputs, **made.attributes)]


def assert_as_expected(made, what=""):
    outputs = made()
    assert len(outputs) == len(OUTPUTS[made.kind])
    for name, ours, theirs in zip(OUTPUTS[made.kind], outputs, expected(made), strict=True):
        assert_close(ours, theirs, np.float64, f"{name} {what}")


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_inputs(kernels, rng, kind, direction, layout):
    assert_as_expected(call(rng, kind, lengths=LENGTHS, direction=direction, layout=layout))


@pytest.mark.parametrize("kind", KINDS)
def test_random_calls(kernels, rng, kind):
    """In float64, which ONNX Runtime has not."""
    for _ in range(20):
        made = random_call(rng, kind, np.float64)
        if max(np.abs(array).max() for array in expected(made)) < 30:
            assert_as_expected(made, made.attributes)


@pytest.mark.parametrize("names", [("B",), ("initial_h",), ("initial_c",), ("P",), None])
@pytest.mark.parametrize("kind", KINDS)
def test_missing_inputs(kernels, rng, kind, names):
    leave_out = names or ("B", "initial_h", "initial_c", "P")
    assert_as_expected(call(rng, kind, leave_out=leave_out, direction="bidirectional"))


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("LSTM", {"input_forget": 1}),
        ("LSTM", {"input_forget": 1, "clip": 0.3}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 1, "clip": 0.3}),
        ("GRU", {"clip": 0.3}),
        ("RNN", {"clip": 0.3}),
    ],
    ids=str,
)
def test_attributes(kernels, rng, kind, attributes):
    made = call(rng, kind, lengths=LENGTHS, direction="bidirectional", **attributes)
    assert_as_expected(made)
    without = call(rng, kind, direction="bidirectional")()
    assert not np.allclose(made()[1], without[1])


def test_alphas_and_betas_go_to_those_that_take_them(kernels, rng):
    """In the order of the activations; what is left without has its default."""
    names = ["HardSigmoid", "Tanh", "ScaledTanh", "leakyrelu", "AFFINE", "Elu"]
    for alphas, betas in (
        ([0.3, 1.2, 0.1, 0.7, 0.6], [0.4, 0.8, 0.2]),
        ([0.3, 1.2, 0.1], [0.4]),
        ([0.3], []),
        ([], []),
    ):
        made = call(
            rng,
            "LSTM",
            direction="bidirectional",
            activations=names,
            activation_alpha=alphas,
            activation_beta=betas,
        )
        assert_as_expected(made, (alphas, betas))


def test_defaults_of_alpha_and_beta(kernels, rng):
    for name in TAKES:
        assert_as_expected(call(rng, "RNN", activations=[name]), name)


@pytest.mark.parametrize("kind", KINDS)
def test_layout_1_is_layout_0_turned(kernels, rng, kind):
    made = call(rng, kind, lengths=LENGTHS, direction="bidirectional")
    states = made.inputs.keys() & {"X", "initial_h", "initial_c"}
    turned = made.with_({name: made.inputs[name].swapaxes(0, 1) for name in states}, layout=1)
    (Y, *finals), (turned_Y, *turned_finals) = made(), turned()
    assert_same_bits(turned_Y, Y.transpose(2, 0, 1, 3))
    for final, turned_final in zip(finals, turned_finals, strict=True):
        assert_same_bits(turned_final, final.swapaxes(0, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional_is_both_directions(kernels, rng, kind):
    names = list(TAKES)[1 : 1 + 2 * ACTIVATIONS[kind]]
    made = call(rng, kind, lengths=LENGTHS, direction="bidirectional", activations=names)
    Y, *finals = made()
    for d, direction in enumerate(["forward", "reverse"]):
        own = slice(d * ACTIVATIONS[kind], (d + 1) * ACTIVATIONS[kind])
        inputs = {
            name: array if name in ("X", "sequence_lens") else array[d : d + 1]
            for name, array in made.inputs.items()
        }
        alone = made.with_(inputs, direction=direction, activations=names[own])
        one, *ends = alone()
        assert_same_bits(np.ascontiguousarray(Y[:, d : d + 1]), np.ascontiguousarray(one))
        for end, final in zip(ends, finals, strict=True):
            assert_same_bits(final[d : d + 1], end)


@pytest.mark.parametrize("kind", KINDS)
def test_row_without_steps(kernels, rng, kind):
    """Its outputs are zeros, its state what it was."""
    made = call(rng, kind, lengths=[0] * 4, direction="bidirectional")
    Y, *finals = made()
    assert not Y.any()
    for name, final in zip(("initial_h", "initial_c"), finals, strict=False):
        assert_same_bits(final, made.inputs[name])


@pytest.mark.parametrize("sizes", [{"T": 0}, {"batch": 0}], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do(kernels, rng, kind, sizes):
    made = call(rng, kind, **sizes)
    Y, *finals = made()
    T, batch, directions, H = made.sizes
    assert Y.shape == (T, directions, batch, H)
    for name, final in zip(("initial_h", "initial_c"), finals, strict=False):
        assert_same_bits(np.ascontiguousarray(final), made.inputs[name])


@pytest.mark.parametrize("kind", KINDS)
def test_float16_is_computed_in_float32(kernels, rng, kind):
    made = call(rng, kind, lengths=LENGTHS, direction="bidirectional", dtype=np.float16)
    single = {
        name: array.astype(np.float32) if array.dtype == np.float16 else array
        for name, array in made.inputs.items()
    }
    for half, full in zip(made(), made.with_(single)(), strict=True):
        assert half.dtype == np.float16
        assert_same_bits(half, full.astype(np.float16))


def test_beyond_float16_is_inf(kernels):
    X, W, R = np.full((1, 1, 1), 300, np.float16), *np.full((2, 1, 1, 1), 300, np.float16)
    Y, Y_h = fl.onnx.rnn(X, W, R, activations=["Relu"])
    assert Y.item() == Y_h.item() == np.inf


def test_arrays_are_the_callers(kernels, rng):
    """Nothing given is changed, made read-only or kept."""
    made = call(rng, "LSTM", lengths=LENGTHS)
    before = {name: array.copy() for name, array in made.inputs.items()}
    layer, rest = made.operator()
    first = layer(**rest)
    for name, array in before.items():
        np.testing.assert_array_equal(made.inputs[name], array)
        assert made.inputs[name].flags.writeable
    for name in "WRBP":
        made.inputs[name][...] = 0
    for again, output in zip(layer(**rest), first, strict=True):
        assert_same_bits(again, output)


def test_any_strides(kernels, rng):
    made = call(rng, "LSTM", lengths=LENGTHS, direction="bidirectional")
    odd = made.with_({name: np.asfortranarray(array) for name, array in made.inputs.items()})
    for ours, plain in zip(odd(), made(), strict=True):
        assert_same_bits(ours, plain)


ATTRIBUTES = [
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "layout",
]
OWN = {"LSTM": ["input_forget"], "GRU": ["linear_before_reset"], "RNN": []}


@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize("of_call", [False, True], ids=["class", "function"])
def test_signatures_show_every_input_and_attribute(kind, of_call):
    shown = inspect.signature(getattr(fl.onnx, kind.lower() if of_call else kind)).parameters
    keywords = [name for name, one in shown.items() if one.kind is one.KEYWORD_ONLY]
    assert sorted(keywords) == sorted(ATTRIBUTES + OWN[kind])
    inputs = [name for name, one in shown.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    wanted = [name for name in INPUTS if kind == "LSTM" or name not in ("initial_c", "P")]
    if not of_call:
        wanted = [name for name in wanted if name in WEIGHTS]
    assert inputs == wanted
    assert len(shown) == len(keywords) + len(inputs)
