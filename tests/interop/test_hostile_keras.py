"""Damaged and hostile files of Keras: an error that names the file, and no more."""

import io
import json
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fastlstm as fl
from fastlstm.interop.reading import MARGIN, MOST_TIMES

h5py = pytest.importorskip("h5py", reason="the files are made with it")
pytest.importorskip("pyfive", reason="damaged files may crash h5py, which is in C")
OWN = {"units": 3, "activation": "tanh", "recurrent_activation": "sigmoid"}
CONFIG = {
    "class_name": "Functional",
    "config": {
        "layers": [
            {
                "class_name": "InputLayer",
                "name": "input",
                "config": {"name": "input", "batch_shape": [None, None, 2]},
                "inbound_nodes": [],
            },
            {
                "class_name": "Bidirectional",
                "name": "both",
                "config": {
                    "merge_mode": "sum",
                    "layer": {"class_name": "LSTM", "config": {**OWN, "return_sequences": True}},
                },
                "inbound_nodes": [[["input", 0, 0, {}]]],
            },
            {
                "class_name": "Dense",
                "name": "dense",
                "config": {"units": 2, "activation": "relu"},
                "inbound_nodes": [[["both", 0, 0, {}]]],
            },
        ],
        "input_layers": [["input", 0, 0]],
        "output_layers": [["dense", 0, 0]],
    },
}
LSTM = [np.ones(shape, np.float32) for shape in ((2, 12), (3, 12), (12,))]
DENSE = [np.ones(shape, np.float32) for shape in ((3, 2), (2,))]


def hdf5(fill):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def in_vars(file):
    for place, arrays in (
        ("bidirectional/forward_layer/cell", LSTM),
        ("bidirectional/backward_layer/cell", LSTM),
        ("dense", DENSE),
    ):
        for k, array in enumerate(arrays):
            file[f"layers/{place}/vars/{k}"] = array


def by_name(file):
    file.attrs["model_config"] = json.dumps(CONFIG)
    file.attrs["keras_version"] = "2.6.0"
    root = file.create_group("model_weights")
    root.attrs["layer_names"] = [b"both", b"dense"]
    for layer, arrays in (("both", [*LSTM, *LSTM]), ("dense", DENSE)):
        group = root.create_group(layer)
        names = [f"{layer}/{k}/kernel:0" for k in range(len(arrays))]
        group.attrs["weight_names"] = [name.encode() for name in names]
        for name, array in zip(names, arrays, strict=True):
            group[name] = array


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(name.replace("_json", ".json").replace("_h5", ".weights.h5"), data)
    return buffer.getvalue()


METADATA = json.dumps({"keras_version": "3.15.0"}).encode()
CONFIG_TEXT = json.dumps(CONFIG).encode()
IN_VARS, BY_NAME = hdf5(in_vars), hdf5(by_name)


def keras_archive(config=CONFIG_TEXT, weights=IN_VARS, metadata=METADATA):
    return archive(config_json=config, metadata_json=metadata, model_h5=weights)


def load_within_bounds(path, data, **given):
    """Load a file, which may be wrong, but takes little memory and raises nothing unforeseen."""
    path.write_bytes(data)
    error = None
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fl.load(path, **given)
    except (ValueError, TypeError) as caught:
        error = str(caught)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert error is None or error.startswith(str(path))
    assert peak <= MOST_TIMES * len(data) + MARGIN
    return error


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "model"


def test_the_files_are_right_before(path):
    x = np.ones((1, 4, 2), np.float32)
    results = []
    for data in (keras_archive(), BY_NAME):
        path.write_bytes(data)
        results.append(fl.load(path)(x)[0])
    np.testing.assert_array_equal(*results)


def mutated(data, changes):
    data = bytearray(data)
    for kind, place, value in changes:
        place %= max(1, len(data))
        if kind == "set":
            data[place : place + 1] = bytes([value])
        elif kind == "flip" and data:
            data[place] ^= 1 << value % 8
        elif kind == "cut":
            del data[place:]
        elif kind == "large":
            data[place : place + 8] = b"\xff" * (value % 9)
        else:
            data[place:place] = data[value : value + 64]
    return bytes(data)


# A place from the beginning, where the headers are, or anywhere.
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["set", "set", "flip", "flip", "large", "cut", "repeat"]),
        st.integers(0, 4096) | st.integers(0, 1 << 16),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=30)
@given(CHANGES)
def test_damaged_hdf5(path, changes):
    load_within_bounds(path, mutated(BY_NAME, changes))


@settings(max_examples=30)
@given(CHANGES)
def test_damaged_weights(path, changes):
    weights = mutated(IN_VARS, changes)
    load_within_bounds(path, keras_archive(weights=weights))
    load_within_bounds(path, weights, recurrent_activation="sigmoid", prefix="layers")


@settings(max_examples=30)
@given(CHANGES)
def test_damaged_archive(path, changes):
    load_within_bounds(path, mutated(keras_archive(), changes))


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """The paths of all values in nested lists and objects."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, part in inner:
        yield from places(part, (*path, key))


PLACES = list(places(CONFIG))[1:]


@settings(max_examples=50)
@given(st.sampled_from(PLACES), PARTS)
@example(("config", "layers", 1, "config", "merge_mode"), ["sum"])
@example(("config", "layers", 2, "config", "activation"), {"class_name": "function", "config": {}})
def test_strange_configuration(path, place, value):
    config = json.loads(CONFIG_TEXT)
    *above, last = place
    holder = config
    for key in above:
        holder = holder[key]
    holder[last] = value
    load_within_bounds(path, keras_archive(json.dumps(config).encode()))


def test_deep_and_wide_text(path):
    for text in (
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"[" + b"1," * 300_000 + b"1]",
        b'"' + b"a" * 10**6,
    ):
        load_within_bounds(path, keras_archive(text))
        load_within_bounds(path, keras_archive(metadata=text))


def test_bombs(path, monkeypatch):
    """Zeros that unpack to more than a file of its size has, and headers that promise much."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", CONFIG_TEXT)
        file.writestr("metadata.json", METADATA)
        file.writestr("model.weights.h5", IN_VARS + bytes(70 << 20))
    assert "expands" in load_within_bounds(path, buffer.getvalue())

    def large(file):
        for k, shape in enumerate([(1 << 30, 12), (3, 12), (12,)]):
            file.create_dataset(f"layers/lstm/cell/vars/{k}", shape, np.float32)

    def many(file):
        for k in range(300):
            file.create_group(f"layers/{k}x")

    def round_about(file):
        group = file.create_group("layers")
        group["a"] = group["b"] = group

    monkeypatch.setattr("fastlstm.interop.keras.hdf5.MOST_PARTS", 200)  # thousands take long
    for fill in (large, many, round_about):
        assert load_within_bounds(path, hdf5(fill), recurrent_activation="sigmoid")
