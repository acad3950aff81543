"""Operators that train: backward against finite differences, and a layer's manners."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from compare import assert_same_bits
from operators import OUTPUTS, WEIGHTS, call, random_call
from slopes import assert_slope, assert_slope_along

import fastlstm as fl

STATES = ("initial_h", "initial_c")
LENGTHS = [3, 0, 5, 1]
CASES = {
    "LSTM": ("LSTM", {}),
    "LSTM, coupled": ("LSTM", {"input_forget": 1, "direction": "bidirectional"}),
    "LSTM, layout 1": ("LSTM", {"layout": 1, "direction": "bidirectional"}),
    "LSTM, reverse": ("LSTM", {"direction": "reverse", "clip": 0.9}),
    "GRU": ("GRU", {"direction": "bidirectional"}),
    "GRU, layout 1": ("GRU", {"layout": 1, "direction": "reverse"}),
    "GRU, linear_before_reset": ("GRU", {"linear_before_reset": 1, "direction": "bidirectional"}),
    "RNN": ("RNN", {"direction": "reverse"}),
    "RNN, layout 1": ("RNN", {"layout": 1, "direction": "bidirectional"}),
}


class Loss:
    """A random linear function of the outputs."""

    def __init__(self, rng, outputs):
        self.weights = [rng.standard_normal(array.shape) for array in outputs]

    def __call__(self, outputs):
        return sum(np.vdot(*pair) for pair in zip(self.weights, outputs, strict=True))


def at(loss, made):
    return loss(made())


def gradients(made, rng):
    """Of everything by ONNX's names, and the loss they are of."""
    layer, rest = made.operator()
    outputs, tape = layer.forward(**rest)
    for ours, plain in zip(outputs, made(), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-12, atol=1e-14)
    loss = Loss(rng, outputs)
    grads = layer.backward(tape, *loss.weights)
    states = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    assert list(grads.params) == list(layer.state_dict())
    return {"X": grads.x} | dict(zip(STATES, states, strict=False)) | grads.params, loss


@pytest.mark.parametrize(("kind", "attributes"), CASES.values(), ids=CASES)
def test_finite_differences(kernels, rng, kind, attributes):
    made = call(rng, kind, lengths=LENGTHS, **attributes)
    found, loss = gradients(made, rng)
    for name, gradient in found.items():
        assert_slope(gradient, partial(at, loss, made), made.inputs[name], name)
    assert found.keys() == made.inputs.keys() - {"sequence_lens"}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_finite_differences_of_random_calls(kernels, rng, kind):
    bent = ("Relu", "LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Elu")
    count = 0
    while count < 10:
        made = random_call(rng, kind, np.float64)
        names = made.attributes.get("activations", [])
        if "clip" in made.attributes or set(names) & set(bent):
            continue  # which have a corner that a step may cross
        if max(np.abs(array).max() for array in made()) > 30:
            continue
        count += 1
        found, loss = gradients(made, rng)
        for name in found.keys() & made.inputs.keys():
            array, function = made.inputs[name], partial(at, loss, made)
            assert_slope_along(found[name], function, array, rng, f"{name} of {made.attributes}")


def test_gradients_that_are_not_given_are_zero(kernels, rng):
    made = call(rng, "LSTM", lengths=LENGTHS, direction="bidirectional")
    layer, rest = made.operator()

    def backward(**given):
        _, tape = layer.forward(**rest)
        return layer.backward(tape, **given)

    outputs, _ = layer.forward(**rest)
    dY, dY_h, dY_c = (rng.standard_normal(array.shape) for array in outputs)
    parts = backward(dY=dY), backward(dY_h=dY_h), backward(dY_c=dY_c)
    whole = backward(dY=dY, dY_h=dY_h, dY_c=dY_c)
    np.testing.assert_allclose(whole.x, sum(part.x for part in parts), atol=1e-13)
    for name, gradient in whole.params.items():
        np.testing.assert_allclose(gradient, sum(p.params[name] for p in parts), atol=1e-12)
    assert not backward().x.any()


@pytest.mark.parametrize("kind", OUTPUTS)
def test_gradients_of_float16(kernels, rng, kind):
    """Parameters are kept in float32; what goes in and out is float16."""
    made = call(rng, kind, direction="bidirectional", dtype=np.float16)
    single = made.with_({name: array.astype(np.float32) for name, array in made.inputs.items()})
    (half, half_rest), (full, full_rest) = made.operator(), single.operator()
    (outputs, tape), (_, full_tape) = half.forward(**half_rest), full.forward(**full_rest)
    gradient = rng.standard_normal(outputs[0].shape).astype(np.float16)
    of_half, of_full = half.backward(tape, gradient), full.backward(full_tape, gradient)
    assert_same_bits(of_half.x, of_full.x.astype(np.float16))
    for name, array in of_full.params.items():
        assert half.parameters()[name].dtype == np.float32
        assert_same_bits(of_half.params[name], array)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_training_steps(kernels, rng, kind):
    made = call(rng, kind, lengths=LENGTHS, direction="bidirectional", activations=None)
    layer, rest = made.operator()
    target = rng.uniform(-0.5, 0.5, layer(**rest)[0].shape)
    optimizer = fl.optim.Adam(lr=0.02)
    losses = []
    for _ in range(60):
        (Y, *_), tape = layer.forward(**rest)
        loss, dY = fl.losses.mse(Y, target)
        losses.append(loss)
        optimizer.step(layer, layer.backward(tape, dY))
    assert losses[-1] < 0.7 * losses[0]
    trained = made.with_(layer.state_dict())
    for function, own in zip(trained(), layer(**rest), strict=True):
        assert_same_bits(function, own)


def test_a_step_between_forward_and_backward(kernels, rng):
    """The gradient is that of the parameters that forward used."""
    layer, rest = call(rng, "LSTM").operator()
    outputs, tape = layer.forward(**rest)
    _, other = layer.forward(**rest)
    expected = layer.backward(other, outputs[0])
    layer.load_state_dict({name: 2 * array for name, array in layer.state_dict().items()})
    assert_same_bits(layer.backward(tape, outputs[0]).x, expected.x)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_copies(kernels, rng, kind, copied):
    layer, rest = call(rng, kind, direction="bidirectional", lengths=LENGTHS).operator()
    for ours, theirs in zip(layer(**rest), copied(layer)(**rest), strict=True):
        assert_same_bits(ours, theirs)


def test_a_tape_serves_one_backward(kernels, rng):
    layer, rest = call(rng, "GRU").operator()
    (Y, Y_h), tape = layer.forward(**rest)
    with pytest.raises(ValueError, match=r"^dY_h: "):
        layer.backward(tape, Y, Y_h[0])
    layer.backward(tape, Y, Y_h)
    with pytest.raises(ValueError, match=r"^tape: "):
        layer.backward(tape, Y)
    _, tape = layer.forward(**rest)
    with pytest.raises(ValueError, match=r"^tape: "):
        copy.deepcopy(layer).backward(tape, Y)


def test_what_a_layer_says(rng):
    layer, _ = call(rng, "LSTM", I=2, H=3, direction="reverse").operator()
    assert repr(layer) == "onnx.LSTM(2, 3, direction='reverse')"
    assert layer.num_parameters() == sum(layer.state_dict()[name].size for name in WEIGHTS)
    layer, _ = call(rng, "GRU", I=2, H=3, activations=["Tanh", "Elu"], clip=2).operator()
    assert repr(layer) == "onnx.GRU(2, 3, activations=[(('tanh',), ('elu', 1.0))], clip=2.0)"
