"""Stacks of this library that compute with the weights of a torch layer, as they are now.

Whoever changes a torch parameter does so in place, and not every way to do so counts a version:
``p.data.add_(1)`` and ``p.detach().numpy()[...] = 0`` do not. So every call compares the weights
with those that were packed, bit by bit. After an optimizer's step the first array differs.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.multiprocessing.reductions import StorageWeakRef

from fastlstm.engine.one_step import OneStep
from fastlstm.engine.prepared import Chain, Whole
from fastlstm.engine.stack import Stack
from fastlstm.kernels.arguments import GRUOptions, RNNOptions
from fastlstm.layers import gru, lstm_options, rnn
from fastlstm.layers.activations import read_activation, read_activations
from fastlstm.layers.recurrent import Recurrent
from fastlstm.module import Parameters
from fastlstm.threads import get_num_threads

DTYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


class Form(NamedTuple):
    """All that decides how a torch layer computes, beside its weights."""

    mode: str  # as torch's `mode`: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU"
    inputs: int
    H: int
    P: int  # features of the output; H without a projection
    layers: int
    bias: bool
    bidirectional: bool
    batch_first: bool
    one_step: bool
    dtype: torch.dtype

    @property
    def parts(self) -> int:
        """How many arrays a state has."""
        return 2 if self.mode == "LSTM" else 1


@lru_cache(maxsize=256)
def stack_of(form: Form) -> Stack:
    """A stack of this form, without parameters."""
    dtype: Any = DTYPES[form.dtype]

    def cell(inputs: int, H: int) -> Any:
        if form.mode == "LSTM":
            return lstm_options.Cell(inputs, H, form.P, form.bias, dtype)
        if form.mode == "GRU":
            gate, candidate = read_activations("activations", gru.ACTIVATIONS, 2)
            return gru.Cell(inputs, H, form.bias, GRUOptions(gate, candidate))
        activation = read_activation("nonlinearity", form.mode.removeprefix("RNN_").lower())
        return rnn.Cell(inputs, H, form.bias, RNNOptions(activation))

    if form.one_step:
        return OneStep(cell(form.inputs, form.H), dtype=dtype, parameters={})
    return Recurrent(
        cell,
        input_size=form.inputs,
        hidden_size=form.H,
        num_layers=form.layers,
        bidirectional=form.bidirectional,
        batch_first=form.batch_first,
        dtype=dtype,
        parameters={},
    )


class Packed:
    """The weights of one layer at one moment, and the calls that are prepared for them."""

    def __init__(self, form: Form, weights: Sequence[torch.Tensor]):
        self.form, self.stack = form, stack_of(form)
        arrays = [weight.detach().contiguous().numpy() for weight in weights]
        self.storages = [StorageWeakRef(weight.untyped_storage()) for weight in weights]
        # The memory of the weights, which torch owns, and what it held.
        self._memory: list[Any] = [
            (ctypes.c_char * array.nbytes).from_address(weight.data_ptr())
            for weight, array in zip(weights, arrays, strict=True)
        ]
        self._shapes = [weight.shape for weight in weights]
        self._bits = [bytearray(array) for array in arrays]
        names = self.stack.parameter_names
        self._parameters = Parameters(
            {
                name: np.frombuffer(memoryview(bits).toreadonly(), array.dtype).reshape(array.shape)
                for name, bits, array in zip(names, self._bits, arrays, strict=True)
            }
        )

    def is_of(self, weights: Sequence[torch.Tensor]) -> bool:
        """Whether these weights, in the same memory, have the bits that were packed."""
        for weight, shape in zip(weights, self._shapes, strict=True):
            if weight.shape != shape or not weight.is_contiguous():
                return False
        return self._bits == self._memory

    def calls(self, training: bool) -> Whole | Chain:
        threads = min(get_num_threads(), torch.get_num_threads())
        return self.stack.calls_with(self._parameters, threads, training)


class _Cache:
    """What is packed, for as long as the weights live."""

    def __init__(self) -> None:
        self._packed: dict[Any, Packed] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, form: Form, weights: Sequence[torch.Tensor]) -> Packed:
        """The packed form of these weights with the values that they have now."""
        key = form, *[weight.data_ptr() for weight in weights]
        packed = self._packed.get(key)
        if packed is None or not packed.is_of(weights):
            packed = Packed(form, weights)
            self.drop_dead()
            self._packed[key] = packed
        return packed

    def drop_dead(self) -> None:
        """Forget the weights whose memory torch has freed."""
        for key, packed in list(self._packed.items()):
            if any(storage.expired() for storage in packed.storages):
                self._packed.pop(key, None)


CACHE = _Cache()
