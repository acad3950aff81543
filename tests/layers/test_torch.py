"""Random configurations against torch.nn.LSTM, GRU and RNN."""

import numpy as np
import pytest
from compare import assert_near
from random_layers import each, parts

import fastlstm as fl

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:.*not supported with oneDNN:UserWarning")

OUTPUT = {np.float32: 2e-5, np.float64: 1e-11}  # absolute
GRADIENT = {np.float32: 2e-4, np.float64: 1e-9}  # of the largest


def numpy(tensor):
    return tensor.detach().numpy()


class Configuration:
    """Everything that a seed decides, of a layer that it leaves open: LSTM, GRU or RNN."""

    def __init__(self, kind, seed):
        self.kind, self.seed = kind, seed
        rng = np.random.default_rng(seed)
        self.dtype = (np.float32, np.float64)[seed % 2]
        T, B, I, H = rng.integers(1, (13, 8, 21, 34))
        projected = kind == "LSTM" and rng.random() < 0.3 and H > 1
        self.options = {
            "num_layers": int(rng.integers(1, 4)),
            "bias": bool(rng.random() < 0.8),
            "batch_first": bool(rng.integers(2)),
            "bidirectional": bool(rng.integers(2)),
        }
        P = int(rng.integers(1, H)) if projected else int(H)
        if projected:
            self.options["proj_size"] = P
        if kind == "RNN":
            self.options["nonlinearity"] = ("tanh", "relu")[rng.integers(2)]
        self.sizes = int(I), int(H)
        directions = 1 + self.options["bidirectional"]
        rows = self.options["num_layers"] * directions
        leading = (B, T) if self.options["batch_first"] else (T, B)

        def normal(*shape):
            return rng.standard_normal(shape).astype(self.dtype)

        self.steps = T
        self.lengths = rng.integers(1, T + 1, B) if rng.random() < 0.5 else None
        self.x = normal(*leading, I)
        shapes = [(rows, B, P), (rows, B, H)][: 2 if kind == "LSTM" else 1]
        self.state = self.form([normal(*s) for s in shapes]) if rng.random() < 0.7 else None
        self.dy = normal(*leading, directions * P)
        self.dstate = self.form([normal(*shape) for shape in shapes])

    def form(self, parts):
        """A state as its layer takes it."""
        return tuple(parts) if self.kind == "LSTM" else parts[0]

    def torch(self):
        """The module, and everything it computes, by name."""
        dtype = {np.float32: torch.float32, np.float64: torch.float64}[self.dtype]
        torch.manual_seed(self.seed)
        module = getattr(torch.nn, self.kind)(*self.sizes, **self.options, dtype=dtype)
        x = torch.tensor(self.x, requires_grad=True)
        state = None
        if self.state is not None:
            state = each(lambda part: torch.tensor(part, requires_grad=True), self.state)
        batch_first = self.options["batch_first"]
        if self.lengths is None:
            y, final = module(x, state)
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                x, torch.tensor(self.lengths), batch_first, enforce_sorted=False
            )
            y, final = module(packed, state)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first, 0, int(self.steps))
        loss = (y * torch.tensor(self.dy)).sum()
        for part, gradient in zip(parts(final), parts(self.dstate), strict=True):
            loss = loss + (part * torch.tensor(gradient)).sum()
        loss.backward()
        grads = {name: p.grad for name, p in module.named_parameters()} | {"x": x.grad}
        if state is not None:
            grads |= {
                name: part.grad for name, part in zip(("h0", "c0"), parts(state), strict=False)
            }
        outputs = {"y": y} | dict(zip("hc", parts(final), strict=False))
        return (
            {name: numpy(p) for name, p in module.state_dict().items()},
            {name: numpy(a) for name, a in outputs.items()},
            {name: numpy(a) for name, a in grads.items()},
        )

    def fastlstm(self, parameters):
        layer = getattr(fl, self.kind)(*self.sizes, **self.options, dtype=self.dtype)
        layer.load_state_dict(parameters)
        (y, final), tape = layer.forward(self.x, self.state, lengths=self.lengths)
        grads = layer.backward(tape, self.dy, self.dstate)
        by_name = grads.params | {"x": grads.x}
        if self.state is not None:
            by_name |= dict(zip(("h0", "c0"), parts(grads.state), strict=False))
        return {"y": y} | dict(zip("hc", parts(final), strict=False)), by_name


def assert_like_torch(kind, seed):
    configuration = Configuration(kind, seed)
    parameters, outputs, grads = configuration.torch()
    actual_outputs, actual_grads = configuration.fastlstm(parameters)
    for name, expected in outputs.items():
        actual = actual_outputs[name]
        assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), name
        bound = OUTPUT[configuration.dtype]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=bound, err_msg=name)
    assert actual_grads.keys() == grads.keys()
    for name, expected in grads.items():
        assert_near(actual_grads[name], expected, GRADIENT[configuration.dtype], name)


@pytest.mark.parametrize("seed", range(500))
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_default_backend(kind, seed):
    assert_like_torch(kind, seed)


@pytest.mark.parametrize("seed", range(1000, 1060))
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_every_backend(kernels, kind, seed):
    assert_like_torch(kind, seed)


def test_torch_loads_our_parameters(rng):
    lstm = fl.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2, rng=rng)
    module = torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2)
    module.load_state_dict({name: torch.tensor(a) for name, a in lstm.state_dict().items()})
    x = rng.standard_normal((7, 4, 3)).astype(np.float32)
    expected, _ = module(torch.tensor(x))
    np.testing.assert_allclose(lstm(x)[0], numpy(expected), atol=2e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_cell(kernels, rng, kind):
    module = getattr(torch.nn, kind + "Cell")(3, 5)
    cell = getattr(fl, kind + "Cell")(3, 5)
    cell.load_state_dict({name: numpy(p) for name, p in module.state_dict().items()})
    x, h, c = (rng.standard_normal((4, n)).astype(np.float32) for n in (3, 5, 5))
    state = (h, c) if kind == "LSTM" else h
    expected = module(torch.tensor(x), each(torch.tensor, state))
    for actual, part in zip(parts(cell(x, state)), parts(expected), strict=True):
        np.testing.assert_allclose(actual, numpy(part), atol=2e-5)
