"""The interface between the engine and a cell."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from fastlstm.kernels.arguments import Kernels, Masks, Packed


class Cell(Protocol):
    """One direction of one layer, without its parameters.

    A cell of this library packs its parameters for the kernels of a build. The `pack` of a cell
    that is written in Python alone returns an object with the methods `step` and `step_backward`:
    see `fastlstm.engine.PythonCell`. Both kinds run on every build.

    Attributes
    ----------
    state : tuple of str
        Names of the state's arrays, ("h",) or ("h", "c"); the first is the output.
    inputs : int
        Features of the input, I.
    sizes : tuple of int
        Features of each array of the state.
    untrained : tuple of str, optional
        Names of parameters that begin as zero and have no gradient.
    """

    @property
    def state(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> int: ...
    @property
    def sizes(self) -> tuple[int, ...]: ...

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every parameter by name, in the order of their gradients."""
        ...

    def initial(self, rng: "np.random.Generator") -> dict[str, np.ndarray]:
        """Return the initial value of every parameter by name, in any float dtype."""
        ...

    def pack(
        self, kernels: Kernels, parameters: Mapping[str, np.ndarray], backward: bool
    ) -> Packed:
        """Return the parameters in the form of `kernels`; with `backward`, for both directions."""
        ...

    @property
    def draws(self) -> bool:
        """Whether training needs random numbers; if so, `draw` returns them."""
        return False

    def draw(self, rng: "np.random.Generator", T: int, B: int) -> Masks | None:
        """Return the random numbers of a training call of T steps of B rows."""
        return None
