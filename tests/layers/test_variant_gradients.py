"""backward of every variant of fl.LSTM, and of what they combine to, against finite differences."""

import copy

import numpy as np
import pytest
from compare import assert_near
from random_layers import VARIANTS, example
from slopes import assert_slope_along

import fastlstm as fl
from fastlstm.engine.reading.state import arrays_of
from fastlstm.layers.activations import PARAMETERS

SMALL = {"T": 4, "B": 3, "I": 2}
RAGGED = {"lengths": True, "resets": True}


def flat(result):
    """y and every array of the state."""
    y, state = result
    return [y, *arrays_of(state)]


def assert_slopes(rng, case, state):
    """With a copy of the layer, whose generator draws what the layer itself would draw next."""
    start = copy.deepcopy(case.lstm)

    def run():
        return copy.deepcopy(start).forward(case.x, state, **case.options)[0]

    twin = copy.deepcopy(start)
    result, tape = twin.forward(case.x, state, **case.options)
    weights = [rng.standard_normal(array.shape) for array in flat(result)]

    def loss():
        return sum(np.vdot(w, array) for w, array in zip(weights, flat(run()), strict=True))

    gradients = iter(weights)
    dy = next(gradients)
    dstate = tuple(
        [next(gradients) for _ in part] if isinstance(part, list) else next(gradients)
        for part in result[1]
    )
    grads = twin.backward(tape, dy, dstate)
    assert_slope_along(grads.x, loss, case.x, rng, "x")
    if state is not None:
        for array, actual in zip(arrays_of(state), arrays_of(grads.state), strict=True):
            assert_slope_along(actual, loss, array, rng, "state")
    parameters = start.state_dict()
    assert list(grads.params) == list(parameters)

    def with_parameters():
        start.load_state_dict(parameters)
        return loss()

    for name, array in parameters.items():
        assert_slope_along(grads.params[name], with_parameters, array, rng, name)


@pytest.mark.parametrize("timing", [{}, RAGGED], ids=["", "lengths and resets"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_variant(kernels, rng, options, timing):
    case = example(rng, **SMALL | options, **timing, dtype=np.float64)
    assert_slopes(rng, case, case.state)


@pytest.mark.parametrize("name", ["learned state", "everything"])
def test_learned_state(kernels, rng, name):
    case = example(rng, **SMALL | VARIANTS[name], **RAGGED, dtype=np.float64)
    assert_slopes(rng, case, None)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["gates", "candidate", "output"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_every_activation(kernels, rng, name, place):
    activations = ["sigmoid", "tanh", "tanh"]
    activations[place] = (name, 0.6, -0.7)[: 1 + len(PARAMETERS[name])]
    case = example(rng, **SMALL, activations=activations, clip=1.0, dtype=np.float64)
    assert_slopes(rng, case, case.state)


@pytest.mark.parametrize("seed", range(50))
def test_random_combinations(kernels, seed):
    rng = np.random.default_rng(seed)

    def maybe(value, otherwise):
        return value if rng.random() < 0.5 else otherwise

    widths = maybe([int(n) for n in rng.integers(3, 6, rng.integers(1, 3))], 4)
    smooth = [name for name in PARAMETERS if "relu" not in name]
    options = {
        "H": widths,
        "proj_size": maybe(2, 0),
        "bias": maybe(True, rng.random() < 0.5),
        "bidirectional": maybe(True, False),
        "peepholes": maybe(True, False),
        "coupled": maybe(True, False),
        "layer_norm": maybe(True, False),
        "activations": maybe(tuple(rng.choice(smooth, 3).tolist()), ("sigmoid", "tanh", "tanh")),
        "clip": maybe(1.0, None),
        "recurrent_dropout": maybe(0.3, 0.0),
        "zoneout": (maybe(0.3, 0.0), maybe(0.4, 0.0)),
        "learn_initial_state": maybe(True, False),
        "lengths": maybe(True, False),
        "resets": maybe(True, False),
    }
    options["bias"] = bool(options["bias"])
    T, B, I = (int(n) for n in rng.permutation([2, 3, 4]))
    case = example(rng, T=T, B=B, I=I, **options, dtype=np.float64)
    assert_slopes(rng, case, maybe(case.state, None))


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_float32_follows_float64(kernels, rng, options):
    # A row of few units may have a small deviation, by which layer norm divides.
    deterministic = {n: v for n, v in options.items() if n not in ("zoneout", "recurrent_dropout")}
    case = example(rng, **{"T": 20, "B": 9} | deterministic, **RAGGED, dtype=np.float64)
    known = {n: v for n, v in deterministic.items() if n != "H"}
    single = fl.LSTM(3, case.lstm.hidden_size, **known, dtype=np.float32)
    single.load_state_dict(case.lstm.state_dict())
    results = []
    for lstm in (single, case.lstm):
        (y, state), tape = lstm.forward(case.x, case.state, **case.options)
        results.append(lstm.backward(tape, np.ones_like(y), state))
    actual, expected = results
    assert_near(actual.x, expected.x, 3e-3, "x")
    for name, array in expected.params.items():
        assert actual.params[name].dtype == np.float32
        assert_near(actual.params[name], array, 3e-3, name)
