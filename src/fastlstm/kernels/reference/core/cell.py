"""The interface of a cell in Python, which `core/walk.py` runs through time."""

from typing import Protocol, TypeAlias

import numpy as np

from fastlstm.kernels.arguments import Array, Masks

Parts: TypeAlias = tuple[Array, ...]
Factors: TypeAlias = tuple[Array, Array]
Term: TypeAlias = Array | Factors | list[Factors]


class PythonCell(Protocol):
    """One step of a recurrent cell, forward and backward.

    A cell computes one step of n rows at a time; n may be 0. The walk chooses the rows and the
    order of the steps, applies resets, stores the output, and sums over time. The arrays given to
    a cell are copies: the cell may keep them, return them or write into them.

    Attributes
    ----------
    dtype : numpy dtype
        float32 or float64: the dtype of the parameters, the arithmetic and the results.
    inputs : int
        Features of x, I.
    sizes : tuple of int
        Size of each part of the state. The first part is also the cell's output.
    names : tuple of str
        Names of the parameters, in the order in which `fastlstm` returns their gradients.

    Examples
    --------
    A leaky unit, h' = decay * h + W x, with W [H, I] and decay [H]::

        class Leaky:
            names = ("weight", "decay")

            def __init__(self, weight, decay):
                self.weight, self.decay, self.dtype = weight, decay, weight.dtype
                self.sizes, self.inputs = (weight.shape[0],), weight.shape[1]

            def step(self, x, state, masks):
                return (self.decay * state[0] + x @ self.weight.T,), ()

            def step_backward(self, x, state, saved, d_state, masks):
                (d_h,) = d_state
                terms = {"weight": (d_h, x), "decay": d_h * state[0]}
                return d_h @ self.weight, (d_h * self.decay,), terms
    """

    @property
    def dtype(self) -> np.dtype: ...
    @property
    def inputs(self) -> int: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...
    @property
    def names(self) -> tuple[str, ...]: ...

    def step(self, x: Array, state: Parts, masks: Masks | None) -> tuple[Parts, Parts]:
        """Compute the state after one step, and the arrays that `step_backward` needs.

        Parameters
        ----------
        x : [n, I] array
        state : tuple of [n, size] arrays
            The state before the step, one array for each of `sizes`.
        masks : Masks or None
            None in inference. In training, the random masks of these rows at this step:
            recurrent [n, P], kept_h [n, P] and kept_c [n, H], each None if it is not used. A cell
            without dropout and zoneout ignores them.

        Returns
        -------
        state : tuple of [n, size] arrays
        saved : tuple of [n, ...] arrays
            Their number, and their shapes after n, are the same at every step. If the state has
            several parts, saved[k] is state[k] itself, for each k from 1 on: the walk reads the
            state before a step from there (and part 0 from the output). The cell chooses saved[0].
        """

    def step_backward(
        self, x: Array, state: Parts, saved: Parts, d_state: Parts, masks: Masks
    ) -> tuple[Array, Parts, dict[str, Term]]:
        """Compute gradients of x, of the state before the step, and of the parameters.

        Parameters
        ----------
        x, state, masks
            As given to `step`; `masks` is never None.
        saved : tuple of [n, ...] arrays
            As `step` returned them.
        d_state : tuple of [n, size] arrays
            Gradient of the state after the step. Part 0 includes the gradient of the output.

        Returns
        -------
        d_x : [n, I] array
        d_state : tuple of [n, size] arrays
            Gradient of the state before the step.
        terms : dict
            For each of `names`, the part of the parameter's gradient that these rows and this step
            add. There are three forms:

            - a pair (left [n, M], right [n, N]) adds leftᵀ · right to a parameter [M, N];
            - an array [n, M] adds the sum of its rows to a parameter [M];
            - a list of pairs gives the parameter's blocks of rows, from the first to the last.

            Names that the cell does not have are ignored.
        """
