"""torch's files without torch: state dicts, checkpoints, whole modules, TorchScript."""

import argparse
import collections
import enum
import pathlib
import sys

import numpy as np
import pytest
from compare import assert_same_bits
from pickles import (
    described,
    mapping,
    number,
    text,
    values,
    whole,
    write_old,
    write_state,
    write_zip,
)

import fastlstm as fl
from fastlstm.interop.torch import layers

# torch says so at its first one.
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old"])


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def save(torch, tmp_path):
    def write(value, zipped=True):
        path = tmp_path / "model.bin"
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
        return path

    return write


def assert_has(layer, arrays):
    """The layer has these parameters, to the bit."""
    parameters = layer.parameters()
    assert parameters.keys() == arrays.keys()
    for name, array in arrays.items():
        assert_same_bits(parameters[name], np.asarray(array), name)


def numbers_of(module):
    return {name: tensor.detach().float().numpy() for name, tensor in module.named_parameters()}


def random_module(torch, rng):
    """A recurrent layer of torch, and what its state dict does not say."""
    kind = ["LSTM", "GRU", "RNN"][rng.integers(3)]
    options = {
        "num_layers": int(rng.integers(1, 4)),
        "bidirectional": bool(rng.integers(2)),
        "bias": bool(rng.integers(2)),
        "batch_first": bool(rng.integers(2)),
        "dtype": [torch.float32, torch.float64][rng.integers(2)],
    }
    H, said = int(rng.integers(2, 7)), {"batch_first": options["batch_first"]}
    if kind == "RNN":
        options["nonlinearity"] = said["nonlinearity"] = ["tanh", "relu"][rng.integers(2)]
    if kind == "LSTM" and rng.integers(2):
        options["proj_size"] = int(rng.integers(1, H))
    torch.manual_seed(int(rng.integers(1000)))
    return getattr(torch.nn, kind)(int(rng.integers(1, 6)), H, **options), said


@pytest.mark.parametrize("seed", range(16))
def test_layers_of_torch(torch, save, seed):
    check_a_random_module(torch, save, np.random.default_rng(seed))


@pytest.mark.slow
def test_all_layers_of_torch(torch, save):
    for seed in range(16, 216):
        check_a_random_module(torch, save, np.random.default_rng(seed))


def check_a_random_module(torch, save, rng):
    module, said = random_module(torch, rng)
    forms = [
        (module, {}),
        (module.state_dict(), said),
        ({"model": {f"net.rnn.{n}": p for n, p in module.named_parameters()}, "epoch": 3}, said),
    ]
    value, hints = forms[rng.integers(3)]
    layer = fl.load(save(value, bool(rng.integers(2))), **hints)
    assert_has(layer, {name: tensor.numpy() for name, tensor in module.state_dict().items()})
    dtype = np.float64 if module.weight_ih_l0.dtype == torch.float64 else np.float32
    x = rng.standard_normal((3, 5, module.input_size)).astype(dtype)
    with torch.inference_mode():
        expected, state = module(torch.from_numpy(x))
    y, ours = layer(x)
    np.testing.assert_allclose(y, expected.numpy(), rtol=0, atol=1e-6)
    state, ours = (part if isinstance(part, tuple) else (part,) for part in (state, ours))
    for got, wanted in zip(ours, state, strict=True):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=1e-6)


@FORMS
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_few_bits(torch, save, zipped, dtype):
    module = torch.nn.GRU(3, 5, 2).to(getattr(torch, dtype))
    assert_has(fl.load(save(module.state_dict(), zipped)), numbers_of(module))


@FORMS
def test_tensors_that_share_and_stride(torch, save, zipped):
    """One storage for all, transposed matrices, steps of two, one number for a whole vector."""
    flat = torch.arange(500, dtype=torch.float32) / 500
    state = {
        "weight_ih_l0": flat[7 : 7 + 60].view(3, 20).t(),
        "weight_hh_l0": flat[100:300].view(20, 10)[:, ::2],
        "bias_ih_l0": flat[11:51:2],
        "bias_hh_l0": flat[3:4].expand(20),
    }
    layer = fl.load(save(state | {"tied.weight": state["weight_ih_l0"]}, zipped))
    assert_has(layer, {name: np.ascontiguousarray(tensor) for name, tensor in state.items()})


class Mode(enum.Enum):
    FAST = 1


class Settings(dict):
    """A dict of an unknown class."""


class Unknown:
    def __init__(self):
        self.values = [1, 2, {3: 4}]

    def __reduce__(self):
        return Unknown, (), vars(self)


@FORMS
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model_state", "state", "net"])
def test_a_checkpoint(torch, save, zipped, key):
    """What is beside the state is read as what it is, and not made."""
    module = torch.nn.LSTM(3, 5, 2)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(2, 1, 3))[0].sum().backward()
    optimizer.step()
    value = {
        key: {f"encoder.lstm.{name}": tensor for name, tensor in module.state_dict().items()},
        "optimizer": optimizer.state_dict(),
        "arguments": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        "settings": Settings(a=1, b=[Settings()]),
        "others": [Unknown(), Mode.FAST, {1, 2}, frozenset("ab"), slice(2), 3j, bytearray(b"ab")],
        "numbers": [np.float64(3), np.arange(3), np.array(["a"]), 2**90, -1, 1e300, None, b"x"],
        "torch": [
            torch.device("cpu"),
            torch.float16,
            torch.Size([1]),
            torch.Generator().get_state(),
        ],
        "counts": collections.defaultdict(list, {"a": [1]}),
        (1, "a"): collections.Counter("abca"),
    }
    value["itself"] = value
    path = save(value, zipped)
    assert_has(fl.load(path), numbers_of(module))
    assert list(layers(path)) == ["encoder.lstm."]


def test_names_of_a_flat_state_dict_stay_whole(torch, save):
    gru = torch.nn.GRU(3, 5)
    state = {f"model.net.{name}": tensor for name, tensor in gru.state_dict().items()}
    assert list(layers(save(state))) == ["model.net."]
    assert list(layers(save({"model": state}))) == ["model.net."]
    assert repr(fl.load(save(state), prefix="model.net")) == "GRU(3, 5)"


def test_arrays_of_numpy_in_a_checkpoint(torch, save, rng):
    for dtype in ("<f4", "<f8", ">f4", "<f2"):
        arrays = fl.GRU(3, 5, dtype=np.float64, rng=rng).state_dict()
        arrays = {f"gru.{name}": array.astype(dtype) for name, array in arrays.items()}
        arrays["gru.weight_hh_l0"] = np.asfortranarray(arrays["gru.weight_hh_l0"])
        read = np.float64 if dtype == "<f8" else np.float32
        expected = {name[4:]: array.astype(read) for name, array in arrays.items()}
        assert_has(fl.load(save(arrays)), expected)


class Model:
    """Makes a whole model, whose class is not here when it is read."""

    def __new__(cls, torch):
        class Own(torch.nn.RNN):
            pass

        class Tagger(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = torch.nn.Embedding(7, 3)
                self.rnns = torch.nn.ModuleList([Own(3, 4, 2, "relu", batch_first=True)])
                self.lstm = torch.nn.LSTM(4, 5, bidirectional=True)
                self.cell = torch.nn.RNNCell(10, 6, nonlinearity="tanh")
                self.head = torch.nn.Linear(6, 2)

        module = sys.modules[__name__]
        for made in (Own, Tagger):
            made.__qualname__ = made.__name__
            setattr(module, made.__name__, made)
        return Tagger()


@FORMS
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_a_whole_module(torch, save, zipped):
    """It says batch_first and the nonlinearity of each layer."""
    model = Model(torch)
    path = save(model, zipped)
    del sys.modules[__name__].Tagger, sys.modules[__name__].Own
    found = layers(path)
    assert {prefix: repr(layer) for prefix, layer in found.items()} == {
        "rnns.0.": "RNN(3, 4, num_layers=2, nonlinearity='relu', batch_first=True)",
        "lstm.": "LSTM(4, 5, bidirectional=True)",
        "cell.": "RNN(10, 6)",
    }
    assert_has(found["lstm."], numbers_of(model.lstm))
    assert_has(found["rnns.0."], numbers_of(model.rnns[0]))
    assert fl.load(path, prefix="rnns").batch_first
    assert not fl.load(path, prefix="rnns", batch_first=False).batch_first
    with pytest.raises(ValueError, match=r"prefix: .* several: 'rnns.0.'.*'lstm.'.*'cell.'"):
        fl.load(path)
    with pytest.raises(ValueError, match="nonlinearity: expected None"):
        fl.load(path, prefix="rnns", nonlinearity="tanh")


@pytest.mark.filterwarnings("ignore")  # of the tracer
def test_torchscript(torch, tmp_path):
    class Tagger(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = torch.nn.Sequential(torch.nn.Linear(2, 3))
            self.lstm = torch.nn.LSTM(3, 5, 2, bidirectional=True)
            self.cell = torch.nn.GRUCell(10, 4)
            self.sizes = [1, 2]

        def forward(self, x):
            y, _ = self.lstm(self.encoder(x))
            return self.cell(y[0])

    model = Tagger()
    path = tmp_path / "model.jit"
    torch.jit.trace(model, torch.ones(2, 1, 2)).save(path)
    found = layers(path)
    assert list(found) == ["lstm.", "cell."]
    assert_has(found["lstm."], numbers_of(model.lstm))
    expected = {f"{name}_l0": array for name, array in numbers_of(model.cell).items()}
    assert_has(found["cell."], expected)


@FORMS
def test_two_states_in_one_file(torch, save, zipped):
    first, second = torch.nn.GRU(3, 5), torch.nn.GRU(3, 5)
    path = save({"model": first.state_dict(), "ema": second.state_dict()}, zipped)
    with pytest.raises(ValueError, match=r"prefix: .*'model.' \(GRU.*'ema.' \(GRU"):
        fl.load(path)
    assert_has(fl.load(path, prefix="ema."), numbers_of(second))


def test_an_rnn_needs_its_nonlinearity(torch, save):
    path = save({"state_dict": torch.nn.RNN(3, 5).state_dict()})
    for read in (fl.load, layers):
        with pytest.raises(ValueError, match=rf"{path}.*nonlinearity: expected as an argument"):
            read(path)
        assert read(path, nonlinearity="relu")


@FORMS
def test_what_is_not_numbers_is_named(torch, save, zipped):
    state = torch.nn.LSTM(3, 5).state_dict()
    for name, change, message in (
        ("weight_hh_l0", state["weight_hh_l0"].to_sparse(), "what torch._utils._rebuild_sparse"),
        ("bias_hh_l0", torch.ones(20, dtype=torch.complex64), "expected real"),
        ("bias_hh_l0", torch.ones(20, dtype=torch.int8), "quantized"),
        ("bias_hh_l0", Mode.FAST, "what .*(Mode|getattr) would make"),
    ):
        path = save(state | {name: change}, zipped)
        with pytest.raises((ValueError, TypeError), match=f"{path}.*{name}: .*{message}"):
            fl.load(path)


def test_no_recurrent_layer(torch, save):
    path = save(torch.nn.Linear(2, 3).state_dict())
    assert layers(path) == {}
    with pytest.raises(
        ValueError, match=r"expected the names of a recurrent layer.*\['weight', 'b"
    ):
        fl.load(path)
    path = save(torch.ones(3))
    with pytest.raises(ValueError, match="expected the names of a recurrent layer"):
        fl.load(path)


@pytest.mark.parametrize("write", [write_zip, write_old], ids=["zip", "old"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_both_forms_by_hand(monkeypatch, tmp_path, rng, write, order, dtype):
    """Also big endian; and torch is not imported."""
    monkeypatch.setitem(sys.modules, "torch", None)
    arrays = fl.LSTM(3, 5, dtype=np.float64, rng=rng).state_dict()
    arrays = {name: array.astype(dtype) for name, array in arrays.items()}
    layer = fl.load(write_state(tmp_path / "model.pt", arrays, write, order))
    read = np.float64 if dtype == "f8" else np.float32
    assert_has(layer, {name: array.astype(read) for name, array in arrays.items()})


def test_views_of_the_older_form(tmp_path, rng):
    arrays = fl.GRU(3, 5, rng=rng).state_dict()
    whole_storage = np.concatenate(
        [np.full(9, np.nan, "f4"), *(a.ravel() for a in arrays.values())]
    )
    parts, begin = {}, 9
    for key, (name, array) in enumerate(arrays.items()):
        view = values(text(f"view {key}"), number(begin), number(array.size))
        stored = described(array, "0", view).replace(
            number(array.size) + view, number(whole_storage.size) + view
        )
        parts[name] = stored
        begin += array.size
    sized = [(whole_storage.size, whole_storage.tobytes())]
    path = write_old(tmp_path / "model.pt", whole(mapping(parts)), sized)
    assert_has(fl.load(path), arrays)
