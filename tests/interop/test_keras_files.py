"""Files that Keras itself writes, read without it."""

import sys

import numpy as np
import pytest
from compare import assert_same_bits
from keras_models import import_keras, random_model, randomize

import fastlstm as fl
from fastlstm.interop.keras.activations import of_layer
from fastlstm.interop.keras.config import Layer

keras = import_keras()
layers = keras.layers
to_arrays = fl.interop.keras.to_arrays
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
PACKAGES = "pyfive", "h5py"


@pytest.fixture(params=PACKAGES)
def package(request, monkeypatch):
    """The one package that the reader finds."""
    pytest.importorskip(request.param)
    monkeypatch.setattr("fastlstm.interop.keras.hdf5.PACKAGES", (request.param,))


def predicted(model, x):
    return np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def computed(model, x):
    result = model(x)
    return result[0] if isinstance(result, tuple) else result


def assert_same_model(path, model, x, error=1e-6):
    again, expected = fl.load(path), predicted(model, x)
    y = computed(again, x)
    assert y.dtype == expected.dtype
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=error, atol=error * max(1, abs(expected).max()))
    return again


def check_random_model(seed, folder, error=1e-6):
    model, x = random_model(keras, np.random.default_rng(seed))
    for name in ("model.keras", "model.h5"):
        model.save(folder / name)
        assert_same_model(folder / name, model, x, error)


@pytest.mark.parametrize("seed", range(4))
def test_random_model(seed, tmp_path, package):
    check_random_model(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4, 204))
def test_many_random_models(seed, tmp_path):
    # An LSTM without bounds on its cell (seed 135) lets float32's rounding grow to 2e-6.
    check_random_model(seed, tmp_path, 4e-6 if seed == 135 else 1e-6)


def test_every_layer_at_once(rng, tmp_path, package):
    chain = [
        keras.Input((None, 3)),
        layers.Masking(0.5),
        layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="mul"),
        layers.Dropout(0.2),
        layers.GRU(
            5, return_sequences=True, reset_after=False, recurrent_activation="hard_sigmoid"
        ),
        layers.TimeDistributed(layers.Dense(6, activation="relu", use_bias=False)),
        layers.SimpleRNN(3, go_backwards=True),
        layers.Activation("tanh"),
        layers.LeakyReLU(0.2),
        layers.Dense(2, activation="softmax"),
    ]
    model = keras.Sequential(chain)
    randomize(model, rng)
    x = rng.standard_normal((4, 7, 3)).astype(np.float32)
    x[0, :2] = x[1, 5:] = x[2, 3] = x[3] = 0.5
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        again = assert_same_model(tmp_path / name, model, x)
        assert isinstance(again, fl.Masking)
        found = fl.interop.keras.layers(tmp_path / name)
        assert [type(layer).__name__ for layer in found.values()] == ["LSTM", "GRU", "RNN"]
        assert set(found) < {layer.name for layer in model.layers}


@pytest.mark.parametrize("keeps_steps", [True, False])
def test_masked_steps_of_bidirectional_layers(keeps_steps, rng, tmp_path):
    """They return zeros there, whatever was said, and other layers repeat."""
    x = rng.standard_normal((4, 7, 3)).astype(np.float32)
    x[0, :2] = x[1, 5:] = x[2, 3] = x[3] = 0
    for count in (0, 1):
        chain = [layers.SimpleRNN(2, return_sequences=True)][:count]
        chain += [layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="sum")]
        chain += [layers.Bidirectional(layers.GRU(3, return_sequences=keeps_steps))][count:]
        model = keras.Sequential([keras.Input((7, 3)), layers.Masking(), *chain])
        randomize(model, rng)
        model.save(tmp_path / "model.keras")
        assert_same_model(tmp_path / "model.keras", model, x)


@pytest.mark.parametrize("masked", [False, True])
def test_embedding_of_words(masked, rng, tmp_path):
    i = keras.Input((None,), dtype="int32")
    y = layers.Embedding(9, 3, mask_zero=masked)(i)
    y = layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="ave")(y)
    model = keras.Model(i, layers.Dense(2, activation="sigmoid")(layers.GRU(5)(y)))
    randomize(model, rng)
    model.save(tmp_path / "model.keras")
    again = assert_same_model(tmp_path / "model.keras", model, rng.integers(0, 3, (5, 8)))
    words = [[1, 2, 0, 4], [8, 3]]  # a list is a batch of its own, whatever stands beside
    y, _ = again(words)
    for k, row in enumerate(words):
        np.testing.assert_allclose(y[k], predicted(model, np.array([row]))[0], atol=1e-6)


def test_one_layer_is_the_layer_itself(rng, tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4, return_sequences=True)])
    model.save(tmp_path / "model.keras")
    again = fl.load(tmp_path / "model.keras")
    assert repr(again) == "LSTM(3, 4, bias='single', batch_first=True)"
    steps_first = fl.load(tmp_path / "model.keras", batch_first=False)
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(steps_first(x.swapaxes(0, 1))[0].swapaxes(0, 1), again(x)[0])


def test_a_stateful_layer_leaves_its_state_to_the_caller(rng, tmp_path):
    chain = [keras.Input((4, 3), batch_size=2), layers.GRU(5, stateful=True, dropout=0.1)]
    model = keras.Sequential(chain)
    randomize(model, rng)
    x = rng.standard_normal((2, 8, 3)).astype(np.float32)
    model.layers[0].reset_states()
    model(x[:, :4])
    expected = predicted(model, x[:, 4:])
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        again = fl.load(tmp_path / name)
        _, state = again(x[:, :4])
        np.testing.assert_allclose(again(x[:, 4:], state)[0], expected, atol=1e-6)


def test_float64_stays_float64(rng, tmp_path, package):
    policy = keras.DTypePolicy("float64")
    kinds = [layers.LSTM(4, dtype=policy), layers.Dense(2, dtype=policy)]
    model = keras.Sequential([keras.Input((None, 3)), *kinds])
    model.save(tmp_path / "model.keras")
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)  # which an Input makes of it
    again = assert_same_model(tmp_path / "model.keras", model, x.astype(np.float64))
    for ours, theirs in zip(to_arrays(again[0]), kinds[0].get_weights(), strict=True):
        assert_same_bits(ours, theirs)


# Arrays alone.


def test_weights_ask_for_what_they_do_not_say(rng, tmp_path, package):
    model = keras.Sequential(
        [keras.Input((None, 3)), layers.LSTM(4, return_sequences=True), layers.Dense(2)]
    )
    randomize(model, rng)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    with pytest.raises(ValueError, match=r"model\.weights\.h5.*recurrent_activation: expected"):
        fl.load(path)
    layer = fl.load(path, recurrent_activation="sigmoid")
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(layer(x)[0], predicted(model.layers[0], x), atol=1e-6)
    with pytest.raises(ValueError, match="modules: expected None"):
        fl.load(path, recurrent_activation="sigmoid", modules={})


def test_weights_of_several_layers(rng, tmp_path):
    kinds = [
        layers.Bidirectional(layers.GRU(5, return_sequences=True)),
        layers.SimpleRNN(4, return_sequences=True),
        layers.GRU(3, use_bias=False, reset_after=False, return_sequences=True),
    ]
    model = keras.Sequential([keras.Input((None, 2)), *kinds])
    randomize(model, rng)
    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    given = {"recurrent_activation": "sigmoid", "nonlinearity": "tanh", "reset_after": False}
    with pytest.raises(ValueError, match=r"prefix: .*bidirectional.*gru.*simple_rnn"):
        fl.load(path)
    with pytest.raises(ValueError, match="nonlinearity: expected as an argument"):
        fl.load(path, prefix="layers/simple_rnn")
    with pytest.raises(ValueError, match="reset_after: expected as an argument"):
        fl.load(path, prefix="layers/gru", recurrent_activation="sigmoid")
    found = fl.interop.keras.layers(path, **given)
    assert list(found) == ["layers/bidirectional", "layers/gru", "layers/simple_rnn"]
    x = rng.standard_normal((2, 5, 2)).astype(np.float32)
    for name, layer in zip(("bidirectional", "simple_rnn", "gru"), kinds, strict=True):
        expected = predicted(layer, x)
        x_next, _ = found[f"layers/{name}"](x)
        np.testing.assert_allclose(x_next, expected, atol=1e-6)
        x = expected


# The way back.


def test_arrays_go_back_to_the_bit(rng, tmp_path):
    kinds = [
        layers.LSTM(4, return_sequences=True),
        layers.Bidirectional(layers.GRU(5, return_sequences=True)),
        layers.GRU(3, reset_after=False, return_sequences=True),
        layers.SimpleRNN(4, return_sequences=True, use_bias=False),
    ]
    model = keras.Sequential([keras.Input((None, 2)), *kinds, layers.Dense(3)])
    randomize(model, rng)
    model.save(tmp_path / "model.keras")
    again = fl.load(tmp_path / "model.keras")
    for ours, theirs in zip(again, model.layers, strict=True):
        for a, b in zip(to_arrays(ours), theirs.get_weights(), strict=True):
            assert_same_bits(a, b)
    model.set_weights([np.zeros_like(array) for array in model.get_weights()])
    for ours, theirs in zip(again, model.layers, strict=True):
        theirs.set_weights(to_arrays(ours))
    assert_same_model(tmp_path / "model.keras", model, np.ones((2, 3, 2), np.float32))


def test_a_layer_of_two_biases_goes_to_keras(rng):
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    for ours, theirs in (
        (fl.LSTM(3, 4, batch_first=True, rng=0), layers.LSTM(4, return_sequences=True)),
        (fl.GRU(3, 4, batch_first=True, rng=0), layers.GRU(4, return_sequences=True)),
        (fl.RNN(3, 4, batch_first=True, rng=0), layers.SimpleRNN(4, return_sequences=True)),
    ):
        theirs.build(x.shape)
        theirs.set_weights(to_arrays(ours))
        np.testing.assert_allclose(predicted(theirs, x), ours(x)[0], atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (fl.LSTM(3, 4, 2), "expected one layer"),
        (fl.LSTM(3, 4, peepholes=True), "peepholes has no counterpart"),
        (fl.LSTM(3, 4, proj_size=2), "proj_size has no counterpart"),
        (fl.GRU(3, 4, clip=1.0), "clip has no counterpart"),
        (fl.LSTM(3, 4, zoneout=(0.0, 0.5)), "zoneout has no counterpart"),
        (fl.Dropout(0.5), "expected LSTM, GRU, RNN, Linear or Embedding"),
    ],
)
def test_what_keras_has_not(layer, text):
    with pytest.raises((ValueError, TypeError), match=text):
        to_arrays(layer)


@pytest.mark.skipif(keras.backend.backend() == "numpy", reason="Keras does not train on NumPy")
@pytest.mark.parametrize("kind", ["LSTM", "SimpleRNN", "GRU"])
def test_training_keeps_the_pace_of_keras(kind, rng, tmp_path):
    """Plain gradient descent on one bias; with two of them, biases would move twice as fast."""
    options = {"reset_after": False} if kind == "GRU" else {}
    layer = getattr(layers, kind)(4, return_sequences=True, **options)
    model = keras.Sequential([keras.Input((6, 3)), layer, layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.3), "mse")
    model.save(tmp_path / "model.keras")
    again, optimizer = fl.load(tmp_path / "model.keras"), fl.optim.SGD(lr=0.3)
    before = model.get_weights()
    for _ in range(3):
        x, target = (rng.standard_normal((5, 6, n)).astype(np.float32) for n in (3, 2))
        model.train_on_batch(x, target)
        (y, _), tape = again.forward(x)
        _, dy = fl.losses.mse(y, target)
        optimizer.step(again, again.backward(tape, dy))
    weights = model.get_weights()
    assert abs(weights[2] - before[2]).max() > 1e-3
    for ours, theirs in zip([a for m in again for a in to_arrays(m)], weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


# What is refused.


class Own(layers.Layer):
    def call(self, x):
        return x


def refused():
    lstm, steps = layers.LSTM, {"return_sequences": True}
    return {
        "conv1d": [layers.Conv1D(2, 3)],
        "own": [Own()],
        "return_state": [lstm(4, return_state=True)],
        "merge_mode": [layers.Bidirectional(lstm(4, **steps), merge_mode=None)],
        "activation": [lstm(4, activation="mish")],
        "gates have no gelu": [lstm(4, activation="gelu")],
        "max_value": [layers.ReLU(6)],
        "a second": [layers.Masking(), layers.Masking(), lstm(4)],
        "pooling of masked": [layers.Masking(), lstm(4, **steps), layers.GlobalAveragePooling1D()],
        "zero_output_for_mask": [layers.Masking(), lstm(4, zero_output_for_mask=True)],
        "noise_shape": [layers.Dropout(0.5, noise_shape=(1, 1, 3))],
        "expected a Dense layer": [layers.TimeDistributed(layers.Softmax())],
    }


@pytest.mark.parametrize("what", refused())
def test_a_layer_without_counterpart_is_named(what, tmp_path):
    chain = refused()[what]
    y = first = keras.Input((5, 3))
    for layer in chain:
        y = layer(y)
    model = keras.Model(first, y[0] if isinstance(y, (list, tuple)) else y)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name}: .*layer '") as error:
            fl.load(tmp_path / name)
        assert what in str(error.value)


def test_recurrent_dropout_without_counterpart_warns(rng, tmp_path):
    x = rng.standard_normal((2, 5, 3)).astype(np.float32)
    for kind in ("LSTM", "GRU"):
        layer = getattr(layers, kind)(4, return_sequences=True, recurrent_dropout=0.3)
        model = keras.Sequential([keras.Input((5, 3)), layer])
        model.save(tmp_path / "model.keras")
        if kind == "GRU":
            with pytest.warns(UserWarning, match="layer 'gru.*recurrent_dropout"):
                again = fl.load(tmp_path / "model.keras")
        else:
            again = fl.load(tmp_path / "model.keras")
            assert again.recurrent_dropout == 0.3
        np.testing.assert_allclose(again(x)[0], predicted(model, x), atol=1e-6)


def test_a_graph_that_is_no_chain_is_refused(tmp_path):
    first = keras.Input((5, 3))
    sides = [layers.LSTM(4, name=f"side{k}")(first) for k in range(2)]
    keras.Model(first, layers.Add()(sides)).save(tmp_path / "two.keras")
    keras.Model(first, sides[0]).save(tmp_path / "one.keras")
    h = keras.Input((4,))
    keras.Model([first, h], layers.GRU(4)(first, initial_state=h)).save(tmp_path / "state.keras")
    keras.Model(first, sides).save(tmp_path / "outputs.keras")
    fl.load(tmp_path / "one.keras")
    for name in ("two", "state", "outputs"):
        with pytest.raises(
            ValueError, match=rf"{name}\.keras: a model of Keras: .*(layer '|output)"
        ):
            fl.load(tmp_path / f"{name}.keras")


def test_recurrent_layers_of_any_model(rng, tmp_path):
    """Encoder and decoder with a state between them, and layers that are of no kind known here."""
    first, second = keras.Input((5, 3)), keras.Input((4, 2))
    encoder = layers.Bidirectional(
        layers.LSTM(6, return_state=True), name="encoder", merge_mode=None
    )
    decoder = layers.GRU(6, return_sequences=True, name="decoder")
    found = encoder(layers.Conv1D(3, 1)(first))
    y = decoder(layers.Conv1D(3, 1)(second), initial_state=found[2])
    model = keras.Model([first, second], layers.Add()([y, y]))
    randomize(model, rng)
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        ours = fl.interop.keras.layers(tmp_path / name)
        assert sorted(ours) == ["decoder", "encoder"]
        for layer in (encoder, decoder):
            for a, b in zip(to_arrays(ours[layer.name]), layer.get_weights(), strict=True):
                assert_same_bits(a, b)


def test_layers_within_layers_are_refused(tmp_path):
    first = keras.Input((5, 3))
    inner = keras.Sequential([layers.LSTM(4, return_sequences=True)], name="inner")
    model = keras.Sequential([first, layers.GRU(3, return_sequences=True), inner])
    model.save(tmp_path / "model.keras")
    for read in (fl.load, fl.interop.keras.layers):
        with pytest.raises(ValueError, match=r"model\.keras: .*layer 'inner' \(Sequential\)"):
            read(tmp_path / "model.keras")


def test_without_a_package_for_hdf5(tmp_path, monkeypatch):
    model = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4)])
    model.save(tmp_path / "model.keras")
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'HDF5 needs pyfive or h5py: .*"fastlstm\[keras\]"'):
        fl.load(tmp_path / "model.keras")


def test_a_leaky_relu_whose_slope_is_not_said():
    """Keras' default is 0.3."""
    assert of_layer(Layer("LeakyReLU", "leaky", {})).alpha == 0.3
