"""`load`: any file of a recurrent model, recognized by its content."""

import importlib
import os
import zipfile
from collections.abc import Mapping
from typing import Any

from fastlstm.checks import brief
from fastlstm.interop.reading import Hints, reading
from fastlstm.module import Module
from fastlstm.safetensors import Path

HDF5 = b"\x89HDF\r\n\x1a\n"
OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"


def load(
    path: Path,
    *,
    prefix: str | None = None,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    recurrent_activation: str | None = None,
    reset_after: bool | None = None,
    modules: Mapping[str, type[Module]] | None = None,
) -> Any:
    """Return the model of a file, whichever of the known formats it has.

    Parameters
    ----------
    path : str or path
        From `save`; or safetensors, torch's ``.pt`` and TorchScript, NumPy's ``.npz``, Keras'
        ``.keras`` and ``.h5``, ONNX, NAM, RTNeural's JSON, RNNoise's text. The content says which,
        not the name. torch itself, Keras and the others are not needed; HDF5 needs the extra
        ``keras`` and ONNX the extra ``onnx``.
    prefix : str, optional
        For a file of arrays with several recurrent layers: the beginning of the names of one.
    batch_first : bool, optional
        The layout of the layer's calls, for files that leave it open: if None, True from Keras and
        False otherwise. Files from `save` and ONNX have a layout and refuse it; a torch module in
        a file keeps its own if None.
    nonlinearity, recurrent_activation : str, optional
        "tanh" or "relu" for an RNN of torch's; "sigmoid" or "hard_sigmoid" for Keras' weights.
        Their files do not say it, so it must be said here.
    reset_after : bool, optional
        For Keras' weights of a GRU without bias.
    modules : mapping of str to class, optional
        For a file from `save`: the classes of your own that the model has, by name.

    Returns
    -------
    Module
        It computes what the file's own engine computes. One layer, or a `Sequential` of several.

    Raises
    ------
    ValueError
        The file is damaged, is of no known format, has something without a counterpart here, or
        does not say what an argument has to; or an argument says what the file knows itself.
    TypeError
        An argument is of another kind.
    ImportError
        An extra is missing.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> import os, tempfile, numpy as np, fastlstm as fl
    >>> arrays = fl.LSTM(3, 5, rng=0).state_dict()  # the names and layouts of torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     np.savez(path, **{f"encoder.{name}": array for name, array in arrays.items()})
    ...     fl.load(path)
    LSTM(3, 5)
    """
    if modules is not None and not isinstance(modules, Mapping):
        raise TypeError(f"modules: expected a mapping of names to classes, got {brief(modules)}")
    hints = Hints(
        prefix=prefix,
        batch_first=batch_first,
        nonlinearity=nonlinearity,
        recurrent_activation=recurrent_activation,
        reset_after=reset_after,
        modules=modules,
    )
    reader = importlib.import_module(f"fastlstm.interop.{recognize(path)}")
    model = reader.read(path, hints)
    with reading(path, "arguments"):
        hints.check_all_asked()
    return model


def recognize(path: Path) -> str:
    """Return the module of `fastlstm.interop` that reads the file, from the file's content."""
    name = os.fspath(path)
    if os.path.isdir(path):
        raise ValueError(
            f"{name}: expected a file, got a folder; of TensorFlow's SavedModel, save the Keras "
            "model again by model.save('model.keras')"
        )
    with open(path, "rb") as file:
        head = file.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:4] == b"PK\x03\x04":
        return _in_zip(path)
    if head[:8] == HDF5:
        return "keras"
    if head.startswith(OLD_TORCH):
        return "torch"
    if head[4:8] == b"TFL3":
        raise ValueError(
            f"{name}: expected a file that says its layers, got TensorFlow Lite, whose operators "
            "take separate matrices: see fastlstm.interop.tflite"
        )
    if text[:7] == b"rnnoise":
        return "rnnoise"
    if text[:1] == b"{" and b"\0" not in head:
        return "audio"
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x08" and head[1:2] <= b"\x20":  # the field ir_version, up to 32
        return "onnx"
    kinds = {
        b"\x80": "a pickle, which would execute code, so it is not read",
        b"\x93NUMPY": "a single array; use numpy.load and fastlstm.from_arrays",
        b"\x1f\x8b": "a compressed file; unpack it first",
    }
    for start, kind in kinds.items():
        if head.startswith(start):
            raise ValueError(f"{name}: expected a model, got {kind}")
    raise ValueError(
        f"{name}: expected a file of a known format, got one that begins {head[:16]!r}"
    )


def _in_zip(path: Path) -> str:
    with reading(path, "a zip archive"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if "config.json" in names and "metadata.json" in names:
            return "keras"
        if any(name.endswith("data.pkl") for name in names):
            return "torch"
        if names and all(name.endswith(".npy") for name in names):
            return "numpy"
        raise ValueError(
            f"expected an archive of NumPy, torch or Keras, got members {names!r:.200}"
        )
