"""`bias="single"`: one trained bias, as layers from formats with one bias have it."""

import numpy as np
import pytest

import fastlstm as fl

LAYERS = {
    "LSTM": lambda bias: fl.LSTM(3, 5, 2, bias, bidirectional=True, rng=0),
    "GRU": lambda bias: fl.GRU(3, 5, bias=bias, linear_before_reset=False, rng=0),
    "RNN": lambda bias: fl.RNN(3, 5, bias=bias, rng=0),
    "LSTMCell": lambda bias: fl.LSTMCell(3, 5, bias, rng=0),
    "GRUCell": lambda bias: fl.GRUCell(3, 5, bias, rng=0),
    "RNNCell": lambda bias: fl.RNNCell(3, 5, bias, rng=0),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_second_bias_stays_zero(kind, rng):
    layer, both = LAYERS[kind]("single"), LAYERS[kind](True)
    assert repr(layer).count("'single'") == 1
    both.load_state_dict(layer.state_dict())
    x = rng.normal(size=(4, 2, 3)[layer.one_step :])
    optimizer = fl.optim.Adam(lr=0.1, weight_decay=0.2)
    for step in range(3):
        result, tape = layer.forward(x)
        dresult = result if layer.one_step else result[0]
        gradients = layer.backward(tape, dresult).params
        if not step:
            expected = both.backward(both.forward(x)[1], dresult).params
            for name, array in expected.items():
                held = name.startswith("bias_hh")
                assert (gradients[name] == (0 if held else array)).all()
                assert array.any() or not name.startswith("bias")
        optimizer.step(layer, fl.Gradients(params=gradients))
    for name, array in layer.parameters().items():
        assert array.any() != name.startswith("bias_hh"), name


def test_a_step_is_that_of_a_layer_with_one_bias(rng):
    """Plain descent: both biases of torch's form move, so their sum moves twice as far."""
    x, sums = rng.normal(size=(4, 2, 3)), {}
    for bias in ("single", True):
        layer = fl.RNN(3, 5, bias=bias, dtype=np.float64, rng=0)
        start = layer.state_dict() | {"bias_ih_l0": np.arange(5.0), "bias_hh_l0": np.zeros(5)}
        layer.load_state_dict(start)
        (y, _), tape = layer.forward(x)
        fl.optim.SGD(lr=0.1).step(layer, layer.backward(tape, y))
        sums[bias] = layer.bias_ih_l0 + layer.bias_hh_l0 - np.arange(5.0)
    np.testing.assert_allclose(2 * sums["single"], sums[True], rtol=1e-9)


def test_saved(tmp_path):
    fl.save(tmp_path / "m", fl.GRU(3, 5, bias="single"))
    assert fl.load(tmp_path / "m").bias == "single"


def test_bad_value():
    with pytest.raises(ValueError, match="""bias: expected True, False or "single", got 'one'"""):
        fl.LSTM(3, 5, bias="one")
