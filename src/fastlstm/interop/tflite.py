"""Arrays of TensorFlow Lite's operators LSTM and UNIDIRECTIONAL_SEQUENCE_LSTM.

What the inputs are: tensorflow/lite/kernels/lstm_shared.h.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastlstm.checks import check_shape, read_number, read_plain
from fastlstm.interop.recurrent import make
from fastlstm.layers.lstm import LSTM

GATES = "ifco"
NAMES = (
    "x",
    *(f"W_{gate}" for gate in GATES),
    *(f"R_{gate}" for gate in GATES),
    *(f"P_{gate}" for gate in "ifo"),
    *(f"b_{gate}" for gate in GATES),
    *("W_projection", "b_projection", "h", "c"),
    *(f"N_{gate}" for gate in GATES),
)  # of the operator's inputs, in their order
# Names without which there is no such operator; the gates of a coupled one begin with f.
NEEDED = {f"{part}_{gate}" for part in "WRb" for gate in "fco"}
GIVEN_TO_CALLS = "x", "h", "c"


def lstm(
    arrays: Any, *, batch_first: bool = False, cell_clip: float = 0.0, proj_clip: float = 0.0
) -> LSTM:
    """Return the LSTM of an operator's inputs.

    Parameters
    ----------
    arrays : sequence of 20 or 24 arrays, or mapping
        The inputs in the operator's order, with None for one that is absent. Or by name: "W_i",
        "W_f", "W_c", "W_o" (H, I), "R_i" and so on (H, H or P), biases "b_i" (H,), peepholes "P_i",
        "P_f", "P_o" (H,), "W_projection" (P, H) and "b_projection" (P,), and the coefficients of
        the layer norm "N_i". Without the input gate's arrays, the gates are coupled.
    batch_first : bool
        Whether x is (B, T, I), as in an operator without `time_major`, instead of (T, B, I).
    cell_clip, proj_clip : float
        The operator's options, which have no counterpart: other values than 0 are refused.

    Returns
    -------
    LSTM
        With a single bias. The operator's x, h and c belong to calls, and are not read here; it
        keeps h and c from one invocation to the next, a layer does not.

    Raises
    ------
    ValueError
        An array is missing or does not fit the others, or has no counterpart: a layer norm, a bias
        of the projection, a clip.
    TypeError
        An array is not of floats, as in a quantized model.

    Notes
    -----
    TensorFlow Lite couples i = 1 - f, this library f = 1 - i: the gate i here has the negated
    arrays of f there.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> arrays = {f"W_{gate}": np.ones((5, 3), np.float32) for gate in "ifco"}
    >>> arrays |= {f"R_{gate}": np.ones((5, 5), np.float32) for gate in "ifco"}
    >>> arrays |= {f"b_{gate}": np.ones(5, np.float32) for gate in "ifco"}
    >>> fl.interop.tflite.lstm(arrays, batch_first=True)
    LSTM(3, 5, bias='single', batch_first=True)
    """
    for name, clip in (("cell_clip", cell_clip), ("proj_clip", proj_clip)):
        if read_number(name, clip, 0, np.inf):
            raise ValueError(f"{name}: expected 0, since there is no counterpart, got {clip}")
    own = _read(arrays)
    coupled = "W_i" not in own
    gates = "fco" if coupled else GATES
    has_peepholes = any(f"P_{gate}" in own for gate in GATES)
    wanted = {f"{part}_{gate}" for part in "WRb" for gate in gates}
    if has_peepholes:
        wanted |= {f"P_{gate}" for gate in gates if gate != "c"}
    known = wanted | {"W_projection", "b_projection"}
    if not wanted <= own.keys() <= known:
        missing, unknown = sorted(wanted - own.keys()), sorted(own.keys() - known)
        raise ValueError(f"arrays: missing {missing}, without the others of their kind {unknown}")
    if own["W_f"].ndim != 2:
        raise ValueError(f"W_f: expected a matrix, got shape {own['W_f'].shape}")
    H = len(own["W_f"])
    own_projection = own.get("W_projection")
    P = H if own_projection is None else len(own_projection)
    shapes = {"W": own["W_f"].shape, "R": (H, P), "b": (H,), "P": (H,)}
    for name in sorted(wanted):
        check_shape(name, own[name], *shapes[name[0]])
    if coupled:
        own |= {f"{part}_i": -own[f"{part}_f"] for part in "WRbP" if f"{part}_f" in own}
    parts = {
        name: np.concatenate([own[f"{part}_{gate}"] for gate in GATES])
        for name, part in (("weight_ih", "W"), ("weight_hh", "R"), ("bias_ih", "b"))
    }
    if has_peepholes:
        parts["weight_peephole"] = np.concatenate([own[f"P_{gate}"] for gate in "ifo"])
    if own_projection is not None:
        check_shape("W_projection", own_projection, P, H)
        parts["weight_hr"] = own_projection
    if "b_projection" in own and own["b_projection"].any():
        raise ValueError("b_projection: expected zeros, since there is no counterpart")
    made: LSTM = make("LSTM", [[parts]], coupled=coupled, batch_first=batch_first)
    return made


def _read(arrays: Any) -> dict[str, np.ndarray]:
    """The arrays that there are, by name."""
    if isinstance(arrays, Mapping):
        if unknown := sorted(map(str, arrays.keys() - set(NAMES))):
            raise ValueError(f"arrays: expected names of {NAMES}, got also {unknown!r:.200}")
        given = dict(arrays)
    elif isinstance(arrays, Sequence) and not isinstance(arrays, str):
        if len(arrays) not in (20, len(NAMES)):
            raise ValueError(f"arrays: expected 20 or {len(NAMES)} inputs, got {len(arrays)}")
        given = dict(zip(NAMES, arrays, strict=False))
    else:
        raise TypeError(f"arrays: expected a sequence or a mapping, got {type(arrays).__name__}")
    found = {}
    for name, value in given.items():
        if value is None or name in GIVEN_TO_CALLS:
            continue
        if name.startswith("N_"):
            raise ValueError(f"{name}: expected none, since its layer norm has no counterpart")
        found[name] = read_plain(name, value)
        if found[name].dtype.kind != "f":
            raise TypeError(f"{name}: expected floats, got dtype {found[name].dtype} (quantized?)")
    return found
