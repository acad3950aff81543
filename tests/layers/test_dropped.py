"""A number that dropout or zoneout drops is as if it were 0, even if it is inf or NaN."""

import copy

import numpy as np
import pytest
from compare import assert_same_bits
from random_layers import example

ELEMENTWISE = {
    "plain": {},
    "peepholes": {"peepholes": True},
    "coupled": {"coupled": True},
    "clip": {"clip": 0.7},
    "relu": {"activations": ("hard_sigmoid", "relu", ("leaky_relu", 0.3))},
}
elementwise = pytest.mark.parametrize("options", ELEMENTWISE.values(), ids=ELEMENTWISE)
bad_numbers = pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])


def train(case, state):
    """The results of a training call and its backward, and the masks of the call."""
    layer = copy.deepcopy(case.layer)  # with the generator as it was
    (y, final), tape = layer.forward(case.x, state)
    masks = getattr(tape.masks, "masks", tape.masks)
    grads = layer.backward(tape, np.ones_like(y), tuple(map(np.ones_like, final)))
    return y, final, grads, masks


def assert_same_gradients(grads, expected):
    assert_same_bits(grads.x, expected.x, "x")
    for name, array in expected.params.items():
        assert_same_bits(grads.params[name], array, name)
    for part, wanted in zip(grads.state, expected.state, strict=True):
        assert_same_bits(part, wanted, "state")


@bad_numbers
@pytest.mark.parametrize(
    "options",
    [{"proj_size": 3}, {"layer_norm": True}, {"bidirectional": True}, *ELEMENTWISE.values()],
    ids=str,
)
@pytest.mark.parametrize("sizes", [{"T": 1, "B": 1}, {"T": 3, "H": 19}], ids=str)
def test_recurrent_dropout(kernels, dtype, rng, sizes, options, bad):
    case = example(rng, recurrent_dropout=0.5, dtype=dtype, **sizes, **options)
    h, c = case.state
    *_, masks = train(case, (h, c))
    dropped = np.stack([mask.recurrent == 0 for mask in masks])
    assert dropped.any()
    zeros, spoiled = (np.where(dropped, value, h).astype(dtype) for value in (0, bad))
    y, final, expected, _ = train(case, (zeros, c))
    actual_y, actual_final, actual, _ = train(case, (spoiled, c))
    assert np.isfinite(actual_y).all()
    assert_same_bits(actual_y, y)
    for part, wanted in zip(actual_final, final, strict=True):
        assert_same_bits(part, wanted)
    assert_same_gradients(actual, expected)
    assert (actual.state[0][dropped] == 0).all()


@bad_numbers
def test_recurrent_dropout_of_an_infinite_gradient(kernels, dtype, rng, bad):
    case = example(rng, T=1, recurrent_dropout=0.5, dtype=dtype)
    (y, _), tape = case.forward()
    dropped = tape.masks[0].recurrent == 0
    grads = case.lstm.backward(tape, np.full_like(y, bad))
    assert (grads.state[0][0][dropped] == 0).all()
    assert not np.isfinite(grads.state[0][0][~dropped]).any()


@elementwise
@bad_numbers
def test_zoneout(kernels, dtype, rng, options, bad):
    """Where h and c keep their old values, the new ones are dropped, whatever they are."""
    case = example(rng, T=1, H=19, zoneout=(0.6, 0.7), dtype=dtype, **options)
    h, c = case.state
    *_, masks = train(case, (h, c))
    dropped = masks[0].kept_h & masks[0].kept_c
    assert dropped.any()
    zeros, spoiled = (np.where(dropped, value, c).astype(dtype) for value in (0, bad))
    y, final, expected, _ = train(case, (h, zeros))
    actual_y, actual_final, actual, _ = train(case, (h, spoiled))
    assert_same_bits(actual_y, y)
    assert_same_bits(actual_final[0], final[0])
    assert_same_bits(actual_final[1][~dropped], final[1][~dropped])
    assert_same_bits(actual_final[1][dropped], spoiled[dropped])
    assert_same_gradients(actual, expected)


@pytest.mark.parametrize("options", [{}, {"proj_size": 3}, {"peepholes": True}], ids=str)
@bad_numbers
def test_zoneout_of_everything(kernels, dtype, rng, options, bad):
    """The old state stays, in training and in inference."""
    case = example(
        rng,
        zoneout=(1.0, 1.0),
        activations=("sigmoid", "relu", "leaky_relu"),
        dtype=dtype,
        **options,
    )
    case.x[...] = bad
    (trained, trained_state), _ = case.forward()
    y, state = case()
    for part, given in zip((*state, *trained_state), case.state * 2, strict=True):
        assert_same_bits(part, given)
    for step in (*y, *trained):
        assert_same_bits(step, case.state[0][0])


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_zoneout_of_an_infinite_gradient(kernels, dtype, rng, bad):
    """The gradient of a number that is kept goes to the old one alone, and the other way round."""
    case = example(rng, T=1, H=19, zoneout=(0.5, 0.0), dtype=dtype)
    _, tape = case.forward()
    kept = tape.masks[0].kept_h[0]
    grads = case.lstm.backward(tape, np.where(kept, bad, 1).astype(dtype)[None])
    assert np.isfinite(grads.x).all()
    for name, array in grads.params.items():
        assert np.isfinite(array).all(), name
    assert not np.isfinite(grads.state[0][0][kept]).any()
    assert np.isfinite(grads.state[0][0][~kept]).all()
