"""Conversion between ONNX's weights and the layers' parameters.

ONNX has W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H] (W's bias, then R's) and P [D, 3·H] for D
directions and G gates. `order` gives, for each of the layers' gates, its index in ONNX's order.
"""

from collections.abc import Mapping, Sequence

import numpy as np

SUFFIXES = "_l0", "_l0_reverse"  # the ends of the layers' parameter names, by direction
NAMES = {  # of the parameters that each of ONNX's arrays has, one behind the other
    "W": ("weight_ih",),
    "R": ("weight_hh",),
    "B": ("bias_ih", "bias_hh"),
    "P": ("weight_peephole",),
}
PEEPHOLES = (0, 2, 1)  # the layers' order is i, f, o; ONNX's is i, o, f


def to_layer(
    arrays: Mapping[str, np.ndarray], order: Sequence[int], dtype: np.dtype | None = None
) -> dict[str, np.ndarray]:
    """The parameters of a layer of one or two directions: copies, in `dtype` if it is given."""
    parameters: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        for suffix, own in zip(SUFFIXES, array, strict=False):
            parts = zip(NAMES[name], np.split(own, len(NAMES[name])), strict=True)
            for part_name, part in parts:
                blocks = PEEPHOLES if name == "P" else order
                parameters[part_name + suffix] = _reordered(part, blocks, dtype)
    return parameters


def from_layer(
    parameters: Mapping[str, np.ndarray], directions: int, order: Sequence[int]
) -> dict[str, np.ndarray]:
    """W, R, and B and P if there are any, from a layer's parameters or their gradients."""

    def joined(name: str, order: Sequence[int]) -> np.ndarray:
        back = np.argsort(order).tolist()
        own = [parameters[name + suffix] for suffix in SUFFIXES[:directions]]
        return np.stack([_reordered(array, back) for array in own])

    arrays = {"W": joined("weight_ih", order), "R": joined("weight_hh", order)}
    if "bias_ih_l0" in parameters:
        arrays["B"] = np.hstack([joined("bias_ih", order), joined("bias_hh", order)])
    if "weight_peephole_l0" in parameters:
        arrays["P"] = joined("weight_peephole", PEEPHOLES)
    return arrays


def _reordered(
    blocks: np.ndarray, order: Sequence[int], dtype: np.dtype | None = None
) -> np.ndarray:
    """A copy of `blocks` [len(order)·H, …], whose k-th block of H rows is block order[k]."""
    copy = np.empty(blocks.shape, blocks.dtype if dtype is None else dtype)
    own = copy.reshape(len(order), -1)
    for k, block in enumerate(order):
        own[k] = blocks.reshape(own.shape)[block]
    return copy
