"""Layouts that Keras 1, Keras 2 and CuDNN's layers wrote, made by hand with h5py.

The expected values are Keras' equations, written for one gate at a time.
"""

import json

import numpy as np
import pytest

import fastlstm as fl

h5py = pytest.importorskip("h5py", reason="the files are made with it")
I, H, O, B, T = 3, 4, 2, 5, 6


@pytest.fixture(params=["pyfive", "h5py"], autouse=True)
def package(request, monkeypatch):
    """The one package that the reader finds."""
    pytest.importorskip(request.param)
    monkeypatch.setattr("fastlstm.interop.keras.hdf5.PACKAGES", (request.param,))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def hard(slope):
    return lambda z: np.clip(slope * z + 0.5, 0, 1)


class Gates:
    """For each gate W (I, H), U (H, H), and biases b and c (H,) of the input and of the state."""

    def __init__(self, rng, names, inputs=I):
        for name in names:
            sizes = {"W": (inputs, H), "U": (H, H), "b": (H,), "c": (H,)}
            drawn = {kind: rng.uniform(-0.9, 0.9, size) for kind, size in sizes.items()}
            setattr(self, name, {k: a.astype(np.float32) for k, a in drawn.items()})

    def argument(self, name, x, h, has_two=False):
        gate = getattr(self, name)
        z = x @ gate["W"] + gate["b"] + h @ gate["U"]
        return z + gate["c"] if has_two else z

    def side_by_side(self, kind, names):
        return np.concatenate([getattr(self, name)[kind] for name in names], axis=-1)


def lstm(gates, x, gate=sigmoid, has_two=False):
    h, c, outputs = np.zeros((len(x), H)), np.zeros((len(x), H)), []
    for t in range(x.shape[1]):
        i, f, g, o = (gates.argument(name, x[:, t], h, has_two) for name in "ifco")
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def gru(gates, x, gate=sigmoid, reset_after=False):
    h, outputs = np.zeros((len(x), H)), []
    for t in range(x.shape[1]):
        z, r = (gate(gates.argument(name, x[:, t], h, reset_after)) for name in "zr")
        own = gates.h
        if reset_after:
            n = np.tanh(x[:, t] @ own["W"] + own["b"] + r * (h @ own["U"] + own["c"]))
        else:
            n = np.tanh(x[:, t] @ own["W"] + own["b"] + (r * h) @ own["U"])
        h = z * h + (1 - z) * n
        outputs.append(h)
    return np.stack(outputs, axis=1)


def write(path, layers, *, version=None, config=None, split=False):
    """A file in the layout of Keras 1 and 2: {layer: {name of an array: array}}."""
    with h5py.File(path, "w") as file:
        root = file if config is None else file.create_group("model_weights")
        if config is not None:
            file.attrs["model_config"] = json.dumps(config).encode()
        for group in {file, root} if version is not None else ():
            group.attrs["keras_version"] = version.encode()

        def put(group, name, values):
            values = [value.encode() for value in values]
            if split:
                for k, value in enumerate(values):
                    group.attrs[f"{name}{k}"] = [value]
            else:
                group.attrs[name] = values

        put(root, "layer_names", layers)
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            put(group, "weight_names", arrays)
            for name, array in arrays.items():
                group.create_dataset(name, data=array)


def sequential(*layers, is_list=False):
    entries = [
        {"class_name": kind, "config": {"name": name, **config}} for kind, name, config in layers
    ]
    return {"class_name": "Sequential", "config": entries if is_list else {"layers": entries}}


def plain(gates, names):
    return [gates.side_by_side(kind, names) for kind in "WUb"]


def scrambled(gates, names):
    """CuDNN's: [H, I] in the order of C under the shape [I, H]; U transposed; both biases."""
    kernels = [np.asfortranarray(getattr(gates, name)["W"]).ravel("F") for name in names]
    kernel = np.concatenate([flat.reshape(I, H) for flat in kernels], axis=1)
    recurrent = np.concatenate([getattr(gates, name)["U"].T for name in names], axis=1)
    biases = [gates.side_by_side(kind, names) for kind in "bc"]
    return [kernel, recurrent, np.concatenate(biases)]


@pytest.fixture
def x(rng):
    return rng.standard_normal((B, T, I)).astype(np.float32)


@pytest.mark.parametrize("has_config", [True, False])
def test_cudnn_lstm(has_config, x, rng, tmp_path):
    gates = Gates(rng, "ifco")
    names = ("cu_dnnlstm/kernel:0", "cu_dnnlstm/recurrent_kernel:0", "cu_dnnlstm/bias:0")
    layers = {"cu_dnnlstm": dict(zip(names, scrambled(gates, "ifco"), strict=True))}
    config = sequential(("CuDNNLSTM", "cu_dnnlstm", {"units": H, "return_sequences": True}))
    write(tmp_path / "m.h5", layers, version="2.1.6-tf", config=config if has_config else None)
    layer = fl.load(
        tmp_path / "m.h5", **({} if has_config else {"recurrent_activation": "sigmoid"})
    )
    assert layer.bias is True  # CuDNN trains both
    np.testing.assert_allclose(layer(x)[0], lstm(gates, x, has_two=True), atol=1e-6)


@pytest.mark.parametrize("has_config", [True, False])
def test_cudnn_gru(has_config, x, rng, tmp_path):
    gates = Gates(rng, "zrh")
    names = ("cu_dnngru/kernel:0", "cu_dnngru/recurrent_kernel:0", "cu_dnngru/bias:0")
    layers = {"scope/cu_dnngru": dict(zip(names, scrambled(gates, "zrh"), strict=True))}
    config = sequential(("CuDNNGRU", "scope/cu_dnngru", {"units": H, "return_sequences": True}))
    write(tmp_path / "m.h5", layers, version="2.2.4-tf", config=config if has_config else None)
    layer = fl.load(
        tmp_path / "m.h5", **({} if has_config else {"recurrent_activation": "sigmoid"})
    )
    np.testing.assert_allclose(layer(x)[0], gru(gates, x, reset_after=True), atol=1e-6)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_keras_1(kind, bidirectional, x, rng, tmp_path):
    """One array a gate, an LSTM's in the order i, c, f, o; inner_activation; no version."""
    names, run = ("icfo", lstm) if kind == "LSTM" else ("zrh", gru)
    parts = [Gates(rng, names) for _ in range(1 + bidirectional)]
    arrays = {
        f"{way}_{kind}_{part}_{name}": getattr(gates, name)[part]
        for way, gates in zip(("forward", "backward"), parts, strict=False)
        for name in names
        for part in "WUb"
    }
    own = {
        "output_dim": H,
        "activation": "tanh",
        "inner_activation": "hard_sigmoid",
        "return_sequences": True,
        "dropout_W": 0.0,
        "dropout_U": 0.0,
        "consume_less": "cpu",
    }
    layer = (kind, "recurrent", own)
    if bidirectional:
        inner = {"class_name": kind, "config": own}
        layer = ("Bidirectional", "recurrent", {"layer": inner, "merge_mode": "concat"})
    dense = {"output_dim": O, "activation": "linear", "bias": False}
    kernel = rng.uniform(-1, 1, (H * len(parts), O)).astype(np.float32)
    write(
        tmp_path / "m.h5",
        {"recurrent": arrays, "drop": {}, "dense": {"dense_W": kernel}},
        config=sequential(
            layer, ("Dropout", "drop", {"p": 0.5}), ("Dense", "dense", dense), is_list=True
        ),
    )
    model = fl.load(tmp_path / "m.h5")
    y = run(parts[0], x, hard(0.2))
    if bidirectional:
        y = np.concatenate([y, run(parts[1], x[:, ::-1], hard(0.2))[:, ::-1]], axis=-1)
    np.testing.assert_allclose(model(x)[0], y @ kernel, atol=2e-6)
    assert model[1].p == 0.5
    write(tmp_path / "weights.h5", {"recurrent": arrays, "dense": {"dense_W": kernel}})
    alone = fl.load(tmp_path / "weights.h5", recurrent_activation="hard_sigmoid")
    np.testing.assert_allclose(alone(x)[0], y, atol=1e-6)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("version", ["2.1.5", "2.6.0"])
def test_keras_2(version, split, x, rng, tmp_path):
    """With and without a group for the cell, and lists of names in parts."""
    directions = [Gates(rng, "ifco") for _ in range(2)]
    second = Gates(rng, "zrh", H)
    cell, other = ("", "") if version == "2.1.5" else ("lstm_cell_7/", "gru_cell/")
    names = "kernel:0", "recurrent_kernel:0", "bias:0"
    layers = {
        "b": {
            f"b/{way}_lstm/{cell}{name}": array
            for way, gates in zip(("forward", "backward"), directions, strict=True)
            for name, array in zip(names, plain(gates, "ifco"), strict=True)
        },
        "g": dict(zip((f"g/{other}{n}" for n in names), plain(second, "zrh"), strict=True)),
    }
    if version != "2.1.5":  # reset_after
        layers["g"][f"g/{other}bias:0"] = np.stack(
            [second.side_by_side(kind, "zrh") for kind in "bc"]
        )
    own = {"units": H, "activation": "tanh", "recurrent_activation": "hard_sigmoid"}
    inner = {"class_name": "LSTM", "config": {**own, "return_sequences": True}}
    config = sequential(
        ("Bidirectional", "b", {"layer": inner, "merge_mode": "sum"}),
        ("GRU", "g", {**own, "return_sequences": False}),
    )
    path = tmp_path / "m.h5"
    write(path, layers, version=version, config=config, split=split)
    y = lstm(directions[0], x, hard(0.2))
    y = y + lstm(directions[1], x[:, ::-1], hard(0.2))[:, ::-1]
    y = gru(second, y, hard(0.2), reset_after=version != "2.1.5")[:, -1]
    np.testing.assert_allclose(fl.load(path)(x)[0], y, atol=2e-6)
    assert list(fl.interop.keras.layers(path)) == ["b", "g"]
    write(path, layers, version=version, split=split)
    with pytest.raises(ValueError, match=r"prefix: .*\['b', 'g'\]"):
        fl.load(path)
    alone = fl.load(path, prefix="b", recurrent_activation="hard_sigmoid")
    assert alone.bidirectional


def in_vars(path, arrays, root="layers", attributes=None):
    with h5py.File(path, "w") as file:
        group = file.create_group(f"{root}/lstm/cell/vars")
        for k, array in enumerate(arrays):
            group.create_dataset(str(k), data=array).attrs.update(attributes or {})


@pytest.mark.parametrize(
    ("root", "slope"), [("layers", 1 / 6), ("_layer_checkpoint_dependencies", 0.2)]
)
def test_hard_sigmoid_of_each_version(root, slope, x, rng, tmp_path):
    gates = Gates(rng, "ifco")
    in_vars(tmp_path / "m.weights.h5", plain(gates, "ifco"), root)
    layer = fl.load(tmp_path / "m.weights.h5", recurrent_activation="hard_sigmoid")
    np.testing.assert_allclose(layer(x)[0], lstm(gates, x, hard(slope)), atol=1e-6)


def test_half_precision(x, rng, tmp_path):
    gates = Gates(rng, "ifco")
    for gate in "ifco":
        own = getattr(gates, gate)
        for kind, array in own.items():  # 8 bits of mantissa fit in both
            own[kind] = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
    arrays, expected = plain(gates, "ifco"), lstm(gates, x)
    brain = [(array.view(np.uint32) >> 16).astype(np.uint16).view("V2") for array in arrays]
    for name, stored, attributes in (
        ("half", [array.astype(np.float16) for array in arrays], {}),
        ("brain", brain, {"dtype": "bfloat16"}),
    ):
        path = tmp_path / name
        in_vars(path, stored, attributes=attributes)
        layer = fl.load(path, recurrent_activation="sigmoid")
        assert layer.dtype == np.float32
        np.testing.assert_allclose(layer(x)[0], expected, atol=2e-3 if name == "half" else 1e-6)


# Files that are wrong.


def test_sizes_must_fit(rng, tmp_path):
    path, gates = tmp_path / "m.h5", Gates(rng, "ifco")
    names, arrays = ("kernel:0", "recurrent_kernel:0", "bias:0"), plain(gates, "ifco")
    own = {"units": H, "activation": "tanh", "recurrent_activation": "sigmoid"}

    def load(arrays=arrays, names=names, **changes):
        config = sequential(("LSTM", "one", {**own, **changes}))
        layers = {"one": dict(zip(names, arrays, strict=True))}
        write(path, layers, version="2.4.0", config=config)
        return fl.load(path)

    load()
    kernel, recurrent, bias = arrays
    for match, wrong in (
        ("units, got 4", {"units": H + 1}),
        ("kernel: expected 16 columns", {"arrays": [kernel[:, :-1], recurrent, bias]}),
        ("kernel: expected 12 columns", {"arrays": [kernel, recurrent[:-1], bias]}),
        (r"bias: expected shape \(16,\)", {"arrays": [kernel, recurrent, bias[:-1]]}),
        ("expected 3 arrays, got 2", {"arrays": arrays[:2], "names": names[:2]}),
        ("expected 2 arrays, got 3", {"use_bias": False}),
        ("time_major has no counterpart", {"time_major": True}),
        ("use_bias: expected true or false", {"use_bias": 1}),
        ("activation: expected an activation", {"activation": "own"}),
    ):
        with pytest.raises(ValueError, match=match) as error:
            load(**wrong)
        assert str(error.value).startswith(str(path))
        assert "layer 'one' (LSTM)" in str(error.value)


def test_no_link_is_followed(rng, tmp_path):
    arrays = plain(Gates(rng, "ifco"), "ifco")
    other, path = tmp_path / "other.h5", tmp_path / "m.h5"
    in_vars(other, arrays)
    for link in (
        h5py.ExternalLink(str(other), "layers/lstm/cell/vars/2"),
        h5py.SoftLink("/aside"),
    ):
        in_vars(path, arrays)
        with h5py.File(path, "a") as file:
            file.move("layers/lstm/cell/vars/2", "aside")
            file["layers/lstm/cell/vars/2"] = link
        with pytest.raises(ValueError, match=r"m\.h5"):
            fl.load(path, recurrent_activation="sigmoid")


def test_arrays_elsewhere_are_refused(rng, tmp_path):
    kernel, recurrent, bias = plain(Gates(rng, "ifco"), "ifco")
    (tmp_path / "secret").write_bytes(bias.tobytes())
    path = tmp_path / "m.h5"

    def external(group):
        group.create_dataset(
            "2", bias.shape, bias.dtype, external=[(str(tmp_path / "secret"), 0, bias.nbytes)]
        )

    def virtual(group):
        layout = h5py.VirtualLayout(bias.shape, bias.dtype)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "data", bias.shape)
        group.create_virtual_dataset("2", layout)

    def compressed(group):
        group.create_dataset("2", data=bias, compression="gzip")

    def unwritten(group):
        group.create_dataset("2", (16,), np.float32)

    def huge(group):
        group.create_dataset("2", (1 << 50,), np.float32, chunks=(1 << 20,))

    def text(group):
        group.create_dataset("2", data=[b"a"] * 16, dtype=h5py.string_dtype())

    for make in (external, virtual, compressed, unwritten, huge, text):
        in_vars(path, (kernel, recurrent))
        with h5py.File(path, "a") as file:
            make(file["layers/lstm/cell/vars"])
        with pytest.raises(ValueError, match=r"m\.h5: a model of Keras: layers/lstm/cell/vars"):
            fl.load(path, recurrent_activation="sigmoid")
