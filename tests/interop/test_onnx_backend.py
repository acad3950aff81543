"""The ONNX backend: ONNX's own cases, small real models, and what it refuses."""

import warnings

import numpy as np
import pytest
from onnx_graphs import session
from operators import INPUTS, OUTPUTS, call

import fastlstm as fl

onnx = pytest.importorskip("onnx", reason="the backend needs the onnx package")
helper = onnx.helper
RANKS = {"Y": 4, "Y_h": 3, "Y_c": 3, "Y_c1": 3, "y": 2}


def model_of(nodes, inputs, outputs, initializers=(), opset=17, domain=""):
    """A model of float32; `inputs` are arrays by name."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            value(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in inputs.items()
        ],
        [value(name, onnx.TensorProto.FLOAT, [None] * RANKS[name]) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in dict(initializers).items()],
    )
    imports = [helper.make_opsetid(name, opset) for name in {"", domain}]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def node_of(made, outputs=None, **names):
    """The node of a call, with its inputs and outputs under ONNX's names unless given others."""
    inputs = [names.get(name, name) if name in made.inputs else "" for name in INPUTS]
    while not inputs[-1]:
        inputs.pop()
    return helper.make_node(made.kind, inputs, outputs or OUTPUTS[made.kind], **made.attributes)


def published_cases():
    """The installed onnx package's cases of the three operators."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401
    names = ("lstm", "gru", "rnn")
    return [
        case for case in node._NodeTestCases if any(kind in case.name.split("_") for kind in names)
    ]


def test_cases_of_the_package(kernels):
    cases = published_cases()
    assert len(cases) >= 12  # of onnx 1.16; later ones have more
    for case in cases:
        assert fl.interop.onnx.Backend.is_compatible(case.model)
        prepared = fl.interop.onnx.Backend.prepare(case.model)
        for inputs, outputs in case.data_sets:
            for ours, theirs in zip(prepared.run(inputs), outputs, strict=True):
                np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=case.name)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("kind", OUTPUTS)
def test_node(kernels, rng, kind, direction):
    made = call(rng, kind, dtype=np.float32, lengths=[3, 0, 5, 1], direction=direction)
    outputs = fl.interop.onnx.Backend.run_model(
        model_of([node_of(made)], made.inputs, OUTPUTS[kind]),
        [made.inputs[name] for name in made.inputs],
    )
    assert outputs._fields == OUTPUTS[kind]
    for ours, theirs in zip(outputs, made(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    arrays = [made.inputs[name] for name in INPUTS if name in made.inputs]
    alone = fl.interop.onnx.Backend.run_node(node_of(made), arrays)
    for ours, theirs in zip(alone, made(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def tagger(rng):
    """Transpose, two LSTMs, Squeeze, Gemm, Softmax: a model as exporters write it.

    Returns it, its input, and what it gives.
    """
    below = call(
        rng, "LSTM", 6, 3, 4, 5, dtype=np.float32, leave_out=["initial_h", "initial_c", "P"]
    )
    above = call(rng, "LSTM", 6, 3, 5, 2, dtype=np.float32, leave_out=["initial_c", "P"])
    above = above.with_(direction="reverse")
    W, b = rng.standard_normal((7, 2)).astype(np.float32), np.ones(7, np.float32)
    weights = {f"{name}1": below.inputs[name] for name in "WRB"}
    weights |= {f"{name}2": above.inputs[name] for name in "WRB"}
    weights["h2"] = above.inputs["initial_h"]
    weights |= {"weight": W, "bias": b, "axis": np.array([1]), "first": np.array([0])}
    x = below.inputs["X"].swapaxes(0, 1)
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        node_of(below, ["Y1", "", "Y_c1"], X="steps", W="W1", R="R1", B="B1"),
        helper.make_node("Squeeze", ["Y1", "axis"], ["hidden"]),
        node_of(above, ["", "Y_h2"], X="hidden", W="W2", R="R2", B="B2", initial_h="h2"),
        helper.make_node("Squeeze", ["Y_h2", "first"], ["last"]),
        helper.make_node("Gemm", ["last", "weight", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["y"], axis=-1),
    ]
    Y, _, Y_c = below()
    _, Y_h, _ = above.with_({"X": Y[:, 0]})()
    logits = Y_h[0] @ W.T + b
    e = np.exp(logits)
    expected = e / e.sum(1, keepdims=True), Y_c
    return model_of(nodes, {"x": x}, ["y", "Y_c1"], weights), x, expected


def test_a_whole_model(kernels, rng):
    """The second LSTM's missing inputs are not the outputs that the first omits."""
    model, x, expected = tagger(rng)
    prepared = fl.interop.onnx.Backend.prepare(model)
    for inputs in ([x], {"x": x}, x):
        outputs = prepared.run(inputs)
        np.testing.assert_allclose(outputs[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(outputs["Y_c1"], expected[1], rtol=1e-5)


def test_weights_are_packed_once(kernels, rng, monkeypatch):
    """When they are the model's own; those that are inputs may differ from run to run."""
    model, x, _ = tagger(rng)
    prepared = fl.interop.onnx.Backend.prepare(model)
    first = prepared.run([x])
    with monkeypatch.context() as patch:
        patch.delattr(fl.onnx, "LSTM")
        np.testing.assert_array_equal(prepared.run([x])[0], first[0])
    made = call(rng, "GRU", dtype=np.float32)
    prepared = fl.interop.onnx.Backend.prepare(model_of([node_of(made)], made.inputs, ["Y"]))
    for _ in range(2):
        np.testing.assert_array_equal(prepared.run(made.inputs)[0], made()[0])
        made.inputs["W"] *= 0.5


def test_rnns_default_written_out(kernels, rng):
    """Its schema's default is of two activations, also where there is one direction."""
    made = call(rng, "RNN", dtype=np.float32)
    written = made.with_(activations=["Tanh", "Tanh"])
    outputs = fl.interop.onnx.Backend.run_model(
        model_of([node_of(written)], made.inputs, OUTPUTS["RNN"]), made.inputs
    )
    np.testing.assert_array_equal(outputs[0], made()[0])


def test_attributes_of_text(kernels, rng):
    attributes = {"activations": ["HardSigmoid", "Relu", "Tanh"], "activation_alpha": [0.3]}
    made = call(rng, "LSTM", dtype=np.float32, direction="reverse", clip=0.5, **attributes)
    outputs = fl.interop.onnx.Backend.run_model(
        model_of([node_of(made)], made.inputs, OUTPUTS["LSTM"]), made.inputs
    )
    np.testing.assert_allclose(outputs[2], made()[2], rtol=1e-6)


@pytest.mark.parametrize("opset", [7, 13, 14, 21, 22])
def test_opsets(kernels, rng, opset):
    made = call(rng, "LSTM", dtype=np.float32)
    model = model_of([node_of(made)], made.inputs, OUTPUTS["LSTM"], opset=opset)
    outputs = fl.interop.onnx.Backend.run_model(model, made.inputs)
    np.testing.assert_array_equal(outputs[0], made()[0])


def test_all_that_is_lacking_is_said_at_once():
    x = {"x": np.zeros((1, 1, 8), np.float32)}
    inner = helper.make_graph(
        [helper.make_node("Einsum", ["x"], ["z"], equation="abc->abc", name="deep")],
        "branch",
        [],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 1, 8])],
    )
    node = helper.make_node("Det", ["x"], ["d"], name="stem")
    nodes = [node, helper.make_node("Det", ["x"], ["e"], name="second")]
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    nodes.append(helper.make_node("Constant", [], ["yes"], value=yes))
    nodes.append(helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner))
    model = model_of(nodes, x, ["y"])
    assert not fl.interop.onnx.Backend.is_compatible(model)
    text = r"^model: node 'stem' is a Det, node 'deep' is a Einsum; expected one of .*LSTM"
    with pytest.raises(ValueError, match=text):
        fl.interop.onnx.Backend.prepare(model)
    with pytest.raises(ValueError, match=r"^node: node 'stem' is a Det"):
        fl.interop.onnx.Backend.run_node(node, list(x.values()))


def test_convolutions_and_padding_as_onnx_runtime(rng):
    for _ in range(12):
        group, size = int(rng.integers(1, 3)), int(rng.integers(1, 4))
        x = rng.standard_normal((3, 2 * group, 11)).astype(np.float32)
        w = rng.standard_normal((3 * group, 2, size)).astype(np.float32)
        b = rng.standard_normal(3 * group).astype(np.float32)
        mode = str(rng.choice(["reflect", "edge", "constant"]))
        nodes = [
            helper.make_node("Pad", ["x", "pads"], ["wide"], mode=mode),
            helper.make_node(
                "Conv",
                ["wide", "w", "b"],
                ["conv"],
                strides=[int(rng.integers(1, 4))],
                dilations=[int(rng.integers(1, 4))],
                pads=[int(n) for n in rng.integers(0, 3, 2)],
                group=group,
            ),
            helper.make_node("Size", ["conv"], ["size"]),
            helper.make_node("Cast", ["size"], ["number"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Div", ["conv", "number"], ["Y_h"]),
        ]
        pads = np.array([0, 0, rng.integers(4), 0, 0, rng.integers(4)])
        model = model_of(nodes, {"x": x}, ["Y_h"], {"w": w, "b": b, "pads": pads})
        (expected,) = session(model).run(None, {"x": x})
        (y,) = fl.interop.onnx.Backend.prepare(model).run([x])
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, atol=1e-6)


def test_branches_with_the_same_names(kernels, rng):
    """One has weights that are constants, the other computes them from its input."""
    made = call(rng, "RNN", dtype=np.float32, leave_out=["initial_h"], direction="forward")
    rnn = helper.make_node("RNN", ["x", "R1", "R2"], ["", "Y_h"], hidden_size=3)
    square = made.inputs["R"]
    x = rng.standard_normal((5, 4, 3)).astype(np.float32)

    def branch(name, source):
        nodes = [helper.make_node("Identity", [source], [weight]) for weight in ("R1", "R2")]
        value = helper.make_tensor_value_info("Y_h", onnx.TensorProto.FLOAT, [1, 4, 3])
        return helper.make_graph([*nodes, rnn], name, [], [value])

    chosen = helper.make_node(
        "If",
        ["yes"],
        ["Y"],
        then_branch=branch("then", "square"),
        else_branch=branch("else", "given"),
    )
    nodes = [chosen, helper.make_node("Identity", ["Y"], ["Y_c"])]
    inputs = {"x": x, "yes": np.array(True), "given": square}
    prepared = fl.interop.onnx.Backend.prepare(model_of(nodes, inputs, ["Y_c"], {"square": square}))
    for yes, factor in ((True, 1), (False, 2), (False, 3), (True, 4)):
        given = (factor * square).astype(np.float32)
        (h,) = prepared.run({"x": x, "yes": np.array(yes), "given": given})
        weights = square if yes else given
        np.testing.assert_array_equal(h, fl.onnx.rnn(x, weights, weights)[1])


def test_node_of_another_domain_is_refused():
    node = helper.make_node("LSTM", ["x"], ["y"], domain="com.example")
    model = model_of([node], {"x": np.zeros(3, np.float32)}, ["y"], domain="com.example")
    with pytest.raises(ValueError, match=r"^model: node \['y'\] is a com.example.LSTM"):
        fl.interop.onnx.Backend.prepare(model)


def test_old_models_are_refused(rng):
    node = helper.make_node("Tanh", ["x"], ["y"])
    model = model_of([node], {"x": np.zeros(3, np.float32)}, ["y"], opset=6)
    with pytest.raises(ValueError, match=r"^model: expected opset 7 or later, got 6"):
        fl.interop.onnx.Backend.prepare(model)


def test_devices(rng):
    model, _, _ = tagger(rng)
    backend = fl.interop.onnx.Backend
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
    assert not backend.is_compatible(model, "CUDA")
    with pytest.raises(ValueError, match=r"^device: "):
        backend.prepare(model, "CUDA")


@pytest.mark.parametrize("inputs", [[], [1, 2], {}, {"z": 1}, {"x": 1, "z": 1}], ids=str)
def test_inputs_that_are_not_the_models(rng, inputs):
    model, _, _ = tagger(rng)
    with pytest.raises(ValueError, match=r"^inputs: "):
        fl.interop.onnx.Backend.prepare(model).run(inputs)


def test_inputs_of_no_kind(rng):
    model, _, _ = tagger(rng)
    with pytest.raises(TypeError, match=r"^inputs: "):
        fl.interop.onnx.Backend.prepare(model).run(3)
