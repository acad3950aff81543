"""Numbers beyond float32's range: refused by name. Those given as inf or NaN stay what they are."""

import numpy as np
import pytest
from compare import assert_same_bits
from random_layers import GRU_AND_RNN, example, parts

import fastlstm as fl
from fastlstm import losses

T, B, I, H = 7, 5, 3, 4
LARGEST = float(np.finfo(np.float32).max)
BEYOND = [1e39, -1e39, 1e300, 2.0**128, -LARGEST * (1 + 2.0**-24)]
layers = pytest.mark.parametrize("options", [{}, *GRU_AND_RNN.values()], ids=str)
beyond = pytest.mark.parametrize("number", BEYOND)


def refused(name):
    return pytest.raises(ValueError, match=rf"^{name}: expected values within float32's range, got")


def spoiled(array, number, place=-1):
    array = np.array(array, np.float64)
    array.flat[place] = number
    return array


@layers
@beyond
def test_calls(kernels, rng, options, number):
    case = example(rng, num_layers=2, **options)
    x, state, layer = case.x, parts(case.state), case.layer
    for place in (0, x.size // 2, x.size - 1):
        bad = spoiled(x, number, place)
        for run in (layer, layer.forward):
            for form in (bad, bad[::-1], np.asfortranarray(bad), bad.astype(np.longdouble)):
                with refused("x"):
                    run(form, case.state)
    with refused(r"x\[1\]"):
        layer([x[:, 0], spoiled(x[:, 1], number)])
    for k, name in enumerate("hc"[: len(state)]):
        bad = [part.astype(np.float64) for part in state]
        bad[k].flat[3] = number
        bad = tuple(bad) if len(bad) > 1 else bad[0]
        (y, final), tape = case.forward()
        for run in (lambda s: layer(x, s), lambda s: layer.forward(x, s)):
            with refused(f"state: {name}"):
                run(bad)
        with refused(f"dstate: {name}"):
            layer.backward(tape, None, bad)
        with refused("dy"):
            layer.backward(tape, spoiled(y, number))
        layer.backward(tape, y, final)  # the tape is still good


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
@beyond
def test_cells(kernels, rng, kind, number):
    cell = getattr(fl, kind)(I, H, rng=rng)
    x, h = np.ones((B, I)), np.ones((B, H))
    state = (h, h) if kind == "LSTMCell" else h
    bad = (h, spoiled(h, number)) if kind == "LSTMCell" else spoiled(h, number)
    for run in (cell, cell.forward):
        with refused("x"):
            run(spoiled(x, number), state)
        with refused("state: [hc]"):
            run(x, bad)
    with refused("dstate: [hc]"):
        cell.backward(cell.forward(x)[1], bad)


@beyond
def test_other_entrances(kernels, rng, number):
    line, table = fl.Linear(3, 2, rng=rng), fl.Embedding(4, 3, rng=rng)
    x, y = np.ones((2, 3)), np.ones((2, 2))
    operator = fl.onnx.RNN(*(np.ones(shape, np.float32) for shape in [(1, 2, 3), (1, 2, 2)]), None)
    X = np.ones((4, 1, 3), np.float32)
    dropout = fl.Dropout(0.5)
    calls = {
        "x": [lambda: line(spoiled(x, number)), lambda: line.forward(spoiled(x, number))],
        "dy": [
            lambda: line.backward(line.forward(x)[1], spoiled(y, number)),
            lambda: table.backward(table.forward([1, 2])[1], spoiled(x, number)),
            lambda: dropout.backward(dropout.forward(X[0])[1], spoiled(X[0], number)),
        ],
        "dY": [lambda: operator.backward(operator.forward(X)[1], np.full((4, 1, 1, 2), number))],
        "target": [lambda: losses.mse(np.ones(3, np.float32), spoiled(np.ones(3), number))],
        r"state_dict\['bias'\]": [
            lambda: line.load_state_dict({"weight": np.ones((2, 3)), "bias": [1, number]})
        ],
        r"grads.params\['bias'\]": [
            lambda: fl.optim.SGD().step(
                line, fl.Gradients(params={"weight": np.ones((2, 3)), "bias": [1, number]})
            )
        ],
    }
    before = line.state_dict()
    for name, of_name in calls.items():
        for call in of_name:
            with refused(name):
                call()
    for name, array in before.items():
        assert_same_bits(line.parameters()[name], array)


@layers
def test_the_largest_numbers_pass(kernels, rng, options):
    case = example(rng, **options)
    x = spoiled(case.x, LARGEST * (1 + 2.0**-26))  # rounds to the largest
    x.flat[3], x.flat[5] = np.inf, -np.inf
    x.flat[11] = np.nan
    with np.errstate(all="ignore"):
        plain = x.astype(np.float32)
    assert plain.flat[-1] == np.float32(LARGEST)
    state = tuple(map(np.float64, parts(case.state)))
    assert_same_bits(
        case.layer(x, state if len(state) > 1 else state[0])[0], case.layer(plain, case.state)[0]
    )


@layers
@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_may_hold_anything(kernels, rng, options, batch_first):
    case = example(rng, lengths=True, batch_first=batch_first, **options)
    lengths = case.options["lengths"]
    x = case.x.reshape(B, T, I) if batch_first else case.x
    after_end = np.arange(T)[:, None] >= lengths
    after_end = after_end.T if batch_first else after_end
    wild, dy = x.astype(np.float64), np.ones((*x.shape[:2], H))
    wild[after_end] = dy[after_end] = 1e300
    expected, _ = case.layer(x, case.state, lengths=lengths)
    (y, _), tape = case.layer.forward(wild, case.state, lengths=lengths)
    assert_same_bits(y, expected)
    assert_same_bits(case.layer(wild, case.state, lengths=lengths)[0], expected)
    grads = case.layer.backward(tape, dy)
    _, tape = case.layer.forward(x, case.state, lengths=lengths)
    wanted = case.layer.backward(tape, np.ones_like(y))
    assert_same_bits(grads.x, wanted.x)
    for name, array in wanted.params.items():
        assert_same_bits(grads.params[name], array, name)


def test_float64_has_no_such_limit(kernels, rng):
    case = example(rng, dtype=np.float64)
    assert np.isfinite(case.layer(spoiled(case.x, 1e300))[0]).all()
