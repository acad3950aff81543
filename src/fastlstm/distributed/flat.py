"""The gradients of all parameters in one buffer, which ranks add up."""

from collections.abc import Mapping

import numpy as np

from fastlstm.checks import quiet
from fastlstm.module import Gradients


class Flat:
    """Gradients one after another: an array for each dtype of the parameters.

    Attributes
    ----------
    arrays : list of arrays (n,)
    """

    def __init__(self, parameters: Mapping[str, np.ndarray]):
        self.arrays: list[np.ndarray] = []
        self._views: dict[str, np.ndarray] = {}  # of the arrays, by the parameter's name
        for dtype in sorted({p.dtype for p in parameters.values()}, key=str):
            own = {name: p for name, p in parameters.items() if p.dtype == dtype}
            array = np.zeros(sum(p.size for p in own.values()), dtype)
            self.arrays.append(array)
            end = 0
            for name, p in own.items():
                start, end = end, end + p.size
                self._views[name] = array[start:end].reshape(p.shape)

    def put(self, grads: Gradients | None, count: float) -> None:
        """Set the buffer to count · gradient, and to 0 without gradients."""
        if grads is None:
            for array in self.arrays:
                array.fill(0)
            return
        if grads.params.keys() != self._views.keys():
            raise ValueError(
                f"grads: expected those of {list(self._views)}, got {list(grads.params)}"
            )
        with quiet():
            for name, view in self._views.items():
                gradient = np.asarray(grads.params[name])
                if gradient.shape != view.shape:
                    raise ValueError(
                        f"grads.params[{name!r}]: expected shape {view.shape}, got {gradient.shape}"
                    )
                np.multiply(gradient, count, out=view, casting="same_kind")

    def take(self, count: float) -> Gradients:
        """Divide the buffer by a count; the gradients, until the next `put`."""
        with quiet():
            for array in self.arrays:
                array /= count
        return Gradients(params=dict(self._views))
