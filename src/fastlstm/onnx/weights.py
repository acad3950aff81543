"""Conversion between ONNX's weights and the layers' parameters.

ONNX has W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H] (W's bias, then R's) and P [D, 3·H] for D
directions and G gates. `order` gives, for each of the layers' gates, its index in ONNX's order.
"""

from collections.abc import Mapping, Sequence

import numpy as np

SUFFIXES = "_l0", "_l0_reverse"  # the ends of the layers' parameter names, by direction
PEEPHOLES = (0, 2, 1)  # the layers' order is i, f, o; ONNX's is i, o, f


def to_layer(arrays: Mapping[str, np.ndarray], order: Sequence[int]) -> dict[str, np.ndarray]:
    """The parameters of a layer of one or two directions."""
    parameters: dict[str, np.ndarray] = {}
    for direction, suffix in enumerate(SUFFIXES[: len(arrays["W"])]):
        own = {
            "weight_ih": _reordered(arrays["W"][direction], order),
            "weight_hh": _reordered(arrays["R"][direction], order),
        }
        if "B" in arrays:
            of_input, of_state = np.split(arrays["B"][direction], 2)
            own["bias_ih"] = _reordered(of_input, order)
            own["bias_hh"] = _reordered(of_state, order)
        if "P" in arrays:
            own["weight_peephole"] = _reordered(arrays["P"][direction], PEEPHOLES)
        parameters |= {name + suffix: array for name, array in own.items()}
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


def _reordered(blocks: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A copy of `blocks` [len(order)·H, …], whose k-th block of H rows is block order[k]."""
    copy = np.empty(blocks.shape, blocks.dtype)
    own = copy.reshape(len(order), -1)
    for k, block in enumerate(order):
        own[k] = blocks.reshape(own.shape)[block]
    return copy
