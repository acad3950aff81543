"""How the arguments of `step` are checked, which updates a state in place."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import check_shape, read_array, read_integers
from fastlstm.engine.reading.plan import Form, check_array_out
from fastlstm.engine.reading.state import arrays_of, form_of, ready
from fastlstm.kernels.arguments import has_own_elements
from fastlstm.module import Output


class Step(NamedTuple):
    """The arguments of one step, ready for kernels."""

    x: np.ndarray
    state: Any
    rows: np.ndarray | None
    out: np.ndarray | None  # None, too, if kernels cannot write to the caller's


def read_step(x: Any, state: Any, rows: Any, out: Any, form: Form, is_forward: bool) -> Step:
    """Check the arguments of one step, and make x and rows ready; nothing else is copied."""
    if not is_forward:
        raise ValueError("bidirectional: a step needs a layer that only reads forward in time")
    x = read_array("x", x, form.dtype)
    if x.ndim != 2 or x.shape[1] != form.inputs:
        raise ValueError(f"x: expected shape (rows, {form.inputs}), got {x.shape}")
    state, arrays = _read_state(state, form)
    check_together(arrays)
    rows = _read_rows(rows, len(x), arrays[0].shape[-2])
    if out is not None:
        check_step_out(out, Output(form.outputs, form.dtype), x, state)
        out = out if ready(out) is out else None
    return Step(ready(x), state, rows, out)


def check_together(states: Sequence[Any]) -> None:
    """Raise if states of several layers share memory, or have different numbers of rows."""
    groups = [arrays_of(state) for state in states]
    for one, other in combinations(groups, 2):
        for a, b in product(one, other):
            if np.shares_memory(a, b):
                raise ValueError("state: expected arrays that share no memory, but two of them do")
    rows = {array.shape[-2] for own in groups for array in own}
    if len(rows) > 1:
        raise ValueError(f"state: expected the same rows in every layer, got {sorted(rows)}")


def check_step_out(out: Any, result: Output, x: Any, state: Any) -> None:
    """Raise unless a step's result can be stored in `out`."""
    if result.features is None or result.dtype is None:
        raise ValueError("out: the result has an unknown form, so expected None")
    check_array_out(out, (len(x), result.features), result.dtype)
    given = (array for array in (x, *arrays_of(state)) if isinstance(array, np.ndarray))
    if any(np.shares_memory(out, array) for array in given):
        raise ValueError("out: expected an array that shares no memory with x and the state")


def _read_state(state: Any, form: Form) -> tuple[Any, list[np.ndarray]]:
    """The state in the form of kernels, and its arrays; none of them is a copy."""
    names, given = form.layout.names, [state]
    if len(names) > 1:
        if not isinstance(state, (tuple, list)) or len(state) != len(names):
            wanted, got = ", ".join(names), type(state).__name__
            raise ValueError(f"state: expected ({wanted}), as from zero_state, got {got}")
        given = list(state)
    parts: list[Any] = []
    for name, sizes, part in zip(names, form.layout.sizes, given, strict=True):
        if len(set(sizes)) == 1:
            lead = () if form.one_step else (len(sizes),)
            parts.append(_read_place(f"state: {name}", part, lead, sizes[0], form))
        elif isinstance(part, (tuple, list)) and len(part) == len(sizes):
            parts.append(
                [
                    _read_place(f"state: {name}[{k}]", array, (1,), size, form)
                    for k, (array, size) in enumerate(zip(part, sizes, strict=True))
                ]
            )
        else:
            raise ValueError(
                f"state: {name}: expected a list of {len(sizes)} arrays, one for each layer, whose "
                f"widths differ; got {type(part).__name__}"
            )
    arrays = arrays_of(parts)
    B = arrays[0].shape[-2]
    for array in arrays:
        check_shape("state", array, *array.shape[:-2], B, array.shape[-1])
    return form_of(parts), arrays


def _read_place(name: str, array: Any, lead: tuple[int, ...], size: int, form: Form) -> np.ndarray:
    """An array of a state, checked to be one that a step can update in place."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array to update, got {type(array).__name__}")
    if array.dtype != form.dtype:
        raise TypeError(f"{name}: expected dtype {form.dtype} to update it, got {array.dtype}")
    if array.ndim != len(lead) + 2 or (*array.shape[:-2], array.shape[-1]) != (*lead, size):
        shape = ", ".join(map(str, (*lead, "rows", size)))
        raise ValueError(f"{name}: expected shape ({shape}), got {array.shape}")
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected an array to update, got a read-only one")
    array = np.asarray(array)
    if array.size and (ready(array) is not array or not has_own_elements(array)):
        raise ValueError(
            f"{name}: expected aligned elements of its own, contiguous along the last axis, "
            f"got strides {array.strides}"
        )
    return ready(array)


def _read_rows(rows: Any, n: int, B: int) -> np.ndarray | None:
    """The rows of x in the state, checked; None for all."""
    if rows is None:
        if n != B:
            raise ValueError(f"rows: x has {n} rows and the state {B}, so expected rows, got None")
        return None
    rows = read_integers("rows", rows)
    check_shape("rows", rows, n)
    if n and not 0 <= rows.min() <= rows.max() < B:
        raise ValueError(f"rows: expected 0 to {B - 1}, got {rows.min()} to {rows.max()}")
    if len(set(rows.tolist())) < n:
        raise ValueError(f"rows: expected each row once, got {rows.tolist()}")
    return np.array(rows)
