"""The tensors of a torch file by their names, each read when it is asked for."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fastlstm.interop.torch.files import STORAGES, File, dtype_of
from fastlstm.interop.torch.values import Stub, Tensor, read_sizes
from fastlstm.safetensors import MOST_AXES, from_bfloat16

MOST_NODES, LONGEST_NAME, DEEPEST = 100_000, 500, 100
NODES = (Tensor, Stub, np.ndarray, dict, list, tuple)
MODULE = ("_parameters", "_buffers", "_modules")  # where a whole module of torch has its parts


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a file's object: of a state dict, a checkpoint, a whole module.

    Names within names are joined by ".". `facts` has what whole recurrent modules say beside their
    tensors, by prefix.
    """

    def __init__(self, file: File):
        self.file = file
        self.leaves: dict[str, Any] = {}
        self.facts: dict[str, dict[str, Any]] = {}
        self.nodes = 0
        if isinstance(file.value, NODES):
            self._walk(file.value, (), set())

    def __getitem__(self, name: str) -> np.ndarray:
        leaf = self.leaves[name]
        if isinstance(leaf, np.ndarray):
            return leaf
        if isinstance(leaf, Stub):
            raise ValueError(f"{name}: expected a tensor, got what {leaf} would make")
        try:
            return self._read(leaf)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self.leaves)

    def __len__(self) -> int:
        return len(self.leaves)

    def _walk(self, value: Any, path: tuple[str, ...], around: set[int]) -> None:
        """Find the tensors in a value. `around` has the ids of the values that it is in."""
        if isinstance(value, (Tensor, np.ndarray)):
            self._add(path, value)
            return
        if isinstance(value, Stub) and value.state is None and not value.items:
            self._add(path, value)
            return
        self.nodes += 1
        if self.nodes > MOST_NODES or len(path) > DEEPEST:
            raise ValueError("expected a model's state, got an object of too many parts")
        if id(value) in around:
            return
        around.add(id(value))
        for key, part in self._parts(value, path):
            if isinstance(part, NODES):
                self._walk(part, path if key is None else (*path, str(key)), around)
        around.remove(id(value))

    def _parts(self, value: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict):
            yield from value.items()
        elif isinstance(value, Stub):
            yield from value.items.items()
            states = value.state if isinstance(value.state, tuple) else (value.state,)
            for state in states:
                if not isinstance(state, dict):
                    continue
                if "_parameters" in state and "_modules" in state:
                    self._note(state, path)
                    yield from ((None, state[name]) for name in MODULE if name in state)
                else:
                    yield from state.items()
        else:
            yield from enumerate(value)

    def _note(self, state: dict[Any, Any], path: tuple[str, ...]) -> None:
        """Note what a whole module says, if it is a recurrent one."""
        own = state["_parameters"]
        if not isinstance(own, dict) or not {"weight_ih_l0", "weight_ih"} & own.keys():
            return
        facts = {}
        if type(state.get("batch_first")) is bool:
            facts["batch_first"] = state["batch_first"]
        mode = state.get("nonlinearity", state.get("mode"))
        if isinstance(mode, str) and mode in ("RNN_TANH", "RNN_RELU", "tanh", "relu"):
            facts["nonlinearity"] = mode.removeprefix("RNN_").lower()
        self.facts["".join(f"{name}." for name in path)] = facts

    def _add(self, path: tuple[str, ...], leaf: Any) -> None:
        self.nodes += 1
        name = ".".join(path)
        if len(name) > LONGEST_NAME:
            raise ValueError(f"{name:.60}…: expected a name of at most {LONGEST_NAME} characters")
        if isinstance(leaf, Stub) and not name:
            raise ValueError(f"expected a model's state, got what {leaf} would make")
        if name in self.leaves and self.leaves[name] is not leaf:
            raise ValueError(f"{name}: expected one tensor of this name, got two")
        self.leaves[name] = leaf

    def _read(self, tensor: Tensor) -> np.ndarray:
        """The array of a tensor; bfloat16 as float32."""
        storage = tensor.storage
        if storage.kind not in STORAGES:
            raise ValueError(f"expected a storage of numbers, got {storage.kind!r:.40}")
        name = STORAGES[storage.kind] if tensor.dtype is None else tensor.dtype
        dtype = dtype_of(name)
        shape, strides = read_sizes("shape", tensor.shape), read_sizes("strides", tensor.strides)
        (offset,) = read_sizes("offset", (tensor.offset,))
        if len(shape) != len(strides) or len(shape) > MOST_AXES:
            raise ValueError(f"expected a stride for each of {len(shape)} axes")
        numbers = storage.size * dtype_of(STORAGES[storage.kind]).itemsize // dtype.itemsize
        last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if math.prod(shape) and last >= numbers:
            raise ValueError(f"shape {shape} and strides {strides} lead beyond {numbers} numbers")
        self.file.charge(2 * math.prod(shape) * dtype.itemsize)  # the layer's own arrays
        if not math.prod(shape):
            return np.zeros(shape, np.float32)
        if self.file.is_big_endian:
            dtype = dtype.newbyteorder(">")
        flat = np.frombuffer(self.file.bytes_of(storage), dtype)
        begin = offset + storage.offset
        steps = [stride * dtype.itemsize for stride in strides]
        view = np.lib.stride_tricks.as_strided(flat[begin:], shape, steps, writeable=False)
        if name == "bfloat16":
            return from_bfloat16(view)
        return view.astype(dtype.newbyteorder("="), copy=False)
