"""The engine's way back: the gradients of one layer of a stack."""

from collections.abc import Callable
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
    for direction, kept in enumerate(this.kept):
        packed = pack_transposed(
            tape.kernels, tape.parameters, "weight_ih" + stack._suffix(layer, direction)
        )
        dz = joined(kept["gates"])
        tape.kernels.product(dz, packed, dx, None, *plan.rows, bool(direction), threads)
        _weight_gradients(stack, tape, layer, direction, params, threads)
    if this.mask is not None:
        dx *= this.mask


def _weight_gradients(
    stack: "Recurrent",
    tape: "RecurrentTape",
    layer: int,
    direction: int,
    params: dict[str, np.ndarray],
    threads: int,
) -> None:
    """Fill `params` for one layer and direction."""
    plan, this, suffix = tape.plan, tape.layers[layer], stack._suffix(layer, direction)
    kept = this.kept[direction]
    P = stack._sizes(layer)[0]
    dz, y = joined(kept["gates"]), this.y[:, :, direction * P : (direction + 1) * P]
    h0 = plan.state[0][layer * stack._directions + direction]
    walk = (*plan.rows, plan.resets, stack._is_reverse(direction))
    M, nothing = dz.shape[2], this.x[:, :, :0]
    params["weight_ih" + suffix] = dW = np.empty((M, this.x.shape[2]), stack.dtype)
    params["weight_hh" + suffix] = dR = np.empty((M, P), stack.dtype)
    db_ih, db_hh = np.empty((2, M), stack.dtype)
    gradient = tape.kernels.weight_gradient
    for rows, own_dz, met in stack._recurrent_sums(kept):
        from_x = dz[:, :, rows], this.x, dW[rows]
        h = (y, h0) if met is None else (met, None)
        if own_dz is None:  # both sums in one pass
            gradient(*from_x, *h, dR[rows], *walk, db_ih[rows], threads)
            db_hh[rows] = db_ih[rows]
        else:
            from_h = own_dz, nothing, dW[rows, :0], *h, dR[rows]
            gradient(*from_x, None, None, None, *walk, db_ih[rows], threads)
            gradient(*from_h, *walk, db_hh[rows], threads)
    for name, d, source in stack._more_gradients(kept):
        params[name + suffix] = out = np.empty((d.shape[2], source.shape[2]), stack.dtype)
        without_y = None, None, None
        gradient(d, source, out, *without_y, *plan.rows, None, False, None, threads)
    for name, per_row in stack._vector_gradients(kept):
        params[name + suffix] = per_row.sum(axis=0)
    if stack.bias and "bias_ih" + suffix not in params:
        params["bias_ih" + suffix], params["bias_hh" + suffix] = db_ih, db_hh


def pack_transposed(k: Any, parameters: Parameters, name: str) -> Any:
    """The matrix `name`, transposed, as `product` wants it."""
    try:
        return parameters.derived[k, name]
    except KeyError:
        return parameters.derive((k, name), lambda: k.pack(parameters[name].T))


def joined(gates: np.ndarray) -> np.ndarray:
    """[T, B, GATES, H] as [T, B, GATES * H]."""
    T, B, count, H = gates.shape
    return gates.reshape(T, B, count * H)
