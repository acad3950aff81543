"""JSON files of audio effects against loops in the files' own layouts."""

import itertools
import json

import numpy as np
import pytest
from audio_files import FUNCTIONS, nam, proteus, rtneural

import fastlstm as fl

T, B = 9, 3


def written(path, file):
    path.write_text(json.dumps(file), encoding="utf-8")
    return path


def assert_computes(model, run, x):
    """Every sequence of x (T, B, I) gives what `run` computes of it alone; also step by step."""
    y, _ = model(x)
    expected = np.stack([run(row) for row in x.swapaxes(0, 1)], axis=1)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, atol=2e-6)
    state = model.zero_state(x.shape[1])
    np.testing.assert_allclose([model.step(step, state) for step in x], y, atol=1e-6)


def test_nam(rng, tmp_path):
    sizes = [(1, 3, 1, 1), (1, 5, 2, 1), (2, 4, 3, 1), (3, 7, 2, 2)]
    for I, H, layers, outputs in sizes:
        file, run = nam(rng, I, H, layers, outputs)
        model = fl.load(written(tmp_path / "amp.nam", file))
        assert repr(model[0]) == repr(
            fl.LSTM(I, H, layers, bias="single", learn_initial_state=True)
        )
        assert_computes(model, run, rng.standard_normal((T, B, I)))
    assert len(nam(rng, 1, 3, 1, 1)[0]["weights"]) == 70  # NAM's own example


def test_layers_of_rtneural(rng, tmp_path):
    for kind, activation in itertools.product(("lstm", "gru"), ("", "tanh")):
        file, run = rtneural(rng, 2, (kind, 5, activation))
        model = fl.load(written(tmp_path / "model.json", file))
        assert repr(model).startswith(kind.upper())  # a single layer stands alone
        assert_computes(model, run, rng.standard_normal((T, B, 2)))
    for function in FUNCTIONS:
        plan = ("gru", 4, "tanh"), ("dense", 6, function), ("lstm", 3, ""), ("dense", 2, "")
        file, run = rtneural(rng, 3, ("time-distributed-dense", 5, "tanh"), *plan)
        model = fl.load(written(tmp_path / "model.json", file))
        assert_computes(model, run, rng.standard_normal((T, B, 3)))
    file, run = rtneural(rng, 3, ("gru", 5, ""), ("activation", None, "elu"), ("dense", 2, ""))
    model = fl.load(written(tmp_path / "model.json", file))
    assert_computes(model, run, rng.standard_normal((T, B, 3)))


@pytest.mark.slow
def test_random_models_of_rtneural(rng, tmp_path):
    for _ in range(200):
        kinds = rng.choice(["lstm", "gru", "dense", "time-distributed-dense"], rng.integers(1, 6))
        plan = [
            (kind, int(size), str(rng.choice(list(FUNCTIONS))) if "dense" in kind else "tanh")
            for kind, size in zip([*kinds, "lstm"], rng.permutation(range(1, 20)), strict=False)
        ]
        file, run = rtneural(rng, 20, *map(tuple, plan))
        assert_computes(
            fl.load(written(tmp_path / "model", file)), run, rng.standard_normal((T, B, 20))
        )


@pytest.mark.parametrize(
    ("skip", "before", "behind"),
    [(0, 0, 0), (1, 0, 0), (1, -6.5, 4.25), (0, 3.5, -91), (0, None, 12)],
)
def test_aida_x(rng, tmp_path, skip, before, behind):
    more = {"in_skip": skip, "in_gain": before, "out_gain": behind, "metadata": {"name": "amp"}}
    file, run = rtneural(rng, 1, ("lstm", 5, ""), ("dense", 1, ""), **more)
    model = fl.load(written(tmp_path / "model.aidax", file))

    def aida(x):
        x = x * 10 ** ((before or 0) / 20)
        y = run(x) + skip * x
        return y * (10 ** (behind / 20) if behind > -90 else 0)

    assert_computes(model, aida, rng.standard_normal((T, B, 1)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_proteus(rng, tmp_path, kind):
    for layers, I, outputs, skip in [(1, 1, 1, 1), (3, 4, 2, 2), (2, 3, 2, 1), (2, 2, 1, 0)]:
        file, run = proteus(rng, kind, I, 5, layers, outputs, skip, bias=layers < 3)
        model = fl.load(written(tmp_path / "amp.json", file))
        x = rng.standard_normal((T, B, I))
        assert_computes(model, run, x)
        fl.save(tmp_path / "saved", model)
        np.testing.assert_array_equal(fl.load(tmp_path / "saved")(x)[0], model(x)[0])


def test_batch_first_is_the_callers(rng, tmp_path):
    for file in (
        nam(rng, 2, 3, 2, 1)[0],
        rtneural(rng, 2, ("gru", 5, ""), in_skip=1)[0],
        proteus(rng, "GRU", 2, 3, 1, 2, 2)[0],
    ):
        path, x = written(tmp_path / "model", file), rng.standard_normal((T, B, 2))
        y, _ = fl.load(path)(x)
        again, _ = fl.load(path, batch_first=True)(x.swapaxes(0, 1))
        np.testing.assert_array_equal(again.swapaxes(0, 1), y)


def test_state_dicts_of_torch(rng, tmp_path):
    first, second, dense = fl.GRU(2, 4, rng=0), fl.GRU(4, 3, 2, rng=1), fl.Linear(3, 5, rng=2)
    layers = {"gru.": first, "net.gru2.": second, "dense.": dense}
    arrays = {
        prefix + name: array.tolist()
        for prefix, layer in layers.items()
        for name, array in layer.state_dict().items()
    }
    path = written(tmp_path / "torch.json", arrays)
    with pytest.raises(ValueError, match=r"torch\.json.*prefix.*'gru\.', 'net\.gru2\.', 'dense\.'"):
        fl.load(path)
    model = fl.Sequential(*(fl.load(path, prefix=prefix) for prefix in layers))
    x = rng.standard_normal((T, B, 2)).astype(np.float32)
    np.testing.assert_array_equal(model(x)[0], fl.Sequential(*layers.values())(x)[0])


def skips(rng, dtype, **options):
    lstm = fl.LSTM(3, 5, 2, dtype=dtype, rng=rng, **options)
    return [
        fl.interop.audio.Skip(fl.Sequential(lstm, fl.Linear(5, outputs, dtype=dtype, rng=rng)), n)
        for outputs, n in ((1, 1), (2, 2), (3, 1))
    ]


def test_gradients_of_a_skip_connection(rng):
    x, lengths = rng.standard_normal((6, 2, 3)), np.array([4, 6])
    for model, options in itertools.product(skips(rng, np.float64), ({}, {"lengths": lengths})):
        (y, state), tape = model.forward(x, **options)
        np.testing.assert_array_equal(y, model(x, **options)[0])
        weight = rng.standard_normal(y.shape)

        def loss(x, model=model, options=options, weight=weight):
            (y, ((h, c),)) = model(x, **options)
            return (y * weight).sum() + h.sum() + (c * c).sum()

        dstate = ((np.ones_like(state[0][0]), 2 * state[0][1]),)
        grads = model.backward(tape, weight, dstate)
        direction, step = rng.standard_normal(x.shape), 1e-6
        if options:
            assert not y[4:, 0].any()
            assert not grads.x[4:, 0].any()
            direction[4:, 0] = 0
        slope = (loss(x + step * direction) - loss(x - step * direction)) / (2 * step)
        np.testing.assert_allclose((grads.x * direction).sum(), slope, rtol=1e-7)
        inner = model.model.backward(model.model.forward(x, **options)[1], weight, dstate)
        for name, array in inner.params.items():
            np.testing.assert_array_equal(grads.params[f"model.{name}"], array)
        with pytest.raises(ValueError, match="tape"):
            model.backward(tape, weight)


def test_a_skip_connection_in_a_sequential(rng):
    x = rng.standard_normal((T, B, 3)).astype(np.float32)
    lengths = np.array([4, 9, 7])
    for skip in skips(rng, np.float32):
        model = fl.Sequential(skip)
        rows = [model(x[:n, [k]])[0][:, 0] for k, n in enumerate(lengths)]
        for row, expected in zip(
            model([x[:n, k] for k, n in enumerate(lengths)])[0], rows, strict=True
        ):
            np.testing.assert_allclose(row, expected, atol=1e-6)
        for y in (model(x, lengths=lengths)[0], skip(x, lengths=lengths)[0]):
            for k, n in enumerate(lengths):
                np.testing.assert_allclose(y[:n, k], rows[k], atol=1e-6)
                assert not y[n:, k].any()
        mask = np.ones((T, B), bool)
        mask[3] = False
        np.testing.assert_allclose(
            model(x, mask=mask)[0][mask[:, 0]], model(x[mask[:, 0]])[0], atol=1e-6
        )
        out = np.empty((B, model(x)[0].shape[-1]), np.float32)
        assert model.step(x[0], model.zero_state(B), out=out) is out
        np.testing.assert_array_equal(out, model.step(x[0], model.zero_state(B)))
        state = skip.zero_state(B)
        for wrong in (np.zeros((B, 9), np.float32), np.zeros_like(out, np.float64), state[0][0]):
            with pytest.raises((ValueError, TypeError), match="out: "):
                skip.step(x[0], state, out=wrong)
        assert not any(array.any() for array in state[0])
    with pytest.raises(TypeError, match=r"x: .*Sequential"):
        skip([x[:, 0]])
    with pytest.raises(ValueError, match="channels: expected 1 or as many as outputs, 3, got 2"):
        fl.interop.audio.Skip(skip.model, 2)(x)


def test_a_loaded_model_trains(rng, tmp_path):
    model = fl.load(written(tmp_path / "amp.nam", nam(rng, 1, 4, 1, 1)[0]))
    x, optimizer = rng.standard_normal((T, B, 1)), fl.optim.Adam(0.01)
    before, losses = model.state_dict(), []
    for _ in range(20):
        (y, _), tape = model.forward(x)
        loss, dy = fl.losses.mse(y, np.tanh(x))
        losses.append(loss)
        optimizer.step(model, model.backward(tape, dy))
    assert losses[-1] < losses[0]
    moved = {name for name, array in model.parameters().items() if (array != before[name]).any()}
    assert moved == before.keys() - {"0.bias_hh_l0"}


def change(file, *path_and_value):
    *path, last, value = path_and_value
    part = file
    for name in path:
        part = part[name]
    part[last] = value
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("architecture", "WaveNet"), "architecture: expected LSTM, got 'WaveNet'"),
        (("version", "0.8.0"), "version: .*'0.8.0'"),
        (("version", 0.5), "version: expected a text"),
        (("config", "hidden_size", 10**12), "config.hidden_size: "),
        (("config", "hidden_size", 4), r"weights: expected 109 numbers .* got 70"),
        (
            ("config", "num_layers", 2**31 - 1),
            "config.num_layers: expected a whole number from 1 to 1000",
        ),
        (("config", "in_channels", 2), "config.in_channels: expected 1, got 2"),
        (("weights", [0.5] * 71), r"weights: expected 70 numbers .* got 71"),
        (("weights", 3, True), "weights: expected a list of numbers"),
        (("weights", 3, float("nan")), "weights: expected finite numbers of float32, got nan"),
        (("weights", 3, 1e39), r"weights: expected finite numbers of float32, got 1e\+39"),
        (("weights", 3, "0.5"), "weights: expected a list of numbers"),
        (("config", []), "config: expected an object"),
    ],
)
def test_nam_refuses(rng, tmp_path, changes, message):
    path = written(tmp_path / "amp.nam", change(nam(rng, 1, 3, 1, 1)[0], *changes))
    with pytest.raises(ValueError, match=f"amp.nam: JSON: {message}"):
        fl.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ("layers", 0, "shape", [None, None, 20]),
            r"layers\[0\].shape\[-1\]: expected 5, .* got 20",
        ),
        (("layers", 0, "shape", [None, 1, 1, 5]), r"layers\[0\].shape: expected a list of up to 3"),
        (("in_shape", [None, None, 2]), r"layers\[0\].weights\[0\]: expected shape \(2, 20\)"),
        (("in_shape", [None, None, 2**31]), r"in_shape\[-1\]: "),
        (("in_shape", None), "in_shape: expected a list"),
        (("layers", 0, "activation", "relu"), r"layers\[0\].activation: expected tanh in lstm"),
        (("layers", 1, "activation", "selu"), r"layers\[1\].activation: .*'selu'"),
        (("layers", 1, "type", "conv1d"), r"layers\[1\].type: .*'conv1d'"),
        (("layers", 1, "type", "batchnorm"), r"layers\[1\].type: .*'batchnorm'"),
        (("layers", 1, "type", "prelu"), r"layers\[1\].type: .*'prelu'"),
        (("layers", 1, "weights", 1, [0.5]), r"layers\[1\].weights\[1\]: expected shape \(2,\)"),
        (("layers", 1, "weights", []), r"layers\[1\].weights: expected 2 arrays, got 0"),
        (
            ("layers", 0, "weights", 1, 3, [1.0]),
            r"layers\[0\].weights\[1\]: expected lists of equal",
        ),
        (("layers", []), "layers: their number: expected a whole number from 1 to 1000, got 0"),
        (("in_skip", 2), "in_skip: expected a whole number from 0 to 1, got 2"),
        (("in_skip", True), "in_skip: expected a whole number from 0 to 1, got True"),
        (("out_gain", "3"), "out_gain: expected decibels"),
    ],
)
def test_rtneural_refuses(rng, tmp_path, changes, message):
    file, _ = rtneural(rng, 1, ("lstm", 5, "tanh"), ("dense", 2, ""))
    with pytest.raises(ValueError, match=f"model.json: JSON: {message}"):
        fl.load(written(tmp_path / "model.json", change(file, *changes)))


def test_rtneural_refuses_what_its_engine_does_not_compute(rng, tmp_path):
    file, _ = rtneural(rng, 2, ("gru", 4, ""))
    file["layers"][0]["weights"][2] = file["layers"][0]["weights"][2][0]  # of reset_after=False
    with pytest.raises(ValueError, match=r"layers\[0\].weights\[2\]: expected shape \(2, 12\)"):
        fl.load(written(tmp_path / "model", file))
    file, _ = rtneural(rng, 2, ("gru", 4, ""), in_gain=3)
    with pytest.raises(ValueError, match="in_gain: expected none for 2 inputs"):
        fl.load(written(tmp_path / "model", file))
    with pytest.raises(ValueError, match="nonlinearity: expected None"):
        fl.load(
            written(tmp_path / "model", rtneural(rng, 2, ("gru", 4, ""))[0]), nonlinearity="relu"
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("model_data", "model", "GatedConvNet"), "model_data.model: .*'GatedConvNet'"),
        (("model_data", "unit_type", "Transformer"), "model_data.unit_type: .*'Transformer'"),
        (
            ("model_data", "hidden_size", 4),
            r"state_dict.rec.weight_ih_l0: expected shape \(16, 3\)",
        ),
        (("model_data", "num_layers", 1), r"state_dict: expected no other names, got .*_l1"),
        (("model_data", "num_layers", 10**9), "model_data.num_layers: expected a whole"),
        (("model_data", "skip", 3), "model_data.skip: expected 0, 1 or 2, got 3"),
        (("model_data", "skip", True), "model_data.skip: expected a whole number"),
        (("model_data", "skip", None), "model_data.skip: expected a whole number"),
        (
            ("model_data", "bias_fl", False),
            r"state_dict: expected no other names, got \['lin.bias'\]",
        ),
        (("state_dict", "rec.extra", [1.0]), r"state_dict: expected no other names"),
        (("state_dict", "lin.bias", [1.0]), r"state_dict.lin.bias: expected shape \(2\)"),
        (("state_dict", []), "state_dict: expected an object"),
    ],
)
def test_proteus_refuses(rng, tmp_path, changes, message):
    file = change(proteus(rng, "LSTM", 3, 5, 2, 2, 2)[0], *changes)
    with pytest.raises(ValueError, match=f"amp.json: JSON: {message}"):
        fl.load(written(tmp_path / "amp.json", file))


def test_cases_of_rtneural(cases):
    def samples(path):
        return np.loadtxt(path, delimiter=",", dtype=np.float32).reshape(-1, 1, 1)

    for file in ("rtneural/gru", "rtneural/lstm", "models/rtneural-gru/gru_1d"):
        y, _ = fl.load(cases / f"{file}.json")(samples(cases / f"{file}_x_python.csv"))
        np.testing.assert_allclose(y, samples(cases / f"{file}_y_python.csv"), atol=3e-7)
    for file in ("rtneural/gru", "rtneural/lstm", "models/rtneural-gru/gru"):
        path, kind = cases / f"{file}_torch.json", file.rpartition("/")[2]
        prefixes = (f"{kind}.", f"{kind}2.", "dense.")
        model = fl.Sequential(*(fl.load(path, prefix=prefix) for prefix in prefixes))
        y, _ = model(samples(cases / f"{file}_torch_x_python.csv"))
        np.testing.assert_allclose(y, samples(cases / f"{file}_torch_y_python.csv"), atol=3e-7)


def test_a_skip_connection_around_no_recurrent_layer(rng):
    skip, x = fl.interop.audio.Skip(fl.Linear(1, 1, rng=0)), rng.standard_normal((4, 2, 1))
    tape = skip.forward(x)[1]
    for call in (
        lambda: skip(x, np.zeros(3)),
        lambda: skip(x, lengths=[4, 2]),
        lambda: skip.forward(x, threads=1),
        lambda: skip.backward(tape, x, np.zeros(3)),
    ):
        with pytest.raises(ValueError, match="no layer is recurrent, so expected none"):
            call()
    assert skip.backward(tape, x).x.shape == x.shape
