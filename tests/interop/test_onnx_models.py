"""`load`: graphs that are chains of layers, and those that are not quite, which are refused."""

import io
import warnings

import numpy as np
import pytest
from onnx_graphs import model_of, node, onnx, session
from operators import call

import fastlstm as fl

layers = fl.interop.onnx.layers
torch = pytest.importorskip("torch", reason="torch exports the models")


class Tagger(torch.nn.Module):
    """A model of torch, with what users write around a recurrent layer."""

    def __init__(self, kind, end, words=False, num_layers=2, both=False, batch_first=True):
        super().__init__()
        self.end, self.kind = end, kind
        self.words = torch.nn.Embedding(11, 5) if words else torch.nn.Identity()
        self.stack = getattr(torch.nn, kind)(
            5, 7, num_layers=num_layers, bidirectional=both, batch_first=batch_first
        )
        self.head = torch.nn.Linear(7 * (1 + both), 3)

    def forward(self, x):
        y, state = self.stack(self.words(x))
        h = state[0] if self.kind == "LSTM" else state
        if self.end == "last":
            y = y[:, -1]
        elif self.end == "state":
            y = h[-1]
        elif self.end == "states":
            y = torch.cat([h[-2], h[-1]], -1)
        return torch.sigmoid(self.head(torch.relu(y)))


def exported(module, x, path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that it has another exporter
        axes = {"x": {0: "first", 1: "second"}}
        torch.onnx.export(
            module, (x,), path, dynamo=False, input_names=["x"], dynamic_axes=axes, **options
        )


@pytest.mark.parametrize(
    ("kind", "end", "options"),
    [
        ("LSTM", "all", {}),
        ("LSTM", "last", {"words": True}),
        ("LSTM", "state", {"num_layers": 1}),
        ("GRU", "state", {}),
        ("GRU", "all", {"both": True, "batch_first": False}),
        ("RNN", "states", {"both": True}),
        ("LSTM", "states", {"both": True, "num_layers": 1, "words": True}),
    ],
)
def test_torchs_exports_load_as_one_model(tmp_path, kind, end, options):
    torch.manual_seed(4)
    module, path = Tagger(kind, end, **options).eval(), tmp_path / "model.onnx"
    words = "words" in options

    def example(first, second):
        return torch.randint(11, (first, second)) if words else torch.randn(first, second, 5)

    exported(module, example(3, 6), path)
    model = fl.load(path)
    for shape in ((3, 6), (4, 9)):
        x = example(*shape)
        y = model(x.numpy())[0]
        expected = module(x).detach().numpy()
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, atol=2e-6)
    found = layers(path)
    assert len(found) == options.get("num_layers", 2)
    theirs = [array.numpy() for name, array in module.stack.state_dict().items()]
    ours = [array for layer in found.values() for array in layer.parameters().values()]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_one_directions_end_of_two_is_no_last(tmp_path):
    """y[:, -1] of a bidirectional layer has the reverse direction's first step."""
    module, path = Tagger("LSTM", "last", both=True).eval(), tmp_path / "model.onnx"
    exported(module, torch.randn(3, 6, 5), path)
    with pytest.raises(ValueError, match=r"model\.onnx: the graph: .*Gather .*Backend runs it$"):
        fl.load(path)


def after_an_lstm(nodes, constants=(), outputs=("y",)):
    """A model of an LSTM, with its y (steps, rows, 3) as h, and of more nodes."""
    made = call(np.random.default_rng(0), "LSTM", dtype=np.float32, direction="forward")
    weights = {name: made.inputs[name] for name in "WRB"} | {"one": np.array([1])}
    first = node("LSTM", ["x", "W", "R", "B"], ["Y", "Y_h", "Y_c"], hidden_size=3, name="cell")
    return model_of(
        [first, node("Squeeze", ["Y", "one"], ["h"]), *nodes],
        {"x": ["steps", "rows", 2]},
        outputs,
        weights | dict(constants),
    )


@pytest.mark.parametrize(
    ("nodes", "constants", "text"),
    [
        ([node("Identity", ["Y"], ["y"])], {}, "the output 'y' is not in the form of x"),
        (
            [node("Transpose", ["h"], ["y"], perm=[1, 0, 2])],
            {},
            "the output 'y' is not in the form",
        ),
        ([node("Mul", ["h", "h"], ["y"])], {}, r"Mul 'y' has no counterpart"),
        ([node("Add", ["h", "x"], ["y"])], {}, r"Add 'y' has no counterpart"),
        ([node("Softmax", ["h"], ["y"], axis=0)], {}, "Softmax 'y' has no counterpart: it is over"),
        ([node("Squeeze", ["Y_c", "zero"], ["y"])], {"zero": [0]}, "cell state is used as data"),
        ([node("Add", ["h", "b"], ["y"])], {"b": np.ones(3, np.float32)}, "Add 'y' has no"),
        ([node("MatMul", ["h", "h"], ["y"])], {}, "MatMul 'y' has no counterpart: its input 1 is"),
        ([node("Gather", ["h", "k"], ["y"], axis=0)], {"k": np.array(0)}, "it takes number 0"),
        ([node("Gather", ["h", "k"], ["y"], axis=1)], {"k": np.array(-1)}, "it takes number -1"),
        ([node("Reshape", ["Y", "s"], ["y"])], {"s": [0, 1, -1]}, "Reshape 'y' has no counterpart"),
        ([node("Cast", ["h"], ["y"], to=10)], {}, "it changes the dtype"),
        ([node("Selu", ["h"], ["y"], alpha=2.0)], {}, "its alpha and gamma"),
        ([node("Resize", ["h", "", "", "s"], ["y"])], {"s": [1, 1, 1]}, "Resize 'y'"),
    ],
)
def test_graphs_that_are_no_chain(tmp_path, nodes, constants, text):
    path = tmp_path / "model.onnx"
    constants = {name: np.asarray(value) for name, value in constants.items()}
    path.write_bytes(after_an_lstm(nodes, constants).SerializeToString())
    with pytest.raises(ValueError, match=rf"model\.onnx: the graph: .*{text}"):
        fl.load(path)


def rnn_with(inputs, nodes=(), after=(), result="Y"):
    """A model of an RNN of equal sizes in and out, with these inputs, and of more nodes."""
    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal((1, 2, 2)).astype(np.float32) for name in "WR"}
    constants |= {"one": np.array([1]), "zero": np.array([0]), "b": np.ones(1, np.float32)}
    constants["M"] = np.ones((2, 2), np.float32)
    first = node("RNN", ["x", "W", "R", "", *inputs], ["Y"], hidden_size=2, name="cell")
    last = [node("Squeeze", [result, "one"], ["y"])] if result == "Y" else []
    given = {"x": ["steps", "rows", 2], "h0": [1, "rows", 2], "n": (["rows"], np.int32)}
    return model_of([*nodes, first, *after, *last], given, ["y"], constants)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (rnn_with(["n"]), "RNN 'cell' has no counterpart: it has sequence_lens"),
        (rnn_with(["", "x"]), "RNN 'cell' has no counterpart: its initial state comes from x"),
        (
            rnn_with(["", "h"], [node("ReduceMean", ["x"], ["h"], axes=[0], keepdims=1)]),
            "RNN 'cell' has no counterpart: its initial state comes from ReduceMean",
        ),
        (
            rnn_with(
                [],
                after=[
                    node("Squeeze", ["Y", "one"], ["once"]),
                    node("Transpose", ["once"], ["turned"], perm=[1, 0, 2]),
                    node("RNN", ["turned", "W", "R"], ["Y2"], hidden_size=2, name="other"),
                    node("Squeeze", ["Y2", "one"], ["back"]),
                    node("Transpose", ["back"], ["y"], perm=[1, 0, 2]),
                ],
                result="y",
            ),
            "RNN 'other' has no counterpart: it reads steps along another axis",
        ),
        (
            rnn_with(
                [],
                after=[
                    node("Squeeze", ["Y", "one"], ["once"]),
                    node("MatMul", ["once", "M"], ["product"]),
                    node("Add", ["product", "b"], ["y"]),
                ],
                result="y",
            ),
            "Add 'y' has no counterpart: it adds an array of shape",
        ),
    ],
    ids=["lengths", "x as state", "state of x", "another axis", "bias"],
)
def test_what_would_be_silently_another_model(tmp_path, model, text):
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=text):
        fl.load(path)


def test_a_state_that_is_given_is_the_calls(tmp_path, rng):
    path = tmp_path / "model.onnx"
    model = rnn_with(["", "h0"])
    path.write_bytes(model.SerializeToString())
    x = rng.standard_normal((5, 3, 2)).astype(np.float32)
    h = rng.standard_normal((1, 3, 2)).astype(np.float32)
    feed = {"x": x, "h0": h, "n": np.full(3, 5, np.int32)}
    (expected,) = session(model).run(None, feed)
    np.testing.assert_allclose(fl.load(path)(x, h)[0], expected, atol=1e-6)


def test_more_outputs_than_the_states_are_refused(tmp_path):
    path = tmp_path / "model.onnx"
    nodes = [node("Tanh", ["h"], ["y"])]
    path.write_bytes(after_an_lstm(nodes, (), ["y", "Y_c", "Y_h"]).SerializeToString())
    assert len(fl.load(path)) == 2
    path.write_bytes(after_an_lstm(nodes, (), ["y", "h"]).SerializeToString())
    with pytest.raises(ValueError, match="there is another output, 'h'"):
        fl.load(path)


def test_gemm_of_the_final_state(tmp_path, rng):
    nodes = [
        node("Squeeze", ["Y_h", "zero"], ["last"]),
        node("Gemm", ["last", "A", "b"], ["middle"]),
        node("LeakyRelu", ["middle"], ["on"]),
        node("Gemm", ["on", "C"], ["y"], transB=1),
    ]
    constants = {
        "zero": np.array([0]),
        "A": rng.standard_normal((3, 4)).astype(np.float32),
        "b": rng.standard_normal((1, 4)).astype(np.float32),
        "C": rng.standard_normal((2, 4)).astype(np.float32),
    }
    model, path = after_an_lstm(nodes, constants), tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    x = rng.standard_normal((5, 3, 2)).astype(np.float32)
    (expected,) = session(model).run(None, {"x": x})
    np.testing.assert_allclose(fl.load(path)(x)[0], expected, atol=1e-6)


def test_arguments_that_the_file_knows(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(after_an_lstm([node("Tanh", ["h"], ["y"])]).SerializeToString())
    with pytest.raises(ValueError, match="batch_first: expected None"):
        fl.load(path, batch_first=True)


def test_a_proto_in_memory():
    file = io.BytesIO()
    exported(torch.nn.LSTM(2, 3).eval(), torch.randn(5, 4, 2), file)
    assert len(layers(onnx.load_from_string(file.getvalue()))) == 1


def joined_as_torch_does(order):
    """Nodes that join Y's directions in a shape that the graph takes from Y's, in this order."""
    nodes = [
        node("Transpose", ["Y"], ["turned"], perm=[0, 2, 1, 3]),
        node("Shape", ["turned"], ["shape"]),
        *(node("Slice", ["shape", f"n{k}", f"n{k + 1}"], [f"size{k}"]) for k in range(4)),
        node("Mul", ["size2", "size3"], ["product"]),
        node("Reshape", ["product", "minus"], ["features"]),
        node("Concat", [f"size{order[0]}", f"size{order[1]}", "features"], ["wanted"], axis=0),
        node("Reshape", ["turned", "wanted"], ["y"]),
    ]
    return nodes, {f"n{k}": np.array([k]) for k in range(5)} | {"minus": np.array([-1])}


def test_shapes_that_the_graph_computes(tmp_path, rng):
    """As torch's newer exporter writes them; in another order they are another model."""
    made = call(rng, "GRU", dtype=np.float32, direction="bidirectional", leave_out=["initial_h"])
    weights = {name: made.inputs[name] for name in "WRB"}
    path = tmp_path / "model.onnx"
    for order in ((0, 1), (1, 0)):
        nodes, constants = joined_as_torch_does(order)
        first = node("GRU", ["x", "W", "R", "B"], ["Y"], **made.attributes)
        inputs = {"x": ["steps", "rows", 2]}
        model = model_of([first, *nodes], inputs, ["y"], weights | constants)
        path.write_bytes(model.SerializeToString())
        if order == (1, 0):
            with pytest.raises(ValueError, match="Reshape 'y' has no counterpart: it makes"):
                fl.load(path)
            continue
        x = rng.standard_normal((7, 3, 2)).astype(np.float32)
        (expected,) = session(model).run(None, {"x": x})
        np.testing.assert_allclose(fl.load(path)(x)[0], expected, atol=1e-6)
