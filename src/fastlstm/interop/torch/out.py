"""`to_torch`: a model of this library as a torch.nn.Module."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm.checks import missing
from fastlstm.layers.activation import Activation
from fastlstm.layers.dropout import Dropout
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.gru import GRU, GRUCell
from fastlstm.layers.linear import Linear
from fastlstm.layers.lstm import LSTM, LSTMCell
from fastlstm.layers.pool import Last, Pool
from fastlstm.layers.rnn import RNN, RNNCell
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Module, Output

# Options without a counterpart in torch, with the values that stand for doing without them.
COMMON = {"clip": None, "learn_initial_state": False}
ABSENT: dict[str, dict[str, Any]] = {
    "LSTM": {
        **COMMON,
        "peepholes": False,
        "coupled": False,
        "layer_norm": False,
        "activations": ("sigmoid", "tanh", "tanh"),
        "recurrent_dropout": 0.0,
        "zoneout": (0.0, 0.0),
    },
    "GRU": {**COMMON, "linear_before_reset": True, "activations": ("sigmoid", "tanh")},
    "RNN": COMMON,
}


def to_torch(model: Module) -> Any:
    """Return a torch.nn.Module with the same weights, to the bit, that computes the same.

    Parameters
    ----------
    model : LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell, Linear, Embedding, Dropout, Activation
        Or `Last` or `Pool`, which then take no lengths; or a `Sequential` of these, also one within
        another.

    Returns
    -------
    module : torch.nn.Module
        In training mode, with tensors of its own. The names in its `state_dict` are the model's. A
        `Sequential` becomes a torch.nn.Sequential; with a recurrent layer, one that takes and
        returns states: ``y, state = module(x, state)``. A layer with ``bias="single"`` becomes one
        with torch's two biases, of which the second is zero and needs no gradient.

    Raises
    ------
    ValueError
        A module or one of its options has no counterpart in torch; the message names it.
    TypeError
        `model` is no module of this library.
    ImportError
        torch is not installed.

    Examples
    --------
    >>> import numpy as np, torch, fastlstm as fl
    >>> model = fl.Sequential(fl.GRU(3, 5), fl.Linear(5, 1))
    >>> module = fl.interop.torch.to_torch(model)
    >>> y, state = module(torch.ones(7, 2, 3))
    >>> y.shape
    torch.Size([7, 2, 1])
    """
    if not isinstance(model, Module):
        raise TypeError(f"model: expected a module of fastlstm, got {type(model).__name__}")
    try:
        import torch
    except ImportError as error:
        raise missing("to_torch", "torch", "torch") from error
    with torch.random.fork_rng(devices=[]):  # torch's constructors draw initial weights
        module = _convert("model", model._after(Output()))
    with torch.no_grad():
        parameters = dict(module.named_parameters())
        for name, array in model.parameters().items():
            parameters[name].copy_(torch.from_numpy(np.array(array)))
    return module


def _convert(path: str, model: Module) -> Any:
    """The module of torch, with its own weights."""
    make = MAKERS.get(type(model))
    if make is None:
        known = ", ".join(kind.__name__ for kind in MAKERS)
        raise ValueError(
            f"{path}: {type(model).__name__} has no counterpart in torch; expected one of {known}"
        )
    return make(path, model)


def _recurrent(path: str, layer: Any) -> Any:
    import torch

    kind = type(layer).__name__
    for name, without in ABSENT[kind.removesuffix("Cell")].items():
        value = getattr(layer, name, without)
        if value != without:
            raise ValueError(f"{path}: {kind} has {name}={value!r}, which torch has not")
    options: dict[str, Any] = {"bias": bool(layer.bias), "dtype": _dtype(layer.dtype)}
    if kind.startswith("RNN"):
        if layer.nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"{path}: {kind} has nonlinearity={layer.nonlinearity!r}; torch has tanh and relu"
            )
        options["nonlinearity"] = layer.nonlinearity
    if not kind.endswith("Cell"):
        if isinstance(layer.hidden_size, list):
            raise ValueError(
                f"{path}: {kind} has hidden_size={layer.hidden_size}; in torch all layers have the "
                "same width"
            )
        for name in ("num_layers", "batch_first", "dropout", "bidirectional"):
            options[name] = getattr(layer, name)
        if kind == "LSTM":
            options["proj_size"] = layer.proj_size
    made = getattr(torch.nn, kind)(layer.input_size, layer.hidden_size, **options)
    if layer.bias == "single":
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(not name.startswith("bias_hh"))
    return made


def _linear(path: str, layer: Linear) -> Any:
    import torch

    has_bias = layer.bias is not None
    return torch.nn.Linear(
        layer.in_features, layer.out_features, has_bias, dtype=_dtype(layer.dtype)
    )


def _embedding(path: str, layer: Embedding) -> Any:
    import torch

    return torch.nn.Embedding(
        layer.num_embeddings, layer.embedding_dim, layer.padding_idx, dtype=_dtype(layer.dtype)
    )


def _dropout(path: str, layer: Dropout) -> Any:
    import torch

    return torch.nn.Dropout(layer.p)


def _activation(path: str, layer: Activation) -> Any:
    from torch import nn

    alpha, beta = layer.alpha, layer.beta
    makers: dict[str, Callable[[], Any]] = {
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "relu": nn.ReLU,
        "leaky_relu": lambda: nn.LeakyReLU(0.01 if alpha is None else alpha),
        "thresholded_relu": lambda: nn.Threshold(1.0 if alpha is None else alpha, 0.0),
        "elu": lambda: nn.ELU(1.0 if alpha is None else alpha),
        "softsign": nn.Softsign,
        "softplus": nn.Softplus,
        "softmax": lambda: nn.Softmax(-1),
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "gelu_tanh": lambda: nn.GELU("tanh"),
        "selu": nn.SELU,
    }
    if layer.kind == "hard_sigmoid" and (alpha, beta) == (1 / 6, 0.5):
        return nn.Hardsigmoid()
    if layer.kind not in makers:
        raise ValueError(
            f"{path}: Activation {layer.kind!r} with alpha={alpha}, beta={beta} has no counterpart "
            "in torch.nn"
        )
    return makers[layer.kind]()


def _pool(path: str, layer: Pool) -> Any:
    from fastlstm.in_torch.pool import Pool as Pooling

    return Pooling(layer.kind, layer._reads_batch_first, layer._reverse)


def _sequential(path: str, model: Sequential) -> Any:
    from torch import nn

    parts = [_convert(f"{path}[{k}]", model[k]) for k in range(len(model))]
    if not model.is_recurrent:
        return nn.Sequential(*parts)
    from fastlstm.in_torch.sequential import Sequential as Stateful

    return Stateful(*parts)


def _dtype(dtype: np.dtype) -> Any:
    import torch

    return torch.float64 if dtype == np.float64 else torch.float32


MAKERS: dict[type[Module], Callable[[str, Any], Any]] = {
    **dict.fromkeys((LSTM, GRU, RNN, LSTMCell, GRUCell, RNNCell), _recurrent),
    Linear: _linear,
    Embedding: _embedding,
    Dropout: _dropout,
    Activation: _activation,
    Last: _pool,
    Pool: _pool,
    Sequential: _sequential,
}
