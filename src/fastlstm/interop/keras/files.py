"""Keras' files: ``.keras``, ``.weights.h5`` and the older ``.h5``."""

from typing import Any, NamedTuple

from fastlstm.interop.keras.build import Builder
from fastlstm.interop.keras.config import Version, has_layers, holds_layers, read_chain, read_layers
from fastlstm.interop.keras.hdf5 import SIGNATURE, Tree
from fastlstm.interop.keras.recurrent import alone, is_recurrent, of_layer
from fastlstm.interop.keras.stored import ByName, InVars, Stored
from fastlstm.interop.reading import Archive, Hints, read_json, reading
from fastlstm.safetensors import Path

WEIGHTS = "model.weights.h5", "variables.h5"  # the second in TensorFlow 2.11


class Content(NamedTuple):
    """What a file has."""

    model: Any  # its configuration; None: arrays without one
    stored: Stored
    version: Version


def read(path: Path, hints: Hints) -> Any:
    """Return the model of a file of Keras as a module: see `fastlstm.load`.

    Notes
    -----
    Keras' ``stateful``, ``implementation`` and ``unroll`` change no single call and are left out: a
    module here keeps no state, the caller passes it on. Regularizers, constraints and the optimizer
    are no part of a module either. ``dropout`` of a recurrent layer becomes a `Dropout` before it,
    which draws for each step anew. Half precision is computed in float32.
    """
    with reading(path, "a model of Keras"):
        content = _open(path)
        if content.model is not None:
            chain = read_chain(content.model, content.version)
            return Builder(chain, content.stored, content.version, hints).build()
        groups = content.stored.recurrent()
        prefix = hints.get("prefix")
        names = [name for name in groups if prefix is None or name.startswith(prefix)]
        if prefix in groups:
            names = [prefix]
        if not groups:
            raise ValueError("expected a recurrent layer, got none")
        if len(names) != 1:
            raise ValueError(
                f"prefix: expected that of one layer, since the file has arrays without "
                f"configuration, of {list(groups)!r:.300}, got {prefix!r:.60}"
            )
        return alone(names[0], groups[names[0]], content.version, hints)


def layers(
    path: Path,
    *,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    recurrent_activation: str | None = None,
    reset_after: bool | None = None,
) -> dict[str, Any]:
    """Return the recurrent layers of a file of Keras.

    Parameters
    ----------
    path : str or path
        A ``.keras``, ``.h5`` or ``.weights.h5`` file.
    batch_first, nonlinearity, recurrent_activation, reset_after : optional
        As in `fastlstm.load`: what arrays without configuration do not say.

    Returns
    -------
    dict of str to LSTM, GRU or RNN
        By the layer's name; by its path in a ``.weights.h5`` file, or one of a model that is of a
        class of its author's. `Bidirectional` is one layer with two directions; Keras' merging,
        `go_backwards` and masks are not part of a layer. The other layers, and how all are
        connected, may be any.

    Raises
    ------
    ValueError
        The file is damaged, or does not say what an argument has to.
    ImportError
        The extra ``keras`` is missing.
    """
    hints = Hints(
        batch_first=batch_first,
        nonlinearity=nonlinearity,
        recurrent_activation=recurrent_activation,
        reset_after=reset_after,
    )
    with reading(path, "a model of Keras"):
        content = _open(path)
        if has_layers(content.model):
            found = {}
            for layer in read_layers(content.model, content.version):
                if is_recurrent(layer):
                    arrays = content.stored.arrays(layer)
                    found[layer.name] = of_layer(layer, arrays, content.version, hints)
                elif holds_layers(layer):
                    raise ValueError(f"{layer}: layers within it are not read")
        else:
            groups = content.stored.recurrent()
            found = {
                name: alone(name, parts, content.version, hints) for name, parts in groups.items()
            }
        hints.check_all_asked()
        return found


def _open(path: Path) -> Content:
    with open(path, "rb") as file:
        is_hdf5 = file.read(8) == SIGNATURE
        if is_hdf5:
            file.seek(0)
            return _of_hdf5(file.read())
    with Archive(path) as archive:
        config, metadata = (read_json(archive.read(n)) for n in ("config.json", "metadata.json"))
        if not isinstance(metadata, dict) or not isinstance(metadata.get("keras_version"), str):
            raise ValueError("metadata.json: expected a keras_version")
        version = Version(metadata["keras_version"])
        name = next((name for name in WEIGHTS if name in archive.sizes), WEIGHTS[0])
        return Content(config, InVars(Tree(archive.read(name))), version)


def _of_hdf5(data: bytes) -> Content:
    tree = Tree(data)
    root = ("model_weights",) if tree.has("model_weights") else ()
    version = tree.attribute("keras_version")
    if version is None:
        version = tree.attribute("keras_version", *root)
    config = tree.attribute("model_config")
    is_by_name = any(
        tree.attribute(name, *root) is not None for name in ("layer_names", "layer_names0")
    )
    if not is_by_name:
        # Without a version: TensorFlow's Keras 2 called the layers otherwise.
        is_old = tree.has("_layer_checkpoint_dependencies")
        return Content(None, InVars(tree), Version("2" if is_old else "3"))
    version = Version(version if isinstance(version, str) else "1")
    stored = ByName(tree, root)
    if config is None:
        return Content(None, stored, version)
    if not isinstance(config, str):
        raise ValueError(f"model_config: expected text, got {type(config).__name__}")
    return Content(read_json(config.encode()), stored, version)
