"""RNNoise's network against a loop in its files' own layout."""

import numpy as np
import pytest
from audio_files import rnnoise

import fastlstm as fl
from fastlstm.interop.rnnoise import USUAL, RNNoise, from_arrays

T, B, F = 7, 3, 5
SIZES, BANDS = (6, 4, 3, 8), 2
OTHERS = {
    "input_dense": "relu", "vad_gru": "sigmoid", "noise_gru": "tanh", "denoise_gru": "relu",
    "denoise_output": "tanh", "vad_output": "relu",
}  # fmt: skip


def assert_computes(model, run, x):
    (gains, vad), _ = model(x)
    expected = [run(row) for row in x.swapaxes(0, 1)]
    for result, index in ((gains, 0), (vad, 1)):
        expected_result = np.stack([each[index] for each in expected], axis=1)
        np.testing.assert_allclose(result, expected_result, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("activations", [USUAL, OTHERS])
def test_files(rng, tmp_path, activations):
    x = rng.standard_normal((T, B, F)).astype(np.float32)
    text, arrays, run = rnnoise(rng, F, SIZES, BANDS, activations)
    (tmp_path / "model").write_text(text)
    model = fl.load(tmp_path / "model")
    assert type(model) is RNNoise
    assert_computes(model, run, x)
    assert_computes(from_arrays({**arrays, "x": x}, activations=activations), run, x)
    if activations == USUAL:
        found = fl.from_arrays({**arrays, "x": x})
        np.testing.assert_array_equal(found(x)[0][0], model(x)[0][0])
    first = fl.load(tmp_path / "model", batch_first=True)
    (gains, vad), _ = first(x.swapaxes(0, 1))
    np.testing.assert_array_equal(gains.swapaxes(0, 1), model(x)[0][0])
    np.testing.assert_array_equal(vad.swapaxes(0, 1), model(x)[0][1])


def made(rng):
    return from_arrays(rnnoise(rng, F, SIZES, BANDS, USUAL)[1])


def test_state_is_carried(rng):
    model, x = made(rng), rng.standard_normal((T, B, F)).astype(np.float32)
    (gains, vad), state = model(x)
    _, middle = model(x[:3])
    (later, later_vad), end = model(x[3:], middle)
    np.testing.assert_allclose(later, gains[3:], atol=1e-6)
    np.testing.assert_allclose(later_vad, vad[3:], atol=1e-6)
    assert [h.shape for h in state] == [(1, B, size) for size in SIZES[1:]]
    streams = model.zero_state(B)
    for t in range(T):
        for row in range(B):  # each stream alone
            now, speaks = model.step(x[t, [row]], streams, rows=[row])
            np.testing.assert_allclose(now[0], gains[t, row], atol=1e-6)
            np.testing.assert_allclose(speaks[0], vad[t, row], atol=1e-6)
    for a, b, c in zip(streams, state, end, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(c, b, atol=1e-6)
    (one, _), _ = model(x[:, 1])  # without a batch
    np.testing.assert_allclose(one, gains[:, 1], atol=1e-6)
    resets = np.zeros((T, B), bool)
    resets[3, 1] = True
    (anew, _), _ = model(x, resets=resets)
    np.testing.assert_allclose(anew[3:, 1], model(x[3:])[0][0][:, 1], atol=1e-6)
    np.testing.assert_allclose(anew[:, 0], gains[:, 0], atol=1e-6)
    ((again, _), _), _ = model.forward(x, resets=resets, recompute="sqrt", threads=1)
    np.testing.assert_allclose(again, anew, atol=1e-6)
    with pytest.raises(TypeError, match="x: expected an array"):
        model([x[:, 0], x[:, 1]])


def double(rng):
    """The same network in float64, with ReLU nowhere, for differences."""

    def dense(inputs, outputs, function):
        linear = fl.Linear(inputs, outputs, dtype=np.float64, rng=rng)
        return fl.Sequential(linear, fl.Activation(function))

    def gru(inputs, width):
        return fl.GRU(inputs, width, linear_before_reset=False, dtype=np.float64, rng=rng)

    d, v, n, g = SIZES
    return RNNoise(
        dense(F, d, "tanh"), gru(d, v), gru(d + v + F, n), gru(v + n + F, g),
        dense(g, BANDS, "sigmoid"), dense(v, 1, "sigmoid"),
    )  # fmt: skip


def test_gradients(rng):
    model, x = double(rng), rng.standard_normal((T, B, F))
    state = tuple(rng.uniform(-0.5, 0.5, (1, B, size)) for size in SIZES[1:])
    ((gains, vad), final), tape = model.forward(x, state)
    np.testing.assert_array_equal(gains, model(x, state)[0][0])
    weights = [rng.standard_normal(array.shape) for array in (gains, vad, *final)]

    def loss(x, state):
        (gains, vad), final = model(x, state)
        parts = zip((gains, vad, *final), weights, strict=True)
        return sum((part * weight).sum() for part, weight in parts)

    grads = model.backward(tape, weights[:2], tuple(weights[2:]))
    step = 1e-6

    def slope(change):
        change(step)
        after = loss(x, state)
        change(-2 * step)
        before = loss(x, state)
        change(step)
        return (after - before) / (2 * step)

    for array, gradient in zip((x, *state), (grads.x, *grads.state), strict=True):
        direction = rng.standard_normal(array.shape)

        def move(by, array=array, direction=direction):
            array += by * direction

        np.testing.assert_allclose((gradient * direction).sum(), slope(move), rtol=1e-6)
    assert grads.params.keys() == model.parameters().keys()
    for name, gradient in grads.params.items():
        direction = rng.standard_normal(gradient.shape)

        def move(by, name=name, direction=direction):
            arrays = model.state_dict()
            arrays[name] += by * direction
            model.load_state_dict(arrays)

        np.testing.assert_allclose(
            (gradient * direction).sum(), slope(move), rtol=1e-5, err_msg=name
        )
    with pytest.raises(ValueError, match="tape"):
        model.backward(tape, weights[:2])


def test_it_is_saved(rng, tmp_path):
    x = rng.standard_normal((T, B, F))
    for model in (made(rng), double(rng)):
        fl.save(tmp_path / "model", model)
        again = fl.load(tmp_path / "model")
        assert repr(again) == repr(model)
        np.testing.assert_array_equal(again(x)[0][0], model(x)[0][0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version 1", "version 2", "version: expected rnnoise-nu's version 1"),
        ("version 1", "version 11", "version: expected rnnoise-nu's version 1"),
        ("5 6 0", "5 6 3", "input_dense: expected an activation 0 to 2, got 3"),
        ("5 6 0", "5 0 0", "input_dense: expected sizes from 1 to 128, got 5 and 0"),
        ("5 6 0", "5 -6 0", "input_dense: expected sizes from 1 to 128, got 5 and -6"),
        ("5 6 0", "9999 9999 0", "input_dense: expected sizes from 1 to 128, got 9999 and 9999"),
        ("5 6 0", "1000000000000 6 0", "expected integers of 8 bits, got .*1000"),
        ("5 6 0", "5 6 0.5", "expected integers of 8 bits"),
        ("5 6 0", "5 6 nan", "expected integers of 8 bits"),
        ("5 6 0", "5 6 1-2", "expected integers of 8 bits"),
        ("5 6 0", "5 6 0 - 1", "expected integers of 8 bits"),
        ("\n4 1 1\n", "\n4 1 1\n7 ", "expected no more than .* integers"),
        ("\n4 1 1\n", "\n4 1 1\n200 ", "expected "),
    ],
)
def test_files_that_are_refused(rng, tmp_path, old, new, message):
    text, _, _ = rnnoise(rng, F, SIZES, BANDS, USUAL)
    assert old in text
    (tmp_path / "model").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"model: RNNoise: {message}"):
        fl.load(tmp_path / "model")


def test_files_that_are_cut_short(rng, tmp_path):
    text, _, _ = rnnoise(rng, F, SIZES, BANDS, USUAL)
    words = text.split(" ")
    for count in rng.integers(4, len(words), 20):
        (tmp_path / "model").write_text(" ".join(words[:count]))
        with pytest.raises(
            ValueError, match=r"model: RNNoise: \w+(\.\w+)?: .*expected \d+ integers"
        ):
            fl.load(tmp_path / "model")


def test_a_step_that_fails_leaves_all_states(rng):
    model, x = made(rng), rng.standard_normal((B, F)).astype(np.float32)
    good = model.zero_state(B)
    v, n, g = good
    model.step(x, good)
    before = [array.copy() for array in good]
    for state in ((v, n[:, :1].copy(), g), (v, n.tolist(), g), (v, n, v), (v, n, g.astype("f8"))):
        with pytest.raises((ValueError, TypeError), match="state"):
            model.step(x, state)
    with pytest.raises(ValueError, match="out: the result is a tuple"):
        model.step(x, good, out=np.zeros((B, 3), np.float32))
    for array, old in zip(good, before, strict=True):
        np.testing.assert_array_equal(array, old)
    gains, vad = fl.Sequential(model).step(x, (good,))
    assert len(gains) == len(vad) == B


def test_arrays_that_are_refused(rng):
    _, arrays, _ = rnnoise(rng, F, SIZES, BANDS, USUAL)

    def refused(message, error=ValueError, activations=None, **changes):
        changed = arrays | {name.replace("__", "."): array for name, array in changes.items()}
        with pytest.raises(error, match=message):
            from_arrays(
                {n: a for n, a in changed.items() if a is not None}, activations=activations
            )

    refused("noise_gru.recurrent: expected an array, got none", noise_gru__recurrent=None)
    refused(r"vad_gru.weights: expected shape \(6, 12\)", vad_gru__weights=np.zeros((5, 12), int))
    refused("vad_gru.weights: expected 3 blocks", vad_gru__weights=np.zeros((6, 13), int))
    refused(
        r"vad_output.weights: expected shape \(4, 1\)", vad_output__weights=np.zeros((4, 2), int)
    )
    refused("input_dense.bias: expected integers", TypeError, input_dense__bias=np.zeros(6))
    refused("input_dense.bias: expected integers from", input_dense__bias=np.full(6, 128))
    refused("input_dense.bias: expected a matrix or", input_dense__bias=np.zeros((6, 1), int))
    refused("activations: expected one of", activations={"vad_gru": "elu"})
    refused("activations: expected names of layers", activations={"vad": "relu"})
    with pytest.raises(TypeError, match="vad_gru: expected a GRU"):
        RNNoise(*[fl.Linear(3, 3)] * 6)


def test_case_of_rnnoise(cases):
    z = np.load(cases / "models/rnnoise-somnolent-hogwash/case.npz")
    (gains, vad), _ = fl.interop.rnnoise.from_arrays(z)(z["x"])
    np.testing.assert_allclose(gains, z["gains"], atol=5e-6)  # its tanh is a table
    np.testing.assert_allclose(vad, z["vad"], atol=5e-6)
