"""The network of an estimator, and the scaling of its channels."""

import numpy as np
import pytest

import fastlstm as fl
from fastlstm.in_sklearn.network import build_network
from fastlstm.in_sklearn.scaling import CHUNK, measure_scaling


def test_a_network_of_all_parts():
    model = build_network(
        3,
        4,
        cell="gru",
        hidden_size=5,
        num_layers=2,
        bidirectional=True,
        dropout=0.25,
        pooling="max",
        dtype="float64",
        rng=7,
    )
    gru, pool, dropout, head = (model[k] for k in range(len(model)))
    assert repr(gru) == repr(
        fl.GRU(3, 5, 2, batch_first=True, dropout=0.25, bidirectional=True, dtype="float64")
    )
    assert (pool.kind, dropout.p) == ("max", 0.25)
    assert (head.in_features, head.out_features, head.dtype) == (10, 4, np.float64)
    assert model(np.ones((2, 7, 3)))[0].shape == (2, 4)
    again = build_network(
        3, 4, cell="gru", hidden_size=5, num_layers=2, bidirectional=True, dtype="float64", rng=7
    )
    assert len(again) == 3  # without dropout
    for name in ("0.weight_ih_l0", "0.weight_hh_l1_reverse"):
        np.testing.assert_array_equal(model.parameters()[name], again.parameters()[name])


def test_a_network_of_steps():
    model = build_network(3, 2, hidden_size=5, dropout=0.5, pooling=None)
    assert [type(model[k]).__name__ for k in range(3)] == ["LSTM", "Dropout", "Linear"]
    assert model[0].dropout == 0  # there is nothing between layers
    assert model(np.ones((4, 7, 3)))[0].shape == (4, 7, 2)


def test_a_scaling_keeps_the_digits_of_large_values(rng):
    steps = rng.normal(1e9, 1e-3, (2 * CHUNK + 5, 2))
    steps[:, 1] = 0.1
    scaling = measure_scaling(steps)
    near = steps[:, 0] - 1e9  # exact
    assert scaling.mean[0] - 1e9 == pytest.approx(near.mean(), abs=2e-7)
    assert scaling.scale[0] == pytest.approx(near.std(), rel=1e-4)
    assert scaling.scale[1] == 1
    scaled = scaling.apply(steps, np.float32)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled[:, 0], (near - near.mean()) / near.std(), atol=1e-3)
    np.testing.assert_allclose(scaling.undo(scaling.apply(steps)), steps, rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_weights_of_a_scaling_are_copies(dtype, rng):
    steps = rng.integers(-50, 50, (300, 3)).astype(dtype)
    weights = rng.integers(0, 4, 300)
    weighted = measure_scaling(steps, weights.astype(float))
    copies = np.repeat(steps, weights, axis=0).astype(np.float64)
    np.testing.assert_allclose(weighted.mean, copies.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(weighted.scale, copies.std(axis=0), rtol=1e-12)


def test_rounding_is_no_deviation():
    from fastlstm.in_sklearn.scaling import measure_scaling

    steps = np.full((100, 1), 1e8)
    steps[::2] = np.nextafter(1e8, 2e8)
    assert measure_scaling(steps).scale == 1
