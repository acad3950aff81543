"""Keras, where it is installed, and random models of it."""

import os
import tempfile

import numpy as np
import pytest


def import_keras():
    """Keras on torch or NumPy, with its settings in a folder of its own; skips if it is absent."""
    os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp())
    if "KERAS_BACKEND" not in os.environ:
        try:
            import torch  # noqa: F401
        except ImportError:
            os.environ["KERAS_BACKEND"] = "numpy"
        else:
            os.environ["KERAS_BACKEND"] = "torch"
    pytest.importorskip("h5py")
    return pytest.importorskip("keras")


def randomize(model, rng):
    """Draw every weight of a model anew, biases too."""
    for weight in model.weights:
        if weight.dtype in ("float32", "float64") and weight.shape:
            weight.assign(rng.uniform(-0.7, 0.7, weight.shape).astype(weight.dtype))


def random_model(keras, rng):
    """A random chain of layers, and an input for it."""
    layers, T, B = keras.layers, int(rng.integers(2, 9)), int(rng.integers(1, 6))

    def pick(*values):
        return values[rng.integers(len(values))]

    chain, kind = [], pick("features", "features", "masked", "indices", "masked indices")
    if "indices" in kind:
        count = int(rng.integers(4, 9))
        x = rng.integers(0, count, (B, T))
        chain += [keras.Input((pick(None, T),), dtype="int32")]
        chain += [layers.Embedding(count, int(rng.integers(2, 6)), mask_zero="masked" in kind)]
    else:
        inputs, value = int(rng.integers(1, 6)), float(pick(0.0, -1.0, 0.3))
        x = rng.standard_normal((B, T, inputs)).astype(np.float32)
        chain += [keras.Input((pick(None, T), inputs))]
        if rng.random() < 0.3:
            chain += [layers.Dense(inputs, activation=pick(None, "relu"))]
        if kind == "masked":
            x[rng.random((B, T)) < 0.35] = value
            chain += [layers.Masking(value)] if len(chain) == 1 else []
    count = int(rng.integers(1, 4))
    for k in range(count):
        keeps_steps = k < count - 1 or rng.random() < 0.5
        chain += [random_recurrent(layers, pick, rng, keeps_steps)]
        if rng.random() < 0.4:
            chain += [random_step_layer(layers, pick, rng, keeps_steps)]
    if rng.random() < 0.7:
        activation = pick(None, "softmax", "sigmoid", "gelu", "silu", "selu", "hard_sigmoid")
        dense = layers.Dense(int(rng.integers(1, 5)), activation, use_bias=rng.random() < 0.8)
        chain += [layers.TimeDistributed(dense) if keeps_steps and rng.random() < 0.4 else dense]
    if rng.random() < 0.5:
        model = keras.Sequential(chain)
    else:
        first = y = chain[0]
        for layer in chain[1:]:
            y = layer(y)
        model = keras.Model(first, y)
    randomize(model, rng)
    return model, x


def random_recurrent(layers, pick, rng, keeps_steps):
    kind = pick(layers.LSTM, layers.GRU, layers.SimpleRNN)
    options = {"use_bias": bool(rng.random() < 0.8), "unroll": False}
    options["activation"] = pick("tanh", "tanh", "relu", "softsign", "linear", "elu")
    if kind is not layers.SimpleRNN:
        options["recurrent_activation"] = pick("sigmoid", "hard_sigmoid", "tanh")
    if kind is layers.GRU:
        options["reset_after"] = bool(rng.random() < 0.5)
    if rng.random() < 0.2:
        options["dropout"] = 0.3
    layer = kind(
        int(rng.integers(1, 8)),
        return_sequences=keeps_steps,
        go_backwards=bool(rng.random() < 0.2),
        **options,
    )
    if rng.random() < 0.5 and not layer.go_backwards:
        layer = layers.Bidirectional(layer, merge_mode=pick("concat", "sum", "mul", "ave"))
    return layer


def random_step_layer(layers, pick, rng, keeps_steps):
    dense = layers.Dense(int(rng.integers(1, 6)), activation=pick("tanh", "leaky_relu"))
    return pick(
        layers.Dropout(0.3),
        layers.Activation(pick("elu", "softplus", "exponential", "softsign")),
        layers.ReLU(negative_slope=pick(0.0, 0.1)),
        layers.LeakyReLU(),
        dense,
        layers.TimeDistributed(dense) if keeps_steps else dense,
    )
