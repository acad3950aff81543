"""Files of torch, read without torch, and modules of torch made of models."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastlstm.interop.arrays import read_layer, read_layers
from fastlstm.interop.arrays.of_torch import find
from fastlstm.interop.reading import Hints, reading
from fastlstm.interop.torch.files import open_file
from fastlstm.interop.torch.out import to_torch
from fastlstm.interop.torch.tensors import Tensors
from fastlstm.interop.torch.values import Stub
from fastlstm.safetensors import Path

__all__ = ["layers", "read", "to_torch"]
# Under which name a checkpoint has its state dict.
STATES = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "module", "state"),
    "weights",
)


def read(path: Path, hints: Hints) -> Any:
    """Return the recurrent layer of the file: see `fastlstm.from_arrays`."""
    with _open(path) as (arrays, facts):
        return read_layer(arrays, hints, facts, keep=True)


def layers(
    path: Path, *, batch_first: bool | None = None, nonlinearity: Any = None
) -> dict[str, Any]:
    """Return all recurrent layers of a torch file, which is read without torch.

    Parameters
    ----------
    path : str or path
        A state dict, a checkpoint with one in it, a whole module, or TorchScript, in the form of
        torch 1.6 and later or the older one. Nothing in it is run.
    batch_first : bool, optional
        The layout of the layers' calls. If None, that of the module if the file has a whole one,
        and False otherwise.
    nonlinearity : "tanh" or "relu", optional
        That of RNNs, which a state dict does not say.

    Returns
    -------
    dict of str to LSTM, GRU or RNN
        By the prefix of the layer's names, such as "encoder.lstm."; a cell as a layer of one
        direction. Empty if there is none.

    Raises
    ------
    ValueError
        The file is damaged, would run code, or a layer in it is incomplete; or `nonlinearity` is
        missing or has no use.
    OSError
        The file cannot be read.
    """
    hints = Hints(batch_first=batch_first, nonlinearity=nonlinearity)
    with _open(path) as (arrays, facts):
        found = read_layers(arrays, hints, facts)
        hints.check_all_asked()
        return found


@contextmanager
def _open(path: Path) -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, dict[str, Any]]]]:
    """The tensors of a file and what it says beside them, from the one state dict in it."""
    with reading(path, "torch"), open_file(path) as file:
        tensors = Tensors(file)
        prefixes = [group.prefix for group in find(tensors)]
        parts = file.value if isinstance(file.value, dict) else {}
        for state in STATES:
            start = f"{state}."
            is_part = isinstance(parts.get(state), (dict, Stub))  # and not only a name's beginning
            if is_part and prefixes and all(prefix.startswith(start) for prefix in prefixes):
                yield _Under(tensors, start), _without(start, tensors.facts)
                return
        yield tensors, tensors.facts


class _Under(Mapping[str, np.ndarray]):
    """The arrays whose names begin with a prefix, without it."""

    def __init__(self, arrays: Mapping[str, np.ndarray], start: str):
        self.arrays, self.start = arrays, start
        self.names = list(_without(start, dict.fromkeys(arrays)))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[self.start + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _without(start: str, named: Mapping[str, Any]) -> dict[str, Any]:
    return {name[len(start) :]: named[name] for name in named if name.startswith(start)}
