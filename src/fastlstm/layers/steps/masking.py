"""Layers that skip the steps which a value marks."""

from typing import Any

import numpy as np

from fastlstm.checks import read_array, read_floats, read_number
from fastlstm.engine.reading.mask import OUTPUTS
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.sequential.model import Sequential
from fastlstm.layers.sequential.ragged import Ragged
from fastlstm.module import Module


class Masking(Sequential):
    """A `Sequential` whose recurrent layers skip the steps that a value marks.

    This is Keras' `Masking` layer with the layers after it, and its `Embedding` with `mask_zero`.
    Marked steps carry the state over and stay part of the sequence: other layers than recurrent
    ones and poolings act on them, too.

    Parameters
    ----------
    *modules : Module
        The layers, as of a `Sequential`.
    value : float
        A step is marked if all its features in x, in the dtype of the first layer that has one,
        are `value`; they count as zeros then. Where the first layer is an `Embedding`, a step is
        marked if its index is `value`.
    masked_output : "zero" or "repeat", or a list with one of these for each recurrent layer
        What a recurrent layer returns at marked steps: zeros, or the output of the step kept
        before, in the order of each direction. In Keras, `Bidirectional` returns zeros and the
        other layers repeat.

    Raises
    ------
    TypeError, ValueError
        As of a `Sequential`; or an argument is not as described.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> lstm = fl.LSTM(3, 5, batch_first=True, rng=0)
    >>> x = np.ones((2, 4, 3))
    >>> x[1, :2] = 0  # padding on the left
    >>> y, state = fl.Masking(lstm)(x)
    >>> bool((y[1, 2:] == lstm(x[1, 2:])[0]).all()), float(abs(y[1, :2]).max())
    (True, 0.0)
    """

    _marks_steps = True

    def __init__(self, *modules: Module, value: float = 0.0, masked_output: Any = "repeat"):
        super().__init__(*modules)
        self.value = read_number("value", value, -np.inf, np.inf)
        count = len(self._no_states)
        outputs = [masked_output] * count if isinstance(masked_output, str) else masked_output
        if not isinstance(outputs, (list, tuple)) or len(outputs) != count:
            raise ValueError(
                f'masked_output: expected "zero" or "repeat", or a list of {count}, one for each '
                f"recurrent layer, got {masked_output!r}"
            )
        for output in (*outputs, masked_output) if isinstance(masked_output, str) else outputs:
            if output not in OUTPUTS:
                raise ValueError(f'masked_output: expected "zero" or "repeat", got {output!r}')
        self.masked_output = masked_output
        self._outputs = tuple(outputs)

    def __getitem__(self, index: int | slice) -> Any:
        """A layer, or for a slice from the first layer on a Masking of the same layers.

        Raises
        ------
        ValueError
            A slice leaves out the first layer, whose input has the marks, or takes others than the
            next ones. ``Sequential(*model)`` has all layers without the marks.
        """
        if not isinstance(index, slice):
            return super().__getitem__(index)
        start, _, step = index.indices(len(self))
        if start or step != 1:
            raise ValueError(f"index: expected a slice [:n] of a Masking, got {index}")
        part = super().__getitem__(index)
        outputs: Any = self.masked_output
        if not isinstance(outputs, str):
            outputs = outputs[: sum(module.is_recurrent for module in part)]
        return Masking(*part, value=self.value, masked_output=outputs)

    def step(self, x: Any, state: Any, rows: Any = None, out: Any = None) -> Any:
        """Raise ValueError: what a marked step repeats is not part of the state."""
        raise ValueError("modules: expected no Masking, for one step; leave marked steps out")

    def _check_streams(self, entries: Any) -> None:
        self.step(None, None)

    def _read(
        self, x: Any, lengths: Any, resets: Any, mask: Any, masked_output: Any, threads: Any
    ) -> tuple[Any, dict[str, Any], Ragged | None]:
        steps, options, ragged = super()._read(x, lengths, resets, mask, masked_output, threads)
        assert ragged is not None  # since it marks steps
        if not self._has_indices():
            # The value is compared with what the layers see.
            dtypes = (getattr(leaf, "dtype", None) for leaf in self._leaves())
            dtype = next((own for own in dtypes if own is not None), None)
            steps = read_floats("x", steps) if dtype is None else read_array("x", steps, dtype)
            kept = (steps != self.value).any(axis=-1)
            steps = np.where(kept[..., None], steps, steps.dtype.type(0))
        else:
            kept = steps != self.value
        ragged = ragged._replace(
            batch=ragged.batch._replace(x=steps), mask=kept, masked_output=self._outputs
        )
        return steps, options, ragged

    def _features_in(self, x: Any) -> tuple[int, ...] | None:
        if self._has_indices():
            return ()
        return None if isinstance(x, (list, tuple)) else np.shape(x)[-1:]

    def _has_indices(self) -> bool:
        return isinstance(next(self._leaves(), None), Embedding)
