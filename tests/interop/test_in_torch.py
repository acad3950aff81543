"""`fastlstm.torch`: the numbers, the shapes and the errors of torch's own layers."""

import copy
import gc
import io
import threading
import warnings

import numpy as np
import pytest

import fastlstm as fl

torch = pytest.importorskip("torch", reason="fastlstm.torch is for torch models")
from torch import nn  # noqa: E402

import fastlstm.torch as door  # noqa: E402
from fastlstm.in_torch import fallback, packed  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*not supported with oneDNN:UserWarning"),
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
    pytest.mark.usefixtures("torch_on_one_thread"),
]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}
SEQUENCES = {
    "LSTM": [{}, {"proj_size": 3}, {"bias": False}],
    "GRU": [{}, {"bias": False}],
    "RNN": [{}, {"nonlinearity": "relu"}],
}
LAYERS = [(kind, own) for kind, options in SEQUENCES.items() for own in options]


@pytest.fixture(autouse=True)
def _no_warning_before(monkeypatch):
    monkeypatch.setattr(fallback, "_warned", set())


def flat(result):
    """All tensors of a result, in order."""
    if isinstance(result, nn.utils.rnn.PackedSequence):
        return [result.data]
    if isinstance(result, torch.Tensor):
        return [result]
    return [tensor for part in result for tensor in flat(part)]


def pair(kind, *sizes, seed=3, **options):
    """One of torch's layers, and the same in fastlstm."""
    torch.manual_seed(seed)
    theirs = getattr(nn, kind)(*sizes, **options)
    return theirs, door.replace(copy.deepcopy(theirs))


def state_of(layer, *batch):
    """A random initial state that fits a layer."""
    dtype = layer.weight_hh_l0.dtype
    rows = layer.num_layers * (1 + layer.bidirectional)
    h = torch.randn(rows, *batch, layer.proj_size or layer.hidden_size, dtype=dtype)
    if layer.mode != "LSTM":
        return h
    return h, torch.randn(rows, *batch, layer.hidden_size, dtype=dtype)


def assert_same(ours, theirs, tolerance):
    ours, theirs = flat(ours), flat(theirs)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_results_are_torchs(kind, options, batch_first, dtype):
    theirs, ours = pair(
        kind,
        5,
        7,
        num_layers=2,
        bidirectional=True,
        batch_first=batch_first,
        dtype=dtype,
        **options,
    )
    inputs = [torch.randn(3, 6, 5, dtype=dtype), torch.randn(4, 5, dtype=dtype)]
    inputs.append(torch.randn(5, 3, 6, dtype=dtype).permute(1, 2, 0))  # no dense axis
    with torch.no_grad():
        for x in inputs:
            batch = () if x.dim() == 2 else (x.shape[0 if batch_first else 1],)
            for state in (None, state_of(ours, *batch)):
                assert_same(ours(x, state), theirs(x, state), TOLERANCE[dtype])


@pytest.mark.parametrize("enforce_sorted", [False, True])
@pytest.mark.parametrize("kind", SEQUENCES)
def test_packed_sequences(kind, enforce_sorted):
    theirs, ours = pair(kind, 5, 7, num_layers=2, bidirectional=True, batch_first=True)
    lengths = torch.tensor([6, 4, 4, 1] if enforce_sorted else [4, 1, 6, 4])
    sequence = nn.utils.rnn.pack_padded_sequence(
        torch.randn(4, 6, 5), lengths, batch_first=True, enforce_sorted=enforce_sorted
    )
    with torch.no_grad():
        for state in (None, state_of(ours, 4)):
            y, final = ours(sequence, state)
            y_theirs, final_theirs = theirs(sequence, state)
            assert_same([y, final], [y_theirs, final_theirs], 2e-6)
            padded, own_lengths = nn.utils.rnn.pad_packed_sequence(y, batch_first=True)
            assert own_lengths.tolist() == lengths.tolist()
            assert padded.shape == (4, 6, 14)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells(kind):
    theirs, ours = pair(kind, 5, 7)
    assert isinstance(ours, getattr(nn, kind))
    for x, batch in ((torch.randn(3, 5), (3,)), (torch.randn(5), ())):
        h, c = torch.randn(2, *batch, 7)
        for state in (None, (h, c) if kind == "LSTMCell" else h):
            assert_same(ours(x, state), theirs(x, state), 1e-6)


def test_constructors_are_torchs():
    layer = door.LSTM(5, 7, 2, False, True, 0.25, True, 3, dtype=torch.float64)
    same = nn.LSTM(5, 7, 2, False, True, 0.25, True, 3, dtype=torch.float64)
    assert repr(layer) == repr(same)
    assert list(layer.state_dict()) == list(same.state_dict())
    assert isinstance(layer, nn.RNNBase)
    layer.load_state_dict(same.state_dict())
    layer.flatten_parameters()
    torch.manual_seed(8)
    first = door.RNN(5, 7, 1, "relu").state_dict()
    torch.manual_seed(8)
    assert all(torch.equal(first[n], t) for n, t in nn.RNN(5, 7, 1, "relu").state_dict().items())
    with pytest.raises(ValueError, match="proj_size"):
        door.GRU(5, 7, proj_size=2)
    with pytest.raises(ValueError, match="hidden_size must be greater"):
        door.LSTM(5, 0)


def _in_place(layer):
    with torch.no_grad():
        layer.weight_hh_l0.add_(0.1)


def _data(layer):
    layer.weight_hh_l0.data.add_(0.1)  # counts no version


def _new_data(layer):
    layer.bias_ih_l0.data = torch.ones(28)


def _numpy(layer):
    layer.weight_ih_l0.detach().numpy()[:] *= 2


def _one_bit(layer):
    layer.weight_ih_l0.data[3, 2] = torch.nextafter(layer.weight_ih_l0[3, 2], torch.tensor(9.0))


def _vector(layer):
    vector = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(vector * 2, layer.parameters())


def _transposed(layer):
    layer.weight_hh_l0.data = torch.randn(7, 28).t()


def _average(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.data.lerp_(torch.randn_like(parameter), 0.5)


CHANGES = [_in_place, _data, _new_data, _numpy, _one_bit, _vector, _transposed, _average]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("times", [1, 2, 3])
def test_every_change_of_a_weight_is_seen(change, times):
    """Also after so many calls since an optimizer's step: the first has not kept the weights."""
    theirs, ours = pair("LSTM", 5, 7)
    x = torch.randn(6, 3, 5)
    for _ in range(2):
        ours(x)
        for layer in (theirs, ours):
            _in_place(layer)
    for _ in range(times):
        before = ours(x)[0]
    torch.manual_seed(9)
    change(ours)
    torch.manual_seed(9)
    change(theirs)
    with torch.no_grad():
        y = ours(x)[0]
        fresh = door.LSTM(5, 7)
        fresh.load_state_dict(ours.state_dict())
        assert torch.equal(y, fresh(x)[0])
        assert not torch.equal(y, before)
        assert_same(y, theirs(x)[0], 2e-6)


def test_weights_of_a_wrong_shape():
    _, ours = pair("LSTM", 5, 7)
    ours(torch.randn(6, 3, 5))
    storage = ours.weight_hh_l0.untyped_storage()
    ours.weight_hh_l0.data = torch.tensor([], dtype=torch.float32).set_(storage, 0, (3, 7))
    with pytest.raises(ValueError, match="W_hh"):
        ours(torch.randn(6, 3, 5))


def test_weights_from_elsewhere():
    theirs, ours = pair("GRU", 5, 7)
    x = torch.randn(6, 3, 5)
    others = {name: torch.randn_like(p) for name, p in theirs.named_parameters()}
    call = torch.func.functional_call
    assert_same(call(ours, others, (x,)), call(theirs, others, (x,)), 2e-6)
    assert_same(ours(x), theirs(x), 2e-6)
    for layer in (theirs, ours):
        torch.manual_seed(1)
        nn.utils.parametrizations.orthogonal(layer, "weight_hh_l0")
    assert_same(ours(x), theirs(x), 2e-6)


def test_results_own_their_memory():
    _, ours = pair("LSTM", 5, 7)
    x = torch.randn(6, 3, 5)
    with torch.no_grad():
        y, (h, c) = ours(x)
        copies = [y.clone(), h.clone(), c.clone()]
        for _ in range(3):
            ours(torch.randn(6, 3, 5))
        assert_same([y, h, c], copies, 0)
        y.zero_()
        assert_same(ours(x), copies, 0)
        given = x.clone()
        ours(x)
        assert torch.equal(x, given)


def test_what_is_packed_goes_with_the_weights():
    packed.CACHE.drop_dead()
    before = len(packed.CACHE)
    layers = [door.LSTM(3, 4) for _ in range(5)]
    for layer in layers:
        for _ in range(3):
            layer(torch.randn(2, 2, 3))
            layer.weight_ih_l0.data.add_(1)
    assert len(packed.CACHE) == before + 5
    del layer, layers
    gc.collect()
    door.GRU(3, 4)(torch.randn(2, 2, 3))
    assert len(packed.CACHE) <= before + 1


def test_threads_may_share_a_layer():
    _, ours = pair("LSTM", 5, 7, num_layers=2)
    inputs = [torch.randn(9, b + 1, 5) for b in range(8)]
    expected = [ours(x)[0].detach() for x in inputs]
    wrong = []

    def work(x, y):
        for _ in range(20):
            found = ours(x)[0]
            found.sum().backward()
            if not torch.equal(found, y):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(inputs, expected)]  # noqa: B905
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# What torch's own layers compute.


def in_autocast(layer, x):
    with torch.autocast("cpu"):
        return [layer(x), layer(x)]


def test_other_dtypes_and_modes_fall_back_with_one_warning():
    # Not an LSTM, which torch computes in bfloat16 on some processors only.
    theirs, ours = pair("GRU", 5, 7)
    x = torch.randn(6, 3, 5)
    with pytest.warns(UserWarning, match="autocast is on") as caught:
        both = in_autocast(ours, x), in_autocast(theirs, x)
    assert_same(*both, 0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="dtype torch.bfloat16"):
        assert_same(ours.bfloat16()(x.bfloat16()), theirs.bfloat16()(x.bfloat16()), 0)
    with pytest.warns(UserWarning, match="device meta"):
        assert ours.to("meta")(x.bfloat16().to("meta"))[0].shape == (6, 3, 7)


def test_functional_transforms_fall_back():
    theirs, ours = pair("RNNCell", 5, 7)
    x, h = torch.randn(4, 3, 5), torch.randn(4, 3, 7)
    assert_same(torch.vmap(ours)(x, h), torch.vmap(theirs)(x, h), 0)
    grad = torch.func.jacrev(lambda x: ours(x, h[0]))(x[0])
    assert_same(grad, torch.func.jacrev(lambda x: theirs(x, h[0]))(x[0]), 0)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x[0], torch.ones(3, 5))
        tangents = [
            torch.autograd.forward_ad.unpack_dual(layer(dual, h[0])).tangent
            for layer in (ours, theirs)
        ]
    assert tangents[0] is not None
    assert_same(*tangents, 0)


def test_lazy_negatives():
    theirs, ours = pair("LSTM", 5, 7)
    x = torch.complex(torch.randn(6, 3, 5), torch.randn(6, 3, 5)).conj().imag
    assert x.is_neg()
    assert_same(ours(x), theirs(x), 0)


@pytest.mark.parametrize(
    ("x", "state"),
    [
        (torch.ones(6, 3, 4), None),
        (torch.ones(6, 3, 5).double(), None),
        (torch.ones(6, 3, 5, 1), None),
        (torch.ones(0, 3, 5), None),
        (torch.ones(6, 3, 5), (torch.ones(1, 2, 7), torch.ones(1, 3, 7))),
        (torch.ones(6, 3, 5), (torch.ones(1, 3, 7), torch.ones(1, 3, 6))),
        (torch.ones(6, 3, 5), (torch.ones(3, 7), torch.ones(3, 7))),
        (torch.ones(6, 5), (torch.ones(1, 1, 7), torch.ones(1, 1, 7))),
        (torch.ones(6, 3, 5), torch.ones(1, 3, 7)),
        ([1.0], None),
    ],
)
def test_bad_input_raises_torchs_error(x, state):
    theirs, ours = pair("LSTM", 5, 7)
    with pytest.raises(Exception) as expected:  # noqa: PT011 (torch has several kinds)
        theirs(x, state)
    with pytest.raises(expected.type) as found:
        ours(x, state)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("nonlinearity", ["elu", "sigmoid", "Tanh"])
def test_an_unknown_nonlinearity_raises_torchs_error(nonlinearity):
    _, ours = pair("RNNCell", 5, 7)
    ours.nonlinearity = nonlinearity
    with pytest.raises(RuntimeError, match="Unknown nonlinearity"):
        ours(torch.ones(3, 5))


def test_empty_batch():
    theirs, ours = pair("GRU", 5, 7)
    assert_same(ours(torch.ones(6, 0, 5)), theirs(torch.ones(6, 0, 5)), 0)


def test_without_torch_the_extra_is_named():
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import fastlstm\n"
        "try:\n    fastlstm.torch\n"
        "except ImportError as error:\n    print(error)\n"
        "assert 'torch' not in dir(fastlstm)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == 'fastlstm.torch needs torch: pip install "fastlstm[torch]"'


# Replaced models.


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Conv1d(5, 6, 3, padding=1)
        self.stack = nn.LSTM(6, 7, num_layers=2, bidirectional=True, batch_first=True)
        self.again = self.stack
        self.head = nn.Sequential(nn.Linear(14, 4), nn.ReLU())
        self.cells = nn.ModuleList([nn.GRUCell(4, 4), nn.RNN(4, 4)])

    def forward(self, x):
        y, _ = self.stack(self.features(x.transpose(1, 2)).transpose(1, 2))
        y = self.head(y)
        return self.cells[1](self.cells[0](y.flatten(0, 1)).view_as(y))[0]


class OwnLSTM(nn.LSTM):
    pass


def test_replace_keeps_everything():
    model = Tagger().eval()
    called = []
    model.stack.register_forward_hook(lambda *_: called.append(True))
    model.cells[1].bias_hh_l0 = model.cells[1].bias_ih_l0  # tied
    parameters = dict(model.named_parameters())
    keys = list(model.state_dict())
    own = model.own = OwnLSTM(3, 4)
    x = torch.randn(3, 9, 5)
    expected = model(x)
    assert door.replace(model) is model
    assert type(model.stack) is door.LSTM
    assert model.again is model.stack
    assert [type(cell) for cell in model.cells] == [door.GRUCell, door.RNN]
    assert type(own) is OwnLSTM
    assert not model.stack.training
    assert list(model.state_dict())[: len(keys)] == keys
    assert all(model.get_parameter(name) is value for name, value in parameters.items())
    assert_same(model(x), expected, 1e-6)
    assert len(called) == 2
    assert door.restore(model) is model
    assert type(model.stack) is nn.LSTM
    assert_same(model(x), expected, 0)
    lone = nn.GRU(3, 4)
    assert type(door.replace(lone)) is door.GRU
    with pytest.raises(TypeError, match=r"module: expected a torch.nn.Module, got LSTM"):
        door.replace(fl.LSTM(3, 4))


def test_copies_and_files():
    model, x = door.replace(Tagger()), torch.randn(3, 9, 5)
    expected = model(x)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert type(other.stack) is door.LSTM
        assert_same(other(x), expected, 0)
        with torch.no_grad():
            other.stack.weight_ih_l0.zero_()
        assert not torch.equal(other(x), expected)
    assert_same(model(x), expected, 0)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    plain = Tagger()
    plain.load_state_dict(torch.load(file, weights_only=True))
    assert_same(plain(x), expected, 1e-6)


def test_export_has_torchs_operators():
    model, x = door.replace(Tagger()).eval(), torch.randn(3, 9, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, that there are newer ways
        traced = torch.jit.trace(model.stack, torch.randn(3, 9, 6))
        program = torch.export.export(model, (x,))
    assert "aten::lstm" in str(traced.inlined_graph)
    other = torch.randn(4, 2, 6)
    assert_same(traced(other)[0], model.stack(other)[0], 1e-6)
    targets = [str(node.target) for node in program.graph.nodes]
    assert "aten.lstm.input" in targets
    assert not any("fastlstm" in target for target in targets)
    assert_same(program.module()(x), model(x), 1e-6)
    with pytest.raises(TypeError, match=r"script fastlstm.torch.restore"):
        torch.jit.script(model)
    assert type(model.stack) is door.LSTM


@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_export(dynamo, tmp_path):
    """The file has ONNX's own node for each layer, and loads as the model."""
    pytest.importorskip("onnx", reason="torch.onnx.export needs the onnx package")
    if dynamo:
        pytest.importorskip("onnxscript", reason="torch.onnx.export(dynamo=True) needs onnxscript")
    model, x = door.replace(nn.Sequential(nn.Linear(5, 6), Outputs())).eval(), torch.randn(3, 9, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"external_data": False} if dynamo else {}
        torch.onnx.export(model, (x,), tmp_path / "m", dynamo=dynamo, **options)
    assert type(model[1].lstm) is door.LSTM
    loaded = fl.load(tmp_path / "m")
    assert [type(module).__name__ for module in loaded] == ["Linear", "LSTM", "LSTM"]
    np.testing.assert_allclose(loaded(x.numpy())[0], model(x).detach(), rtol=0, atol=1e-6)


class Outputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 7, 2, bidirectional=True)

    def forward(self, x):
        return self.lstm(x)[0]


def test_all_is_described():
    assert all(getattr(door, name).__doc__ for name in door.__all__)
    assert all(getattr(door, name).__module__ == "fastlstm.torch" for name in door.__all__[:6])
    assert fl.torch is door


def test_threads_of_torch_bound_those_of_the_kernels(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    own = packed.Packed.calls

    def calls(self, training):
        result = own(self, training)
        seen.append([key[1] for key in self._parameters.derived if isinstance(key[1], int)])
        return result

    monkeypatch.setattr(packed.Packed, "calls", calls)
    _, ours = pair("LSTM", 5, 7)
    ours(torch.randn(6, 3, 5))
    assert seen
    assert set(seen[0]) == {1}


def test_results_are_arrays_of_the_backend_in_use(rng):
    _, ours = pair("LSTM", 5, 7)
    x = torch.from_numpy(rng.standard_normal((6, 3, 5)).astype(np.float32))
    with torch.no_grad():
        y = ours(x)[0]
        with fl.use_backend("reference"):
            assert_same(ours(x)[0], y, 1e-6)


def test_no_more_threads_than_torch_has(monkeypatch):
    monkeypatch.setattr(packed, "get_num_threads", lambda: 5)
    asked, calls_with = [], packed.Stack._calls_with
    monkeypatch.setattr(
        packed.Stack,
        "_calls_with",
        lambda stack, values, threads, *rest: (
            asked.append(threads) or calls_with(stack, values, threads, *rest)
        ),
    )
    door.LSTM(3, 4)(torch.ones(2, 1, 3))
    assert asked == [1]
