"""Models of audio effects in JSON: NAM, RTNeural, AIDA-X, and Proteus of GuitarML.

All take x (T, B, I), a step for each sample, unless `batch_first` is asked for. What a file says
beside its model, such as a sample rate, is not read.
"""

from collections.abc import Callable
from typing import Any

from fastlstm.interop.audio import nam, named, proteus, rtneural
from fastlstm.interop.audio.skip import Skip
from fastlstm.interop.reading import Hints, read_json, reading
from fastlstm.safetensors import Path

__all__ = ["Skip", "read"]

# By a name that a file of the format has.
READERS: dict[str, Callable[[dict[str, Any], Hints], Any]] = {
    "architecture": nam.read,
    "model_data": proteus.read,
    "layers": rtneural.read,
}


def read(path: Path, hints: Hints) -> Any:
    """Return the model of a JSON file."""
    with open(path, "rb") as file, reading(path, "JSON"):
        value = read_json(file.read())
        reader = next((READERS[name] for name in READERS if name in value), named.read)
        return reader(value, hints)
