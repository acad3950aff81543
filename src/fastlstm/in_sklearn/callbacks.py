"""scikit-learn's callbacks, where it has them (1.9 and later)."""

import copy
from typing import Any

import numpy as np

__all__ = ["CallbackSupport", "Epochs", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin as CallbackSupport
    from sklearn.callback import with_callbacks
except ImportError:

    class CallbackSupport:  # type: ignore[no-redef]
        """Stands for scikit-learn's own where there are no callbacks."""

    def with_callbacks(method: Any) -> Any:
        return method


class Epochs:
    """A callback of the `Trainer` that tells those of an estimator about the fit and its epochs.

    Parameters
    ----------
    estimator
    X, y, sample_weight, lengths
        As they were given to `fit`. Callbacks get X with `lengths` as a list without padding, since
        their scorers know no lengths, and y likewise if it is of steps.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, lengths: Any):
        self._estimator = estimator
        self._task = {"estimator": estimator, "X": X, "y": y, "metadata": None}
        if sample_weight is not None:
            self._task["metadata"] = {"sample_weight": sample_weight}
        if lengths is not None:
            axis = 2 if estimator.channels_first and np.ndim(X) == 3 else 1
            self._task["X"] = lambda: _without_padding(X, lengths, axis)
            if np.ndim(y) > 1:
                self._task["y"] = lambda: _without_padding(y, lengths, 1)
        self._fit: Any = None
        self._epoch: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._fit = estimator._init_callback_context(max_subtasks=estimator.max_epochs)

    def on_fit_begin(self, run: Any) -> None:
        """Tell that the fit begins."""
        if self._fit is not None:
            self._fit.call_on_fit_task_begin(**self._task)

    def on_step_end(self, run: Any) -> None:
        """Tell that an epoch began, with its first step."""
        if self._fit is not None and self._epoch is None:
            self._epoch = self._fit.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(**self._task)

    def on_epoch_end(self, run: Any) -> bool:
        """Tell that an epoch ended, and return whether a callback asks to stop."""
        epoch, self._epoch = self._epoch, None
        return epoch is not None and bool(self._end(epoch))

    def on_fit_end(self, run: Any) -> None:
        """Tell that the fit ended; the network has its final weights."""
        if self._fit is not None:
            self._end(self._fit)

    def _end(self, task: Any) -> Any:
        def fitted() -> dict[str, Any]:
            """What makes a copy of the estimator one that stays as this one is at this moment."""
            own = vars(self._estimator)
            return {name: copy.copy(own[name]) for name in ("model_", "_optimizer")}

        return task.call_on_fit_task_end(**self._task, reconstruction_attributes=fitted)


def _without_padding(array: Any, lengths: Any, axis: int) -> list[np.ndarray]:
    rows = zip(np.asarray(array), lengths, strict=True)
    return [row[..., :length] if axis == 2 else row[:length] for row, length in rows]
