"""The engine's way back: the gradients of one layer of a stack."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastlstm import threads as pool
from fastlstm.layers.module import Parameters
from fastlstm.layers.shares import shares, worthwhile, worthwhile_apart
from fastlstm.layers.state import Part

if TYPE_CHECKING:
    from fastlstm.layers.recurrent import Recurrent
    from fastlstm.layers.tape import RecurrentTape


class RecurrentSum(NamedTuple):
    """weight_hh[rows] has the gradient Σ dz[t, b]ᵀ · met[t, b]."""

    rows: slice
    dz: np.ndarray | None = None  # [T, B, rows] of R's product; None: the same as of W x
    met: np.ndarray | None = None  # [T, B, P]: what R was multiplied by; None: the h before


def backward_layer(
    stack: "Recurrent",
    tape: "RecurrentTape",
    layer: int,
    dy: np.ndarray,
    dstate: tuple[Part, ...],
    dx: np.ndarray,
    params: dict[str, np.ndarray],
    threads: int,
) -> None:
    """Fill dx [T, B, I], this layer's part of `dstate`, and its gradients in `params`."""
    plan, this = tape.plan, tape.layers[layer]
    busy, team = worthwhile(stack, threads, this.x, layer)
    tasks: list[Callable[[], None]] = []
    for share in shares(stack, plan, layer, busy):
        kernel = stack._backward_kernel(tape.kernels, tape.parameters, share.suffix)
        state = tuple(part[share.at] for part in plan.state)
        gradient = tuple(part[share.at] for part in dstate)
        kept = this.kept[share.direction]
        own_dy = dy[:, :, share.columns]
        tasks.append(partial(kernel, kept, state, own_dy, gradient, share.walk, *team))
    pool.run(tasks, busy)

    threads = worthwhile_apart(stack, threads, this.x, layer)
    tasks = [
        partial(_input_gradient, stack, tape, layer, dx, steps)
        for steps in _slices(range(len(this.x)), threads)
    ]
    for direction in range(stack._directions):
        tasks += _weight_gradients(stack, tape, layer, direction, params, threads)
    pool.run(tasks, threads)
    if this.mask is not None:
        dx *= this.mask


def _input_gradient(
    stack: "Recurrent", tape: "RecurrentTape", layer: int, dx: np.ndarray, steps: slice
) -> None:
    k, parameters = tape.kernels, tape.parameters
    rows, live = tape.plan.rows
    live = None if live is None else live[steps]
    for direction, kept in enumerate(tape.layers[layer].kept):
        name = "weight_ih" + stack._suffix(layer, direction)
        packed = pack_transposed(k, parameters, name)
        dz = joined(kept["gates"])[steps]
        k.product(dz, packed, dx[steps], None, rows, live, bool(direction))


def _weight_gradients(
    stack: "Recurrent",
    tape: "RecurrentTape",
    layer: int,
    direction: int,
    params: dict[str, np.ndarray],
    threads: int,
) -> Iterator[Callable[[], None]]:
    """Tasks that fill `params` for one layer and direction, each some rows of a matrix."""
    plan, this, suffix = tape.plan, tape.layers[layer], stack._suffix(layer, direction)
    kept = this.kept[direction]
    P = stack._sizes(layer)[0]
    dz, y = joined(kept["gates"]), this.y[:, :, direction * P : (direction + 1) * P]
    h0 = plan.state[0][layer * stack._directions + direction]
    walk = (*plan.rows, plan.resets, stack._is_reverse(direction))
    params["weight_ih" + suffix] = dW = np.empty((dz.shape[2], this.x.shape[2]), stack.dtype)
    params["weight_hh" + suffix] = dR = np.empty((dz.shape[2], P), stack.dtype)
    gradient = tape.kernels.weight_gradient
    sums = list(stack._recurrent_sums(kept))
    for rows, own_dz, met in sums:
        h = (y, h0) if met is None else (met, None)
        for part in _slices(range(len(dW))[rows], threads):
            from_x = dz[:, :, part], this.x, dW[part]
            if own_dz is None:  # both sums in one pass
                yield partial(gradient, *from_x, *h, dR[part], *walk)
            else:
                own = slice(part.start - (rows.start or 0), part.stop - (rows.start or 0))
                nothing = this.x[:, :, :0], dW[part, :0]
                yield partial(gradient, *from_x, None, None, None, *walk)
                yield partial(gradient, own_dz[:, :, own], *nothing, *h, dR[part], *walk)
    for name, d, source in stack._more_gradients(kept):
        params[name + suffix] = out = np.empty((d.shape[2], source.shape[2]), stack.dtype)
        yield partial(gradient, d, source, out, None, None, None, *plan.rows)
    for name, per_row in stack._vector_gradients(kept):
        params[name + suffix] = per_row.sum(axis=0)
    if stack.bias and "bias_ih" + suffix not in params:
        yield partial(bias_gradients, kept["gates"], sums, suffix, params)


def pack_transposed(k: Any, parameters: Parameters, name: str) -> Any:
    """The matrix `name`, transposed, as `product` wants it."""
    try:
        return parameters.derived[k, name]
    except KeyError:
        return parameters.derive((k, name), lambda: k.pack(parameters[name].T))


def _slices(indices: range, parts: int) -> Iterator[slice]:
    """Neighbouring indices in up to `parts` pieces."""
    size = max(1, -(-len(indices) // parts))
    ends = range(indices.start + size, indices.stop + size, size)
    return (slice(end - size, min(end, indices.stop)) for end in ends)


def joined(gates: np.ndarray) -> np.ndarray:
    """[T, B, GATES, H] as [T, B, GATES * H]."""
    T, B, count, H = gates.shape
    return gates.reshape(T, B, count * H)


def bias_gradients(
    gates: np.ndarray, sums: list[RecurrentSum], suffix: str, params: dict[str, np.ndarray]
) -> None:
    """Set those of bias_ih and bias_hh in `params` from the gates' gradients [T, B, GATES, H]."""
    T, B, count, H = gates.shape
    params["bias_ih" + suffix] = bias_ih = np.add.reduce(gates.reshape(T * B, count * H), axis=0)
    params["bias_hh" + suffix] = bias_hh = bias_ih.copy()
    for rows, own_dz, _ in sums:
        if own_dz is not None:
            np.sum(own_dz, axis=(0, 1), out=bias_hh[rows])
