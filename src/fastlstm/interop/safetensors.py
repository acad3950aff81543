"""Files of the format safetensors: models of `fastlstm.save`, and arrays of other libraries."""

from typing import Any

from fastlstm import files
from fastlstm.interop.arrays import read_layer
from fastlstm.interop.reading import Hints, reading
from fastlstm.safetensors import Path, read_safetensors


def read(path: Path, hints: Hints) -> Any:
    """Return the model of the file; of arrays, the layer: see `fastlstm.from_arrays`."""
    arrays, metadata = read_safetensors(path)
    if files.KEY in metadata:
        return files.load_saved(path, modules=hints.get("modules"))
    with reading(path, "safetensors"):
        return read_layer(arrays, hints)
