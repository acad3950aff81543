"""Nodes of a chain that are layers, but not recurrent ones."""

from dataclasses import replace
from typing import Any

import numpy as np

from fastlstm.interop.onnx import patterns, views
from fastlstm.interop.onnx.chain import FEATURES, Chain, Value
from fastlstm.interop.onnx.constants import known_constant
from fastlstm.interop.onnx.graph import attribute
from fastlstm.interop.onnx.nodes import shortest_decimal
from fastlstm.interop.onnx.out.activations import SINGLE
from fastlstm.interop.recurrent import make_linear
from fastlstm.layers.activation import SELU_ALPHA, SELU_SCALE, Activation
from fastlstm.layers.activations import PARAMETERS
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.linear import Linear

ACTIVATIONS = {operator: kind for kind, operator in SINGLE.items()}


def activation(chain: Chain, node: Any) -> Value:
    x, kind = chain.whole(node), node.op_type
    if x.dtype is None:
        raise chain.other(node, "its input holds indices")
    if kind == "Softmax":
        axis = attribute(node, "axis", -1 if chain.file.opset >= 13 else 1)
        if axis not in (-1, len(x.axes) - 1):
            raise chain.other(node, f"it is over axis {axis} of {len(x.axes)}")
        layer = Activation("softmax")
    elif kind == "Selu":
        given = attribute(node, "alpha", SELU_ALPHA), attribute(node, "gamma", SELU_SCALE)
        if not np.allclose(given, (SELU_ALPHA, SELU_SCALE), rtol=1e-6):
            raise chain.other(node, f"its alpha and gamma are {given}")
        layer = Activation("selu")
    elif kind == "Gelu":
        is_tanh = attribute(node, "approximate", b"none") == b"tanh"
        layer = Activation("gelu_tanh" if is_tanh else "gelu")
    else:
        name = ACTIVATIONS[kind]
        defaults = zip(("alpha", "beta"), PARAMETERS.get(name, ()), strict=False)
        numbers = [attribute(node, key, default) for key, default in defaults]
        if x.dtype == np.float32:
            numbers = shortest_decimal(numbers)
        layer = Activation(name, *numbers)
    return replace(x, modules=(*x.modules, layer))


def gather(chain: Chain, node: Any) -> Value:
    if known_constant(chain.scope, node.input[0]) is None:
        return views.gather(chain, node)
    table, x = chain.constant(node, 0), chain.value(node.input[1])
    if x.dtype is not None or attribute(node, "axis", 0) or table is None or table.ndim != 2:
        raise chain.other(node, "it is no look-up of vectors by the model's input")
    dtype = dtype_of(chain, node, table)
    chain.file.count_layer(table)
    rows, features = table.shape
    module = Embedding(rows, features, weight=table, dtype=dtype)
    return Value((*x.modules, module), (*x.axes, FEATURES), dtype)


def matmul(chain: Chain, node: Any) -> Value:
    x, weight = chain.whole(node), chain.constant(node, 1)
    if weight is None:
        raise chain.other(node)
    return linear(chain, node, x, weight, None)


def gemm(chain: Chain, node: Any) -> Value:
    x, weight, bias = chain.whole(node), chain.constant(node, 1), chain.constant(node, 2)
    plain = (
        attribute(node, "alpha", 1.0) == 1
        and (bias is None or attribute(node, "beta", 1.0) == 1)
        and not attribute(node, "transA", 0)
    )
    if not plain or weight is None or weight.ndim != 2:
        raise chain.other(node)
    return linear(chain, node, x, weight.T if attribute(node, "transB", 0) else weight, bias)


def linear(chain: Chain, node: Any, x: Value, weight: np.ndarray, bias: np.ndarray | None) -> Value:
    if weight.ndim != 2 or not weight.size or x.dtype is None:
        raise chain.other(node, f"its weight has the shape {weight.shape}")
    chain.check_features(node, x, len(weight))
    dtype = dtype_of(chain, node, weight)
    chain.file.count_layer(weight)
    if bias is not None:
        bias = read_bias(chain, node, bias, weight.shape[1])
    modules = (*x.modules, make_linear(weight.T, bias))
    return replace(x, modules=modules, dtype=dtype, is_cast=False)


def read_bias(chain: Chain, node: Any, bias: np.ndarray, features: int) -> np.ndarray:
    if bias.size != features or bias.shape[-1:] != (features,):
        raise chain.other(node, f"it adds an array of shape {bias.shape}")
    return bias.reshape(features)


def add(chain: Chain, node: Any) -> Value:
    found = patterns.activation(chain, node)
    if found is not None:
        return found
    place = int(known_constant(chain.scope, node.input[0]) is not None)
    x, bias = chain.whole(node, place), chain.constant(node, 1 - place)
    last = x.modules[-1] if x.modules else None
    if (
        not isinstance(last, Linear)
        or last.bias is not None
        or bias is None
        or bias.ndim > len(x.axes)
    ):
        raise chain.other(node)
    weight = last.weight
    return linear(chain, node, replace(x, modules=x.modules[:-1]), weight.T, bias)


def dtype_of(chain: Chain, node: Any, array: np.ndarray) -> np.dtype:
    if array.dtype not in (np.float32, np.float64):
        raise chain.other(node, f"its weights have dtype {array.dtype}")
    return array.dtype
