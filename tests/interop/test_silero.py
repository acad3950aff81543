"""The ONNX files of the package silero-vad, as its users have them, beside ONNX Runtime.

The package is found wherever it lies on the path; it need not be importable, which takes torch.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from onnx_graphs import helper, onnx, session

import fastlstm as fl

FILES = {  # sampling rates, and rows of a call
    "silero_vad.onnx": ((16000, 8000), 3),
    "silero_vad_16k_op15.onnx": ((16000,), 3),
    "silero_vad_half.onnx": ((16000,), 3),
    "silero_vad_op18_ifless.onnx": ((16000, 8000), 3),
    "silero_vad_openvino_16k.onnx": ((16000,), 1),
}
INLINED = "If_0_then_branch__Inline_0__/"
CELLS = {  # of the 16 kHz model: the name of the layer, and that of the values it takes
    "silero_vad.onnx": (
        f"{INLINED}decoder/rnn/LSTM",
        f"{INLINED}encoder/3/activation/Relu_output_0",
    ),
    "silero_vad_16k_op15.onnx": (
        "/model/decoder/rnn/LSTM",
        "/model/encoder/3/activation/Relu_output_0",
    ),
    "silero_vad_half.onnx": ("/decoder/rnn/LSTM", "/encoder/3/activation/Relu_output_0"),
    "silero_vad_op18_ifless.onnx": ("model.decoder.rnn.", "relu_3"),
    "silero_vad_openvino_16k.onnx": (
        f"F2::{INLINED}decoder/rnn/LSTM",
        f"F0::{INLINED}encoder/3/activation/Relu_output_0",
    ),
}


@pytest.fixture(scope="module")
def folder():
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package silero-vad is not installed")
    data = Path(spec.submodule_search_locations[0]) / "data"
    if not (data / "silero_vad.onnx").is_file():
        pytest.skip("this silero-vad has no ONNX files")
    return data


def frames(rng, rate, rows, count):
    """Frames of a voice-like sound with the end of the frame before in front of each."""
    size, context = (512, 64) if rate == 16000 else (256, 32)
    times = np.arange(count * size + context) / rate
    pitch = 120 + 40 * np.sin(2 * np.pi * 3 * times)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = sum(np.sin(k * phase) / k for k in range(1, 12)) * (0.3 + 0.3 * np.sin(9 * times))
    wave = 0.4 * wave + 0.01 * rng.standard_normal((rows, len(times)))
    starts = range(0, count * size, size)
    return [wave[:, start : start + size + context].astype(np.float32) for start in starts]


@pytest.mark.parametrize("name", FILES)
def test_whole_files_run_through_the_backend(folder, rng, name):
    model = onnx.load(folder / name)
    prepared, theirs = fl.interop.onnx.Backend.prepare(model), session(str(folder / name))
    names = [part.name for part in model.graph.input]
    rates, rows = FILES[name]
    for rate in rates:
        ours = reference = np.zeros((2, rows, 128), np.float32)
        for frame in frames(rng, rate, rows, 4):
            feed = {"input": frame, "sr": np.array(rate)}
            feed = {key: feed[key] for key in names if key != "state"}
            probability, ours = prepared.run(feed | {"state": ours})
            expected, reference = theirs.run(None, feed | {"state": reference})
            assert probability.shape == expected.shape
            np.testing.assert_allclose(probability, expected, atol=2e-6)
            np.testing.assert_allclose(ours, reference, atol=2e-5)


def inner_graphs_of(node):
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield from inner_graphs(attribute.g)


def inner_graphs(graph):
    """A graph, and those within its nodes."""
    yield graph
    for node in graph.node:
        yield from inner_graphs_of(node)


def encoder(path, name):
    """ONNX Runtime for a file's nodes up to one value, which may be in a branch."""
    model = onnx.load(path)
    graph = model.graph
    found = next(
        inner for inner in inner_graphs(graph) if any(name in node.output for node in inner.node)
    )
    if found is not graph:
        place = next(k for k, node in enumerate(graph.node) if found in list(inner_graphs_of(node)))
        nodes = [*graph.node[:place], *found.node]
        del graph.node[:]
        graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return session(model)


def exact_step(parameters, x, h, c):
    """The equations of the LSTM, in float64."""
    W, R, b, b_h = (array.astype(np.float64) for array in parameters.values())
    i, f, g, o = np.split(x @ W.T + h @ R.T + b + b_h, 4, axis=1)
    c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    return np.stack([np.tanh(c) / (1 + np.exp(-o)), c])


@pytest.mark.parametrize("name", CELLS)
def test_the_lstms_step(folder, rng, name):
    """On what ONNX Runtime computes from frames, with the states that it returns.

    In float32 no engine comes to 3e-7: before the gates, sums of 257 numbers reach 15 and more, so
    ONNX Runtime is 2e-6 to 3e-6 from the exact step, and so is this library. In float64 it is exact
    to 1e-13.
    """
    path, rows = folder / name, FILES[name][1]
    layer_name, value = CELLS[name]
    layer, theirs = fl.interop.onnx.layers(path)[layer_name], session(str(path))
    parameters = layer.state_dict()
    double = fl.from_arrays({k: v.astype(np.float64) for k, v in parameters.items()})
    before = encoder(path, value)
    state = rng.uniform(-0.5, 0.5, (2, rows, 128)).astype(np.float32)
    errors = {"ours": [], "theirs": []}
    for frame in frames(rng, 16000, rows, 8):
        feed = {"input": frame, "state": state, "sr": np.array(16000)}
        feeds = [
            {part.name: feed[part.name] for part in run.get_inputs()} for run in (before, theirs)
        ]
        (x,) = before.run(None, feeds[0])
        _, after = theirs.run(None, feeds[1])
        x = x.transpose(2, 0, 1)
        y, (h, c) = layer(x, (state[:1], state[1:]))
        exact = exact_step(parameters, x[0].astype(np.float64), *state.astype(np.float64))
        _, (h_double, c_double) = double(x, (state[:1], state[1:]))
        np.testing.assert_allclose([h_double[0], c_double[0]], exact, rtol=0, atol=1e-13)
        errors["ours"].append(np.stack([h[0], c[0]]) - exact)
        errors["theirs"].append(after - exact)
        np.testing.assert_array_equal(y, h)
        state = after
    rms = {who: np.sqrt(np.mean(np.square(each))) for who, each in errors.items()}
    largest = {who: abs(np.stack(each)).max() for who, each in errors.items()}
    assert rms["ours"] < 3e-7
    assert rms["ours"] < 1.5 * rms["theirs"]
    assert largest["ours"] < 5e-6
    assert largest["theirs"] > 3e-7
