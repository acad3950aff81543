"""scikit-learn's callbacks, where it has them (1.9 and later)."""

import copy
from typing import Any

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's own: there are no callbacks."""

    def with_callbacks(method: Any) -> Any:
        return method


class Epochs:
    """A callback of the `Trainer` that tells each epoch to those of an estimator.

    Its context is the parent of a context for each epoch.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, metadata: dict[str, Any]):
        self._estimator = estimator
        given = {name: value for name, value in metadata.items() if value is not None}
        self._task = {"estimator": estimator, "X": X, "y": y, "metadata": given or None}
        self._root: Any = None
        self._epoch: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self._root = estimator._init_callback_context(max_subtasks=estimator.max_epochs)

    def begin(self) -> None:
        """Tell that the fit begins."""
        if self._root is not None:
            self._root.call_on_fit_task_begin(**self._task)

    def end(self) -> None:
        """Tell that the fit ended."""
        if self._root is not None:
            self._root.call_on_fit_task_end(**self._task, reconstruction_attributes=self._fitted)

    def on_step_end(self, run: Any) -> None:
        """Tell that an epoch begins, with its first step."""
        if self._root is not None and self._epoch is None:
            self._epoch = self._root.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(**self._task)

    def on_epoch_end(self, run: Any) -> bool:
        """Tell that an epoch ended, and return whether a callback asks to stop."""
        epoch, self._epoch = self._epoch, None
        return epoch is not None and bool(
            epoch.call_on_fit_task_end(**self._task, reconstruction_attributes=self._fitted)
        )

    def _fitted(self) -> dict[str, Any]:
        """What an estimator that predicts with the weights of this moment differs in."""
        return {"model_": copy.copy(self._estimator.model_)}
