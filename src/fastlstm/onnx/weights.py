"""Between ONNX's weights and the layers' parameters.

ONNX has W [D, G·H, I], R [D, G·H, H], B [D, 2·G·H] (W's bias, then R's) and P [D, 3·H] for D
directions and G gates; `order` says which of ONNX's gates each of the layers' is.
"""

from collections.abc import Mapping, Sequence

import numpy as np

PEEPHOLES = (0, 2, 1)  # the layers have those of i, f, o; ONNX of i, o, f


def to_layer(
    arrays: Mapping[str, np.ndarray], direction: int, order: Sequence[int]
) -> dict[str, np.ndarray]:
    """The parameters of one direction's layer."""
    parameters = {
        "weight_ih_l0": _reordered(arrays["W"][direction], order),
        "weight_hh_l0": _reordered(arrays["R"][direction], order),
    }
    if "B" in arrays:
        of_input, of_state = np.split(arrays["B"][direction], 2)
        parameters["bias_ih_l0"] = _reordered(of_input, order)
        parameters["bias_hh_l0"] = _reordered(of_state, order)
    if "P" in arrays:
        parameters["weight_peephole_l0"] = _reordered(arrays["P"][direction], PEEPHOLES)
    return parameters


def from_layers(
    directions: Sequence[Mapping[str, np.ndarray]], order: Sequence[int]
) -> dict[str, np.ndarray]:
    """W, R, and B and P where there are any, from what each direction's layer has for its own."""

    def joined(name: str, order: Sequence[int]) -> np.ndarray:
        back = np.argsort(order).tolist()
        return np.stack([_reordered(own[name + "_l0"], back) for own in directions])

    arrays = {"W": joined("weight_ih", order), "R": joined("weight_hh", order)}
    if "bias_ih_l0" in directions[0]:
        arrays["B"] = np.hstack([joined("bias_ih", order), joined("bias_hh", order)])
    if "weight_peephole_l0" in directions[0]:
        arrays["P"] = joined("weight_peephole", PEEPHOLES)
    return arrays


def _reordered(blocks: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """A copy of [len(order)·H, …] whose k-th H rows are the order[k]-th."""
    return blocks.reshape(len(order), -1)[list(order)].reshape(blocks.shape)
