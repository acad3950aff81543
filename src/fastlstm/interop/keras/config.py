"""What a Keras model consists of: the chain of layers that its configuration describes."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

MODELS = "Sequential", "Functional", "Model"
# What Keras 1 called the arguments of its layers.
KERAS_1 = {
    "inner_activation": "recurrent_activation",
    "bias": "use_bias",
    "p": "rate",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
    "output_dim": "units",
}


class Layer(NamedTuple):
    """A layer of the chain."""

    kind: str  # its class
    name: str
    config: dict[str, Any]
    place: str = ""  # its group in the files of Keras 3, which count the layers of a class

    def __str__(self) -> str:
        return f"layer {self.name!r:.60} ({self.kind:.60})"


class Version(NamedTuple):
    """The Keras that wrote a file; Keras 1 did not say so."""

    text: str

    @property
    def major(self) -> int:
        found = re.match(r"\d{1,3}", self.text)
        if found is None:
            raise ValueError(f"keras_version: expected a version, got {self.text!r:.40}")
        return int(found[0])

    @property
    def clears_bidirectional(self) -> bool:
        """Whether Bidirectional returns zeros at masked steps: since TensorFlow 2."""
        minor = re.match(r"2\.(\d{1,3})", self.text)
        return self.major > 2 or "tf" in self.text or (minor is not None and int(minor[1]) > 3)


def has_layers(model: Any) -> bool:
    """Whether a model is of one of Keras' own classes, whose configurations list their layers."""
    return isinstance(model, dict) and model.get("class_name") in MODELS


def holds_layers(layer: Layer) -> bool:
    """Whether recurrent layers may be within a layer: a model, or a wrapper of one that is."""
    inner = layer.config.get("layer")
    kind = inner.get("class_name") if isinstance(inner, dict) else "Dense"
    return layer.kind in MODELS or kind not in ("Dense", "Activation", "Dropout")


def read_chain(model: Any, version: Version) -> list[Layer]:
    """Return the layers of a model from the first to the last, if each feeds the next.

    Raises
    ------
    ValueError
        The configuration is damaged, or describes something else than a chain of layers.
    """
    layers, entries = read_layers(model, version), _entries(model)
    if model["class_name"] == "Sequential" or isinstance(model["config"], list):
        return layers
    return _linear(layers, [entry.get("inbound_nodes") for entry in entries], model["config"])


def read_layers(model: Any, version: Version) -> list[Layer]:
    """Return the layers of a model as its configuration lists them, of different names.

    Raises
    ------
    ValueError
        The configuration is damaged, or does not list layers.
    """
    counts: dict[str, int] = {}
    layers: list[Layer] = []
    for k, entry in enumerate(_entries(model)):
        own, arguments = _class_and_config(f"config: layers[{k}]", entry)
        name = entry.get("name")
        if name is None and isinstance(arguments, dict):
            name = arguments.get("name", f"{own}_{k}")
        if not isinstance(name, str):
            raise ValueError(f"config: layers[{k}]: expected a name, got {name!r:.60}")
        arguments = _mapping(f"config: layer {name!r:.60} ({own:.60})", arguments)
        if version.major < 2:
            arguments = _modern(own, arguments)
        place = snake_case(own)
        number = counts.get(place, 0)
        counts[place] = number + 1
        layers.append(Layer(own, name, arguments, f"{place}_{number}" if number else place))
    names = [layer.name for layer in layers]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"config: expected layers of different names, got {twice!r:.60} twice")
    return layers


def _entries(model: Any) -> list[Any]:
    """The descriptions of a model's layers."""
    kind, config = _class_and_config("model", model)
    if kind not in MODELS:
        raise ValueError(
            f"config: expected a Sequential or functional model, got the class {kind!r:.60}, which "
            "is not Keras' own or has no chain of layers"
        )
    entries = config if isinstance(config, list) else config.get("layers")
    if not isinstance(entries, list) or len(entries) > 1000:
        raise ValueError(f"config: expected a list of up to 1000 layers, got {entries!r:.60}")
    return entries


def snake_case(name: str) -> str:
    """A class's name as Keras writes it in files: ``keras/src/utils/naming.py``."""
    name = re.sub(r"\W+", "", name[:100])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def inner_layer(layer: Layer, version: Version, key: str = "layer") -> Layer:
    """Return the layer that a wrapper holds."""
    field = f"{layer}: {key}"
    kind, config = _class_and_config(field, layer.config.get(key))
    config = _mapping(field, config)
    if version.major < 2:
        config = _modern(kind, config)
    return Layer(kind, layer.name, config, layer.place)


def _class_and_config(field: str, value: Any) -> tuple[str, Any]:
    value = _mapping(field, value)
    kind, config = value.get("class_name"), value.get("config")
    if not isinstance(kind, str) or not isinstance(config, (dict, list)):
        raise ValueError(f"{field}: expected a class_name and a config, got {list(value)!r:.60}")
    registered = value.get("registered_name")
    if isinstance(registered, str) and ">" in registered:
        raise ValueError(f"{field}: {registered!r:.60} is a class of the model's author")
    return kind, config


def _mapping(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{field}: expected an object, got {value!r:.60}")
    return value


def _modern(kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a layer of Keras 1 under their later names."""
    keeps = {"output_dim"} if kind == "Embedding" else set()
    return {
        name if name in keeps else KERAS_1.get(name, name): value for name, value in config.items()
    }


def _linear(layers: list[Layer], nodes: list[Any], config: Mapping[str, Any]) -> list[Layer]:
    """The layers of a functional model in the order of their calls, if each feeds the next."""
    calls = {layer.name: _call(layer, node) for layer, node in zip(layers, nodes, strict=True)}
    after: dict[str | None, Layer] = {}
    for layer in layers:
        before, mask = calls[layer.name]
        if layer.kind in ("NotEqual", "Any"):
            continue  # how Keras 3 writes down where the mask comes from: see `_check_mask`
        if mask is not None:
            _check_mask(layer, mask, {each.name: each for each in layers}, calls)
        if before in after:
            raise ValueError(
                f"{layer}: expected a chain of layers, got two that read "
                f"{'an input' if before is None else repr(before)}, also {after[before]}"
            )
        after[before] = layer
    chain: list[Layer] = []
    name: str | None = None
    while name in after:
        chain.append(after.pop(name))
        name = chain[-1].name
    if after:
        raise ValueError(f"{next(iter(after.values()))}: expected a layer that the input reaches")
    outputs = config.get("output_layers")
    while isinstance(outputs, list) and len(outputs) == 1 and isinstance(outputs[0], list):
        outputs = outputs[0]
    if not chain or not isinstance(outputs, list) or outputs[:1] != [chain[-1].name]:
        raise ValueError(f"config: expected one output, of the last layer, got {outputs!r:.80}")
    return chain


def _call(layer: Layer, nodes: Any) -> tuple[str | None, str | None]:
    """The names of the layers whose results a layer reads and has as mask."""
    nodes = [] if nodes is None else nodes
    if layer.kind == "InputLayer" and nodes == []:
        return None, None
    if not isinstance(nodes, list) or len(nodes) != 1:
        raise ValueError(f"{layer}: expected one call of the layer, got {nodes!r:.60}")
    node, keywords = nodes[0], {}
    if isinstance(node, dict):  # Keras 3: {"args": [tensor], "kwargs": {...}}
        arguments, keywords = node.get("args"), _mapping(f"{layer}: kwargs", node.get("kwargs"))
        if not isinstance(arguments, list) or not arguments:
            raise ValueError(f"{layer}: expected arguments, got {arguments!r:.60}")
        first = _tensor(layer, arguments[0])
        if len(arguments) > 1 and layer.kind != "NotEqual":
            raise ValueError(f"{layer}: expected one input, got {len(arguments)}")
    else:  # [[name, 0, 0, {...}]]
        if not isinstance(node, list) or len(node) != 1 or not isinstance(node[0], list):
            raise ValueError(f"{layer}: expected one input, got {node!r:.60}")
        first = node[0][0] if node[0] else ""
        if len(node[0]) > 3:
            keywords = _mapping(f"{layer}: kwargs", node[0][3])
    if not isinstance(first, str):
        raise ValueError(f"{layer}: expected the result of a layer as input, got {node!r:.60}")
    mask = keywords.get("mask")
    for name, value in keywords.items():
        if value is not None and not (name == "training" and value is False) and name != "mask":
            raise ValueError(f"{layer}: expected a call with its input alone, got {name!r:.40}")
    return first, None if mask is None else _tensor(layer, mask)


def _tensor(layer: Layer, value: Any) -> str:
    """The name of the layer that a tensor of Keras 3 is the result of."""
    history = value.get("config", {}).get("keras_history") if isinstance(value, dict) else None
    if not isinstance(history, list) or not history or not isinstance(history[0], str):
        raise ValueError(f"{layer}: expected one result of a layer, got {value!r:.60}")
    return history[0]


def _check_mask(
    layer: Layer,
    mask: str,
    layers: Mapping[str, Layer],
    calls: Mapping[str, tuple[str | None, str | None]],
) -> None:
    """Raise unless a mask is that of the Masking or Embedding layer before: Any(NotEqual(x))."""
    maker = layers.get(mask)
    if maker is not None and maker.kind == "Any":
        maker = layers.get(calls[maker.name][0] or "")
    if maker is not None and maker.kind == "NotEqual":
        source = calls[maker.name][0]
        makers = [
            each
            for each in layers.values()
            if each.kind in ("Masking", "Embedding") and calls[each.name][0] == source
        ]
        if makers:
            return
    raise ValueError(f"{layer}: expected the mask of Masking or Embedding, got {mask!r:.60}")
