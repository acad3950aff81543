"""Stacks of this library that compute with the weights of a torch layer, as they are now.

Whoever changes a torch parameter does so in place, and not every way to do so counts a version:
``p.data.add_(1)`` and ``p.detach().numpy()[...] = 0`` do not. So every call packs the weights, or
compares them with those that were packed, bit by bit.
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

DTYPES: dict[torch.dtype, np.dtype] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


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


class _Memory:
    """Where torch has the weights of one layer."""

    def __init__(self, weights: Sequence[torch.Tensor]):
        self.storages = [StorageWeakRef(weight.untyped_storage()) for weight in weights]
        self.shapes = [weight.shape for weight in weights]
        self.dtype: np.dtype = DTYPES[weights[0].dtype]
        self.parts: list[Any] = [
            (ctypes.c_char * weight.nbytes).from_address(weight.data_ptr()) for weight in weights
        ]
        self.arrays = self.view(self.parts)

    def is_of(self, weights: Sequence[torch.Tensor]) -> bool:
        """Whether weights with the addresses of these have their shapes, too."""
        return [weight.shape for weight in weights] == self.shapes

    def view(self, parts: Any) -> list[np.ndarray]:
        """Read-only arrays of these bytes, in the shapes of the weights."""
        return [
            np.frombuffer(memoryview(part).toreadonly(), self.dtype).reshape(shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        ]


class Packed:
    """The weights of one layer at one moment, and the calls that are prepared for them.

    With `keeps`, their bits are kept, so that later calls can find them unchanged. Without, this is
    for one call, which prepares its `calls` before anybody changes the weights.
    """

    def __init__(self, form: Form, memory: _Memory, versions: Any, keeps: bool):
        self.form, self.memory, self.versions = form, memory, versions
        self.is_reused = False  # whether a later call had the same versions
        self._bits = [bytearray(part) for part in memory.parts] if keeps else None
        arrays = memory.arrays if self._bits is None else memory.view(self._bits)
        self._stack = stack_of(form)
        self._calls: Whole | Chain | None = None
        names = self._stack.cells.names
        self._parameters = Parameters(dict(zip(names, arrays, strict=True)))

    def is_unchanged(self) -> bool:
        """Whether the weights are known to have the bits that were packed."""
        return self._bits is not None and self._bits == self.memory.parts

    def calls(self, training: bool) -> Whole | Chain:
        if self._calls is not None:
            return self._calls
        threads = min(get_num_threads(), torch.get_num_threads())
        calls = self._stack._calls_with(self._parameters, threads, training)
        if self._bits is None:
            self._calls = calls
        return calls


class _Cache:
    """What is packed, for as long as the weights live."""

    def __init__(self) -> None:
        self._packed: dict[Any, Packed] = {}

    def __len__(self) -> int:
        return len(self._packed)

    def get(self, form: Form, weights: Sequence[torch.Tensor]) -> Packed:
        """The packed form of these weights with the values that they have now.

        Versions only say whether to keep the bits: it is in vain where every call has new weights.
        """
        if not all(weight.is_contiguous() for weight in weights):
            dense = [weight.contiguous() for weight in weights]
            return Packed(form, _Memory(dense), None, True)
        key = form, *[weight.data_ptr() for weight in weights]
        last, versions = self._packed.get(key), _versions(weights)
        if last is None or not last.memory.is_of(weights):
            packed = Packed(form, _Memory(weights), versions, True)
            self.drop_dead()
        else:
            is_same = versions == last.versions
            if is_same:
                last.is_reused = True
            if last.is_unchanged():
                return last
            packed = Packed(form, last.memory, versions, last.is_reused)
            packed.is_reused = is_same
        self._packed[key] = packed
        return packed

    def drop_dead(self) -> None:
        """Forget the weights whose memory torch has freed."""
        for key, packed in list(self._packed.items()):
            if any(storage.expired() for storage in packed.memory.storages):
                self._packed.pop(key, None)


def _versions(weights: Sequence[torch.Tensor]) -> Any:
    try:
        return [weight._version for weight in weights]
    except RuntimeError:  # torch counts none of tensors that were made in inference mode
        return None


CACHE = _Cache()
