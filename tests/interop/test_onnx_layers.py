"""`layers` and `read`: recurrent nodes, and whole graphs, against ONNX Runtime and torch."""

import io
import tracemalloc
import warnings

import numpy as np
import pytest
from onnx_graphs import graph_of, helper, model_of, node, onnx, session
from operators import INPUTS, OUTPUTS, call, random_call

import fastlstm as fl
from fastlstm.engine import Stack

layers = fl.interop.onnx.layers


def one_node(made, opset=17, outputs=None, **names):
    """A model of a call, whose weights are constants and whose other inputs are inputs."""
    inputs = {name: names.get(name, name) if name in made.inputs else "" for name in INPUTS}
    given = list(inputs.values())
    while not given[-1]:
        given.pop()
    weights = {name: array for name, array in made.inputs.items() if name in ("W", "R", "B", "P")}
    rest = {
        name: (array.shape, array.dtype)
        for name, array in made.inputs.items()
        if name not in weights
    }
    outputs = outputs or OUTPUTS[made.kind]
    nodes = [node(made.kind, given, outputs, name="cell", **made.attributes)]
    kinds = dict.fromkeys(outputs, made.inputs["X"].dtype)
    return model_of(nodes, rest, kinds, weights, opset)


def outputs_of(layer, made):
    """What ONNX's outputs are, from the layer's."""
    get = made.inputs.get
    state = get("initial_h")
    if made.kind == "LSTM" and (state is not None or get("initial_c") is not None):
        c = get("initial_c")
        state = (
            (np.zeros_like(c) if state is None else state),
            (np.zeros_like(state) if c is None else c),
        )
    y, state = layer(get("X"), state, lengths=get("sequence_lens"))
    y = y.reshape(*y.shape[:2], made.sizes[2], -1).swapaxes(1, 2)
    return y, *(state if isinstance(state, tuple) else (state,))


@pytest.mark.parametrize("kind", OUTPUTS)
def test_a_nodes_layer_computes_what_onnx_runtime_does(kind):
    rng = np.random.default_rng(3)
    for _ in range(25):
        made = random_call(rng, kind)
        model = one_node(made)
        expected = session(model).run(None, {n: made.inputs[n] for n in inputs_of(model)})
        layer = layers(model)["cell"]
        for ours, theirs in zip(outputs_of(layer, made), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=5e-5, rtol=5e-5)


def inputs_of(model):
    return [part.name for part in model.graph.input]


def test_kinds_of_layers(rng):
    made = call(rng, "LSTM", dtype=np.float32, direction="bidirectional", input_forget=1, clip=0.3)
    layer = layers(one_node(made))["cell"]
    assert repr(layer) == ("LSTM(2, 3, bidirectional=True, peepholes=True, coupled=True, clip=0.3)")
    made = call(
        rng, "GRU", leave_out=["B"], activations=["HardSigmoid", "Relu"], direction="forward"
    )
    layer = layers(one_node(made))["cell"]
    assert repr(layer) == (
        "GRU(2, 3, bias=False, linear_before_reset=False, activations=('hard_sigmoid', 'relu'), "
        "dtype='float64')"
    )
    assert type(layers(one_node(call(rng, "RNN", direction="reverse")))["cell"]) is Stack
    uneven = call(rng, "RNN", direction="bidirectional", activations=["Relu", "Tanh"])
    assert type(layers(one_node(uneven))["cell"]) is Stack


def test_half_precision_is_computed_in_float32(rng):
    made = call(rng, "LSTM", dtype=np.float16)
    layer = layers(one_node(made))["cell"]
    assert layer.dtype == np.float32
    blocks = np.split(made.inputs["W"][0], 4)  # i, o, f, c
    np.testing.assert_array_equal(np.split(layer.weight_ih_l0, 4)[1], blocks[2])


def test_layout_is_batch_first(rng):
    """ONNX Runtime has layout 0 only."""
    made = call(rng, "GRU", direction="bidirectional", layout=1)
    layer = layers(one_node(made))["cell"]
    assert layer.batch_first
    turned = call(rng, "GRU", direction="bidirectional").with_(made.inputs)
    turned.inputs["X"] = made.inputs["X"].swapaxes(0, 1)
    turned.inputs["initial_h"] = made.inputs["initial_h"].swapaxes(0, 1)
    Y, Y_h = turned()
    y, h = layer(made.inputs["X"], turned.inputs["initial_h"])
    np.testing.assert_allclose(y, Y.transpose(2, 0, 1, 3).reshape(y.shape), rtol=1e-12)
    np.testing.assert_allclose(h, Y_h, rtol=1e-12)


def as_exported(rng, made):
    """The nodes in front of W, as torch's exporter writes them, and the constants they take."""
    blocks = np.split(made.inputs["W"][0], 4)  # i, o, f, c
    torch = np.concatenate([blocks[k] for k in (0, 2, 3, 1)])  # i, f, c, o
    constants = {"weight": torch.T.astype(np.float64), "first": np.array([0])}
    H, nodes = (
        len(blocks[0]),
        [
            node("Transpose", ["weight"], ["turned"], perm=[1, 0]),
            node("Cast", ["turned"], ["single"], to=onnx.TensorProto.FLOAT),
        ],
    )
    for k, (begin, end) in enumerate([(0, 1), (3, 4), (1, 3)]):
        constants |= {f"begin{k}": np.array([begin * H]), f"end{k}": np.array([end * H])}
        nodes.append(node("Slice", ["single", f"begin{k}", f"end{k}", "first"], [f"part{k}"]))
    nodes += [
        node("Concat", ["part0", "part1", "part2"], ["whole"], axis=0),
        node("Unsqueeze", ["whole", "first"], ["W"]),
    ]
    return nodes, constants


def test_weights_that_the_graph_computes(rng):
    made = call(rng, "LSTM", dtype=np.float32)
    nodes, constants = as_exported(rng, made)
    model = one_node(made)
    del model.graph.initializer[[t.name for t in model.graph.initializer].index("W")]
    for k, part in enumerate(nodes):
        model.graph.node.insert(k, part)
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    layer, plain = layers(model)["cell"], layers(one_node(made))["cell"]
    for name, array in plain.parameters().items():
        np.testing.assert_array_equal(layer.parameters()[name], array)


@pytest.mark.parametrize("opset", [7, 11, 13, 14, 22])
def test_opsets(rng, opset):
    made = call(rng, "LSTM", dtype=np.float32)
    np.testing.assert_array_equal(
        layers(one_node(made, opset))["cell"].weight_hh_l0,
        layers(one_node(made))["cell"].weight_hh_l0,
    )
    with pytest.raises(ValueError, match=r"^model: expected an opset from 7 to .*, got 6"):
        layers(model_of([node("Tanh", ["x"], ["y"])], {"x": (3,)}, ["y"], opset=6))


def test_nodes_within_if_and_loops_take_names_from_around(rng):
    made = call(rng, "RNN", dtype=np.float32, leave_out=["initial_h"], direction="forward")
    weights = {name: made.inputs[name] for name in "WRB"}
    inner = node("RNN", ["x", "W", "R", "B"], ["Y1"], hidden_size=3)
    other = node("RNN", ["x", "W", "R2", "B"], ["Y2"], hidden_size=3)
    then = graph_of([inner], {}, ["Y1"], name="then")
    otherwise = graph_of([other], {}, ["Y2"], {"R2": 2 * made.inputs["R"]}, name="else")
    body = graph_of(
        [
            node("Identity", ["going"], ["on"]),
            node("RNN", ["X", "W", "R", "B"], ["Y3"], hidden_size=3, name="in a loop"),
            node("Squeeze", ["Y3", "one"], ["X2"]),
        ],
        {"count": ((), np.int64), "going": ((), np.bool_), "X": (5, 4, 3)},
        {"on": np.bool_, "X2": np.float32},
        name="body",
    )
    nodes = [
        node("If", ["yes"], ["Y"], then_branch=then, else_branch=otherwise),
        node("Loop", ["times", "yes", "x3"], ["z"], body=body),
    ]
    nodes.insert(0, node("Transpose", ["W transposed"], ["W"], perm=[0, 2, 1]))
    weights["W transposed"] = weights.pop("W").swapaxes(1, 2)
    constants = weights | {"times": np.array(2), "one": np.array([1])}
    inputs = {"x": (5, 4, 2), "x3": (5, 4, 3), "yes": ((), np.bool_)}
    found = layers(model_of(nodes, inputs, ["Y", "z"], constants))
    assert sorted(found) == ["Y1", "Y2", "in a loop"]
    np.testing.assert_array_equal(found["Y1"].weight_ih_l0, made.inputs["W"][0])
    np.testing.assert_array_equal(found["Y1"].weight_hh_l0, made.inputs["R"][0])
    np.testing.assert_array_equal(found["Y2"].weight_hh_l0, 2 * made.inputs["R"][0])


def test_names_are_unique(rng):
    made = call(rng, "RNN", dtype=np.float32, leave_out=["initial_h"], direction="forward")
    nodes = [
        node("RNN", ["x", "W", "R", "B"], ["a"], hidden_size=3, name="same"),
        node("RNN", ["x", "W", "R", "B"], ["b"], hidden_size=3, name="same"),
        node("RNN", ["x", "W", "R", "B"], ["", "c"], hidden_size=3),
    ]
    weights = {name: made.inputs[name] for name in "WRB"}
    found = layers(model_of(nodes, {"x": (5, 4, 2)}, ["a", "b", "c"], weights))
    assert list(found) == ["same", "same (2)", "c"]


def test_weights_of_a_run_are_skipped_and_said(rng):
    made = call(rng, "GRU", dtype=np.float32)
    model = one_node(made)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.node[0].name = "given"
    copy.graph.node[0].input[1] = "W2"
    copy.graph.input.append(
        helper.make_tensor_value_info("W2", onnx.TensorProto.FLOAT, made.inputs["W"].shape)
    )
    text = r"^model: GRU 'given': W: expected a constant, got the input 'W2'$"
    with pytest.raises(ValueError, match=text):
        layers(copy)
    copy.graph.node.append(model.graph.node[0])
    for k, name in enumerate(copy.graph.node[1].output):
        copy.graph.node[1].output[k] = name + "2"
    found = layers(copy)
    assert list(found) == ["cell"]
    with pytest.raises(ValueError, match=text):
        found["given"]
    with pytest.raises(KeyError, match="expected one of"):
        found["nowhere"]


def with_state(made, constants, nodes=()):
    """The model of a call whose initial state comes from constants or nodes."""
    model = one_node(made)
    names = {"initial_h", "initial_c"}
    inputs = [part for part in model.graph.input if part.name not in names]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for k, part in enumerate(nodes):
        model.graph.node.insert(k, part)
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def test_a_constant_state_is_learned(rng):
    made = call(rng, "LSTM", dtype=np.float32, direction="bidirectional")
    h, c = (np.repeat(made.inputs[f"initial_{part}"][:, :1], 4, axis=1) for part in "hc")
    layer = layers(with_state(made, {"initial_h": h, "initial_c": c}))["cell"]
    assert layer.learn_initial_state
    y, _ = layer(made.inputs["X"])
    expected = made.with_({"initial_h": h, "initial_c": c})()[0]
    np.testing.assert_allclose(y, expected.swapaxes(1, 2).reshape(5, 4, 6), atol=1e-6)
    zero = {"initial_h": 0 * h, "initial_c": 0 * c}
    assert not layers(with_state(made, zero))["cell"].learn_initial_state
    model = with_state(made, {"initial_h": made.inputs["initial_h"], "initial_c": c})
    with pytest.raises(ValueError, match="initial_h: expected the same constants for every row"):
        layers(model)


def test_a_state_repeated_for_the_rows_is_learned(rng):
    """As it must be where the number of rows is known in a run only."""
    made = call(rng, "LSTM", dtype=np.float32, direction="forward")
    h = made.inputs["initial_h"][:, :1]
    nodes = [
        node("Shape", ["X"], ["rows"], start=1, end=2),
        node("Concat", ["one", "rows", "three"], ["shape"], axis=0),
        node("Expand", ["h"], ["initial_h"]),
        node(
            "ConstantOfShape",
            ["shape"],
            ["initial_c"],
            value=helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.5]),
        ),
    ]
    nodes[2].input.append("shape")
    constants = {"h": h, "one": np.array([1]), "three": np.array([3])}
    layer = layers(with_state(made, constants, nodes))["cell"]
    np.testing.assert_array_equal(layer.initial_h_l0, h[0, 0])
    np.testing.assert_array_equal(layer.initial_c_l0, [0.5, 0.5, 0.5])


def test_constant_lengths_are_said(rng):
    made = call(rng, "RNN", dtype=np.float32, lengths=[3, 0, 5, 2])
    model = one_node(made)
    assert "cell" in layers(model)  # the caller's
    kept = [part for part in model.graph.input if part.name != "sequence_lens"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    lengths = made.inputs["sequence_lens"]
    model.graph.initializer.append(onnx.numpy_helper.from_array(lengths, "sequence_lens"))
    with pytest.raises(ValueError, match="'cell': sequence_lens: expected none or an input"):
        layers(model)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden_size": 4}, "R: expected shape"),
        ({"activations": ["Tanh"]}, "activations: expected 3 names"),
        ({"activations": ["Sigmoid", "Sine", "Tanh"]}, r"activations\[1\]: expected one of"),
        ({"direction": "sideways"}, "direction: expected one of"),
        ({"clip": -1.0}, "clip: "),
    ],
)
def test_nodes_that_are_wrong(rng, change, text):
    made = call(rng, "LSTM", dtype=np.float32).with_(**change)
    with pytest.raises(ValueError, match=rf"^model: LSTM 'cell': {text}"):
        layers(one_node(made))


def test_no_recurrent_node():
    model = model_of([node("Tanh", ["x"], ["y"])], {"x": (3,)}, ["y"])
    with pytest.raises(
        ValueError, match=r"^model: expected LSTM, GRU or RNN nodes.*got nodes Tanh"
    ):
        layers(model)
    with pytest.raises(TypeError, match=r"^model: expected a path or a ModelProto, got int"):
        layers(3)


def test_a_cell_that_an_exporter_took_apart(rng):
    cell = fl.LSTMCell(2, 3, rng=rng)
    arrays = {f"net.rnn.{name}": array for name, array in cell.parameters().items()}
    nodes = [node("Gemm", ["x", "net.rnn.weight_ih", "net.rnn.bias_ih"], ["y"], transB=1)]
    found = layers(model_of(nodes, {"x": (4, 2)}, ["y"], arrays))
    assert list(found) == ["net.rnn."]
    y, _ = found["net.rnn."](np.ones((1, 4, 2)))
    np.testing.assert_array_equal(y[0], cell(np.ones((4, 2)))[0])


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "Gather"])
def test_sizes_are_bounded_before_memory_is_taken(rng, kind):
    made = call(rng, "RNN", dtype=np.float32, leave_out=["initial_h"])
    huge = np.array([2**20, 2**15, 1])
    data = np.zeros((1, 1, 1), np.float32)
    if kind == "ConstantOfShape":
        first = node(kind, ["huge"], ["W"])
    elif kind == "Gather":
        huge, data = np.zeros(10_000, np.int64), np.zeros((1, 10_000), np.float32)
        first = node(kind, ["data", "huge"], ["W"])
    else:
        first = node(kind, ["data", "huge"], ["W"])
    model = one_node(made)
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "W"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for name, array in {"huge": huge, "data": data}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model.graph.node.insert(0, first)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"'cell': .*expected constants within"):
            layers(model)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_data_in_other_files_are_refused(rng, tmp_path):
    model = one_node(call(rng, "RNN", dtype=np.float32))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for read in (layers, fl.load):
        with pytest.raises(
            ValueError, match=r"model\.onnx: tensor 'W': .*external data in '../sec"
        ):
            read(path)


# Whole graphs.

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
