"""The forms: ways to call fastlstm for one step of one row, with 1 input and 40 hidden units."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import fastlstm as fl
from bench.cases import Case
from bench.cells import CELLS
from bench.peers.base import as_layers_take_it
from bench.peers.onnx_runtime import OnnxRuntime
from bench.problem import Problem, make_problem

H = 40
# A cell, layers, directions, and the `most` of a call with a state and of one without.
STACKS = (
    ("LSTM", 1, 1, None, 1.3),
    *(
        ("LSTM", layers, directions, 1.1 * layers * directions, 1.3 * layers * directions)
        for layers, directions in ((1, 2), (2, 1), (2, 2), (3, 1), (3, 2))
    ),
    ("GRU", 1, 1, 1.3, 1.5),
    ("GRU", 2, 1, None, None),
    ("RNN", 1, 1, 1.3, 1.5),
)


class Form(NamedTuple):
    """A way to call fastlstm.

    Attributes
    ----------
    name : str
    call : function
    most : float, optional
        It is to take at most so many times the plain form's time.
    beside : function, optional
        ONNX Runtime's call of the same model, where that is installed.
    """

    name: str
    call: Callable[[], Any]
    most: float | None = None
    beside: Callable[[], Any] | None = None


def forms() -> list[Form]:
    """All of them; the first is the plain one, `lstm(x, state)`."""
    fl.set_num_threads(1)
    return [*_stacks(), *_arguments(), *_cells(), *_heads(), *_training()]


def _stacks() -> Iterator[Form]:
    """Layers of each cell, in one direction and both, with a state and without."""
    for cell, layers, directions, most, most_without in STACKS:
        problem, name = _problem(cell, layers, directions), _name(cell, layers, directions)
        yield Form(name, partial(problem.layer, problem.x, _state(problem)), most)
        call = partial(problem.layer, problem.x)
        yield Form(f"{name}, no state", call, most_without, _onnx_runtime(problem, call))


def _arguments() -> Iterator[Form]:
    """One LSTM layer with other arguments, all with a state."""
    problem = _problem()
    x, (h, c) = problem.x, problem.state
    plain = partial(problem.layer, x, (h, c))
    batch_first = fl.LSTM(1, H, batch_first=True, rng=0)
    yield Form("LSTM, batch_first", partial(batch_first, x, (h, c)), 1.3)
    yield Form("LSTM, threads=1", partial(plain, threads=1), 1.5)
    one_row = partial(problem.layer, x[:, 0], (h[:, 0], c[:, 0]))
    yield Form("LSTM, x without a batch", one_row, 2)
    yield Form("LSTM, x in float64", partial(problem.layer, x.astype(np.float64), (h, c)), 3)
    yield Form("LSTM, out=", partial(plain, out=np.empty((1, 1, H), np.float32)), 2)
    rows = h.copy(), c.copy()
    yield Form("LSTM, step", partial(problem.layer.step, x[0], rows), 1.1)
    yield Form("LSTM, lengths=", partial(plain, lengths=np.array([1])), 5)
    yield Form("LSTM, peepholes", partial(fl.LSTM(1, H, peepholes=True, rng=0), x, (h, c)), 2)


def _cells() -> Iterator[Form]:
    """Cells, with a state and without."""
    for name in CELLS:
        problem = _problem(name)
        x, state = problem.x[0], as_layers_take_it(tuple(part[0] for part in problem.state))
        cell = getattr(fl, f"{name}Cell")(1, H, rng=0)
        yield Form(f"{name}Cell", partial(cell, x, state), 1.2)
        yield Form(f"{name}Cell, no state", partial(cell, x), 1.4)


def _heads() -> Iterator[Form]:
    """An LSTM layer below a Linear one, with a state and without."""
    problem, head = _problem(), fl.Linear(H, 1, rng=0)
    model = fl.Sequential(problem.layer, head)
    yield Form("Sequential(LSTM, Linear)", partial(model, problem.x, (problem.state,)), 2.5)
    call = partial(model, problem.x)
    beside = _onnx_runtime(problem, call, head)
    yield Form("Sequential(LSTM, Linear), no state", call, 2.7, beside)


def _training() -> Iterator[Form]:
    """Forward, alone and with backward behind it, all with a state."""
    problem = _problem()
    yield Form("LSTM, forward", partial(problem.layer.forward, problem.x, _state(problem)), 2.5)
    for cell, layers, most in (("LSTM", 1, 6), ("LSTM", 2, 14), ("GRU", 1, 7)):
        problem = _problem(cell, layers)
        call = partial(_forward_backward, problem, _state(problem))
        yield Form(f"{_name(cell, layers)}, forward and backward", call, most)


def _forward_backward(problem: Problem, state: Any) -> None:
    _, tape = problem.layer.forward(problem.x, state)
    problem.layer.backward(tape, problem.dy)


def _problem(cell: str = "LSTM", layers: int = 1, directions: int = 1) -> Problem:
    case = Case("forms", 1, 1, 1, H, layers=layers, bidirectional=directions > 1, cell=cell)
    return make_problem(case)


def _state(problem: Problem) -> Any:
    return as_layers_take_it(problem.state)


def _name(cell: str, layers: int, directions: int = 1) -> str:
    parts = [cell, *[f"{layers} layers"] * (layers > 1), *["both directions"] * (directions > 1)]
    return ", ".join(parts)


def _onnx_runtime(
    problem: Problem, call: Callable[[], Any], head: fl.Linear | None = None
) -> Callable[[], Any] | None:
    """Its call of the model without a state, after comparing its output with that of `call`."""
    if OnnxRuntime.available():
        return None
    peer = OnnxRuntime(replace(problem, state=None), 1, head)
    np.testing.assert_allclose(peer.infer(), call()[0], rtol=1e-4, atol=1e-4)
    return peer.infer
