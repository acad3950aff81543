"""The cells that are timed: what adapters must know of each, and the LSTM's variants.

A cell's name is the same for fastlstm's layer, torch's, and ONNX's operator.
"""

from typing import Any, NamedTuple


class Cell(NamedTuple):
    """A cell with torch's equations.

    Attributes
    ----------
    state : tuple of str
        The parts of the state.
    onnx_gates : tuple of int
        ONNX's gates in ONNX's order, as places in torch's.
    onnx_attributes : dict
        What ONNX's operator must be told to compute what torch does.
    """

    state: tuple[str, ...]
    onnx_gates: tuple[int, ...]
    onnx_attributes: dict[str, Any]


CELLS = {
    "LSTM": Cell(("h", "c"), (0, 3, 1, 2), {}),  # i, o, f, c of i, f, g, o
    "GRU": Cell(("h",), (1, 0, 2), {"linear_before_reset": 1}),  # z, r, h of r, z, n
    "RNN": Cell(("h",), (0,), {}),
}


class Variant(NamedTuple):
    """A variant of the LSTM.

    Attributes
    ----------
    options : dict
        Arguments of `fl.LSTM`.
    wanted : dict of mode: float
        It is to take at most so many times the plain LSTM's time.
    """

    options: dict[str, Any]
    wanted: dict[str, float]


VARIANTS = {
    "peepholes, coupled": Variant(
        {"peepholes": True, "coupled": True}, {"inference": 1.3, "training": 1.3}
    ),
    "layer norm": Variant({"layer_norm": True}, {"inference": 1.5, "training": 1.5}),
    "recurrent dropout 0.2": Variant({"recurrent_dropout": 0.2}, {"training": 1.15}),
    "zoneout 0.1": Variant({"zoneout": (0.1, 0.1)}, {"training": 1.15}),
}
