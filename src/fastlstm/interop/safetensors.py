"""Files of the format safetensors: models of `fastlstm.save`, and arrays of other libraries."""

from typing import Any

from fastlstm import files
from fastlstm.interop.arrays import read_layer
from fastlstm.interop.audio.skip import Skip
from fastlstm.interop.reading import Hints, reading
from fastlstm.interop.rnnoise.network import RNNoise
from fastlstm.module import Module
from fastlstm.safetensors import Path, read_safetensors

OWN: dict[str, type[Module]] = {"RNNoise": RNNoise, "Skip": Skip}  # of models in other formats


def read(path: Path, hints: Hints) -> Any:
    """Return the model of the file; of arrays, the layer: see `fastlstm.from_arrays`."""
    arrays, metadata = read_safetensors(path)
    if files.KEY in metadata:
        return files.load_saved(path, arrays, metadata, {**OWN, **hints.get("modules", {})})
    with reading(path, "safetensors"):
        return read_layer(arrays, hints, keep=True)
