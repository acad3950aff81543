"""Weights of a cell, checked and copied when the cell is packed."""

from typing import TypeAlias

import numpy as np

from fastlstm.kernels.arguments import Array, GRUWeights, LSTMWeights, RNNWeights

Weights: TypeAlias = LSTMWeights | GRUWeights | RNNWeights


def read_hidden_size(weights: Weights, gates: int) -> int:
    """H, from W_ih [gates * H, I]."""
    shape: tuple[int, ...] = weights.W_ih.shape
    if len(shape) != 2 or shape[0] == 0 or shape[0] % gates:
        expected = "(H, I)" if gates == 1 else f"({gates} * H, I)"
        raise ValueError(f"W_ih: expected shape {expected}, got {shape}")
    return shape[0] // gates


def read_array(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """A copy of `array`; ValueError if its shape or dtype differs."""
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    if array.dtype != dtype:
        raise ValueError(f"{name}: expected dtype {dtype}, got {array.dtype}")
    return np.array(array, order="C")


def read_biases(weights: Weights, size: int) -> tuple[Array, Array]:
    """Copies of bias_ih and bias_hh [size]; zeros if the cell has no biases."""
    dtype = weights.W_ih.dtype
    if weights.bias_ih is None and weights.bias_hh is None:
        return np.zeros(size, dtype), np.zeros(size, dtype)
    if weights.bias_ih is None or weights.bias_hh is None:
        missing = "bias_ih" if weights.bias_ih is None else "bias_hh"
        raise ValueError(f"{missing}: expected both biases or neither, got None")
    return (
        read_array("bias_ih", weights.bias_ih, (size,), dtype),
        read_array("bias_hh", weights.bias_hh, (size,), dtype),
    )
