"""Random configurations against torch.nn.LSTM."""

import numpy as np
import pytest
from compare import assert_near

import fastlstm as fl

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore:.*not supported with oneDNN:UserWarning")

OUTPUT = {np.float32: 2e-5, np.float64: 1e-11}  # absolute
GRADIENT = {np.float32: 2e-4, np.float64: 1e-9}  # of the largest


def numpy(tensor):
    return tensor.detach().numpy()


class Configuration:
    """Everything that a seed decides."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.dtype = (np.float32, np.float64)[seed % 2]
        T, B, I, H = rng.integers(1, (13, 8, 21, 34))
        projected = rng.random() < 0.3 and H > 1
        self.options = {
            "num_layers": int(rng.integers(1, 4)),
            "bias": bool(rng.random() < 0.8),
            "batch_first": bool(rng.integers(2)),
            "bidirectional": bool(rng.integers(2)),
            "proj_size": int(rng.integers(1, H)) if projected else 0,
        }
        self.sizes = int(I), int(H)
        P = self.options["proj_size"] or H
        directions = 1 + self.options["bidirectional"]
        rows = self.options["num_layers"] * directions
        leading = (B, T) if self.options["batch_first"] else (T, B)

        def normal(*shape):
            return rng.standard_normal(shape).astype(self.dtype)

        self.steps = T
        self.lengths = rng.integers(1, T + 1, B) if rng.random() < 0.5 else None
        self.x = normal(*leading, I)
        self.state = (normal(rows, B, P), normal(rows, B, H)) if rng.random() < 0.7 else None
        self.dy = normal(*leading, directions * P)
        self.dstate = normal(rows, B, P), normal(rows, B, H)

    def torch(self):
        """The module, and everything it computes, by name."""
        dtype = {np.float32: torch.float32, np.float64: torch.float64}[self.dtype]
        module = torch.nn.LSTM(*self.sizes, **self.options, dtype=dtype)
        x = torch.tensor(self.x, requires_grad=True)
        state = self.state and tuple(torch.tensor(p, requires_grad=True) for p in self.state)
        batch_first = self.options["batch_first"]
        if self.lengths is None:
            y, (h, c) = module(x, state)
        else:
            packed = torch.nn.utils.rnn.pack_padded_sequence(
                x, torch.tensor(self.lengths), batch_first, enforce_sorted=False
            )
            y, (h, c) = module(packed, state)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first, 0, int(self.steps))
        loss = (y * torch.tensor(self.dy)).sum()
        for part, gradient in zip((h, c), self.dstate, strict=True):
            loss = loss + (part * torch.tensor(gradient)).sum()
        loss.backward()
        grads = {name: p.grad for name, p in module.named_parameters()} | {"x": x.grad}
        if state:
            grads |= {"h0": state[0].grad, "c0": state[1].grad}
        outputs = {"y": y, "h": h, "c": c}
        return (
            {name: numpy(p) for name, p in module.state_dict().items()},
            {name: numpy(a) for name, a in outputs.items()},
            {name: numpy(a) for name, a in grads.items()},
        )

    def fastlstm(self, parameters):
        lstm = fl.LSTM(*self.sizes, **self.options, dtype=self.dtype)
        lstm.load_state_dict(parameters)
        (y, (h, c)), tape = lstm.forward(self.x, self.state, lengths=self.lengths)
        grads = lstm.backward(tape, self.dy, self.dstate)
        by_name = grads.params | {"x": grads.x}
        if self.state:
            by_name |= dict(zip(("h0", "c0"), grads.state, strict=True))
        return {"y": y, "h": h, "c": c}, by_name


def assert_like_torch(seed):
    configuration = Configuration(seed)
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
def test_default_backend(seed):
    assert_like_torch(seed)


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_every_backend(kernels, seed):
    assert_like_torch(seed)


def test_torch_loads_our_parameters(rng):
    lstm = fl.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2, rng=rng)
    module = torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2)
    module.load_state_dict({name: torch.tensor(a) for name, a in lstm.state_dict().items()})
    x = rng.standard_normal((7, 4, 3)).astype(np.float32)
    expected, _ = module(torch.tensor(x))
    np.testing.assert_allclose(lstm(x)[0], numpy(expected), atol=2e-5)


def test_cell(kernels, rng):
    module = torch.nn.LSTMCell(3, 5)
    cell = fl.LSTMCell(3, 5)
    cell.load_state_dict({name: numpy(p) for name, p in module.state_dict().items()})
    x, h, c = (rng.standard_normal((4, n)).astype(np.float32) for n in (3, 5, 5))
    expected = module(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
    for actual, part in zip(cell(x, (h, c)), expected, strict=True):
        np.testing.assert_allclose(actual, numpy(part), atol=2e-5)
