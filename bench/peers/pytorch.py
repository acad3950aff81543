"""PyTorch on the CPU: `torch.nn.LSTM`, which hands float32 without projection to oneDNN.

`torch.nn.GRU` and `torch.nn.RNN` are steps in PyTorch's own operations.
"""

import numpy as np

from bench.cells import CELLS
from bench.peers.base import CannotDoError, Peer, Training, as_layers_take_it, refuse
from bench.problem import Problem


class Torch(Peer):
    """`torch.nn`'s layer under `inference_mode`; ragged batches as a PackedSequence.

    A ragged batch comes and goes padded, as with fastlstm: packing and padding are timed.
    """

    name = "torch"
    requires = ("torch",)
    trains = True
    cells = tuple(CELLS)

    def __init__(self, problem: Problem, threads: int):
        import torch

        refuse(problem, "resets")
        self._torch, self._threads = torch, threads
        self.prepare()
        case = problem.case
        layer = getattr(torch.nn, case.cell)
        dtype = getattr(torch, case.dtype)
        self._layer = layer(case.I, case.H, case.layers, **case.options, dtype=dtype)
        parameters = problem.layer.state_dict()
        self._layer.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in parameters.items()}
        )
        self._x = torch.from_numpy(problem.x)
        self._dy = torch.from_numpy(problem.dy)
        self._state = as_layers_take_it(problem.state, torch.from_numpy)
        self._lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)
        self._layer.eval()

    def prepare(self) -> None:
        self._torch.set_num_threads(self._threads)

    def _forward(self, x):
        if self._lengths is None:
            return self._layer(x, self._state)[0]
        rnn = self._torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(x, self._lengths, enforce_sorted=False)
        y, _ = self._layer(packed, self._state)
        return rnn.pad_packed_sequence(y, total_length=len(x))[0]

    def infer(self) -> np.ndarray:
        with self._torch.inference_mode():
            return self._forward(self._x).numpy()

    def train(self) -> Training:
        self._layer.zero_grad()
        x = self._x.detach().requires_grad_()
        self._forward(x).backward(self._dy)
        weights = {name: weight.grad.numpy() for name, weight in self._layer.named_parameters()}
        return x.grad.numpy(), weights


class TorchEval(Torch):
    """The same in `eval()` alone, which is how it is often called: autograd records."""

    name = "torch-eval"
    by_default = False
    trains = False

    def infer(self) -> np.ndarray:
        return self._forward(self._x).detach().numpy()


class PaddedTorch(Torch):
    """Ragged rows computed to the end, then cut off, which keeps oneDNN; one direction only.

    The state it ends with is not the rows' last one.
    """

    name = "torch-padded"
    by_default = False

    def __init__(self, problem: Problem, threads: int):
        super().__init__(problem, threads)
        refuse(problem, "bidirectional")
        if self._lengths is None:
            raise CannotDoError("only ragged batches")
        steps = self._torch.arange(problem.case.T)[:, None]
        self._live = (steps < self._lengths)[:, :, None]

    def _forward(self, x):
        return self._layer(x, self._state)[0] * self._live
