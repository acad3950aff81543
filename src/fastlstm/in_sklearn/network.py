"""The model of an estimator, from plain values."""

from typing import Any

from fastlstm.checks import read_dtype, read_flag, read_number, read_size
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.gru import GRU
from fastlstm.layers.linear import Linear
from fastlstm.layers.lstm import LSTM
from fastlstm.layers.pool import KINDS, Pool
from fastlstm.layers.rnn import RNN
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Module

CLIP_NORM = 1.0  # the largest norm of the gradients of a step
CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def build_network(
    inputs: int,
    outputs: int,
    *,
    cell: Any = "lstm",
    hidden_size: Any = 64,
    num_layers: Any = 1,
    bidirectional: Any = False,
    dropout: Any = 0.0,
    pooling: Any = "last",
    dtype: Any = "float32",
    rng: Any = None,
) -> Sequential:
    """Return recurrent layers, a pooling, dropout and a linear head; sequences first.

    Parameters
    ----------
    inputs, outputs : int
        Channels of a step, and numbers that the head gives.
    cell : "lstm", "gru" or "rnn"
    hidden_size, num_layers, bidirectional
        As of `fastlstm.LSTM`.
    dropout : float in [0, 1)
        Between layers, and before the head.
    pooling : "last", "mean", "max" or None
        None for outputs of every step, (B, T, outputs); otherwise one row a sequence, (B, outputs).
    dtype : float32 or float64
    rng : None, seed or Generator
        Source of the initial values.

    Raises
    ------
    ValueError, TypeError
        A value does not fit; the message names the argument.
    """
    if not isinstance(cell, str) or cell not in CELLS:
        raise ValueError(f'cell: expected "lstm", "gru" or "rnn", got {cell!r}')
    pooling = None if pooling is None else read_pooling(pooling)
    dropout = read_number("dropout", dropout, 0, 1, open_above=True)
    num_layers = read_size("num_layers", num_layers)
    bidirectional = read_flag("bidirectional", bidirectional)
    hidden_size = read_size("hidden_size", hidden_size)
    options: dict[str, Any] = {"dtype": read_dtype("dtype", dtype), "rng": rng}
    layer: Any = CELLS[cell]
    modules: list[Module] = [
        layer(
            inputs,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
            bidirectional=bidirectional,
            **options,
        )
    ]
    if pooling is not None:
        modules.append(Pool(pooling))
    if dropout:
        modules.append(Dropout(dropout, rng=rng))
    modules.append(Linear(hidden_size * (1 + bidirectional), outputs, **options))
    return Sequential(*modules)


def read_pooling(value: Any) -> str:
    """Return `value`, which must be a kind of pooling."""
    if not isinstance(value, str) or value not in KINDS:
        raise ValueError(f'pooling: expected "last", "mean" or "max", got {value!r}')
    return value
