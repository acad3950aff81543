"""`layers`: the recurrent nodes of graphs, against ONNX Runtime."""

import tracemalloc

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


@pytest.mark.parametrize("opset", [7, 11, 13, 14, min(22, onnx.defs.onnx_opset_version())])
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
