"""Activations that take several nodes, found by the nodes that `export` writes for them."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx

from fastlstm.interop.onnx.chain import Chain, Value
from fastlstm.interop.onnx.constants import known_constant
from fastlstm.interop.onnx.graph import is_standard
from fastlstm.interop.onnx.nodes import shortest_decimal
from fastlstm.interop.onnx.out.activations import add_activation
from fastlstm.interop.onnx.out.writer import Writer
from fastlstm.layers.activation import Activation

# In a pattern these numbers stand for any alpha and beta. None of the formulas has them.
ALPHA, BETA = 3.0, 5.0
KINDS = {
    **dict.fromkeys(("affine", "scaled_tanh"), (ALPHA, BETA)),
    **dict.fromkeys(("silu", "gelu", "gelu_tanh"), ()),
}


class Pattern(NamedTuple):
    """The nodes of an activation by the names of their results, and its constants."""

    kind: str
    end: str
    nodes: dict[str, Any]
    numbers: dict[str, float]


def _pattern(kind: str, given: tuple[float, ...]) -> Pattern:
    writer = Writer(17)
    end = add_activation(writer, "x", Activation(kind, *given), np.dtype(np.float64))
    nodes = {node.output[0]: node for node in writer.nodes}
    return Pattern(kind, end, nodes, {name: float(t) for name, t in writer.tensors.items()})


PATTERNS = [_pattern(kind, given) for kind, given in KINDS.items()]


def activation(chain: Chain, node: Any) -> Value | None:
    """The result of the activation whose last node this is; None if it is not one's."""
    for pattern in PATTERNS:
        found: dict[str, Any] = {}
        if not _fits(chain, pattern, pattern.end, node.output[0], found):
            continue
        x = chain.checked(node, chain.value(found["x"]))
        if x.dtype is None:
            raise chain.other(node, "its input holds indices")
        numbers = [found[name] for name in ("alpha", "beta") if name in found]
        if x.dtype == np.float32:
            numbers = shortest_decimal(numbers)
        layer = Activation(pattern.kind, *numbers)
        return replace(x, modules=(*x.modules, layer))
    return None


def product(chain: Chain, node: Any) -> Value:
    found = activation(chain, node)
    if found is None:
        raise chain.other(node)
    return found


def _fits(chain: Chain, pattern: Pattern, wanted: str, name: str, found: dict[str, Any]) -> bool:
    """Whether a value of the graph is that of the pattern; adds to `found` what the latter lacks.

    A pattern has a handful of nodes, and so has what is compared with it.
    """
    if wanted == "x":
        return bool(found.setdefault("x", name) == name)
    if wanted in pattern.numbers:
        array = known_constant(chain.scope, name)
        if array is None or array.ndim or array.dtype.kind != "f":
            return False
        number = pattern.numbers[wanted]
        if number in KINDS[pattern.kind]:
            found["alpha" if number == ALPHA else "beta"] = float(array)
            return True
        return bool(array == array.dtype.type(number))
    _, source, _ = chain.scope.source(name)
    node = pattern.nodes[wanted]
    return (
        isinstance(source, onnx.NodeProto)
        and is_standard(source)
        and source.op_type == node.op_type
        and len(source.input) == len(node.input)
        and all(
            _fits(chain, pattern, part, other, found)
            for part, other in zip(node.input, source.input, strict=True)
        )
    )
