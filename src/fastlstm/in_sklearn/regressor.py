"""The regressor of sequences."""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array, column_or_1d

from fastlstm.in_sklearn.base import SequenceEstimator
from fastlstm.in_sklearn.callbacks import with_callbacks
from fastlstm.in_sklearn.inputs import Inputs
from fastlstm.in_sklearn.scaling import measure_scaling
from fastlstm.in_sklearn.targets import Targets, read_targets, read_weights
from fastlstm.training import losses


class LSTMRegressor(RegressorMixin, SequenceEstimator):  # type: ignore[misc]
    """TODO"""

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        lengths: Any = None,
        X_val: Any = None,
        y_val: Any = None,
        lengths_val: Any = None,
    ) -> "LSTMRegressor":
        self._fit_all(X, y, sample_weight, lengths, X_val, y_val, lengths_val)
        return self

    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None
    ) -> "LSTMRegressor":
        self._fit(X, y, sample_weight, lengths, once=True)
        return self

    def predict(self, X: Any, lengths: Any = None) -> Any:
        inputs = self._read(X, lengths)
        values = self._values(self._predicted(self.model_, inputs))
        return inputs.as_given(values, np.nan) if self._of_steps else values

    def predict_steps(self, X: Any, lengths: Any = None) -> Any:
        inputs = self._read(X, lengths)
        return inputs.as_given(self._values(self._predicted_steps(inputs)), np.nan)

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        inputs = self._read(X, lengths)
        targets = self._read_y(y, inputs, reset=False)
        weights = read_weights(sample_weight, inputs, targets.of_steps)
        own = None
        if weights is not None:
            own = weights.per_step(inputs) if targets.of_steps else weights.values
        values = self._values(self._predicted(self.model_, inputs))
        return float(r2_score(targets.values, values, sample_weight=own))

    # What the base asks for.

    def _read_y(self, y: Any, inputs: Inputs, reset: bool) -> Targets:
        targets = read_targets(self, y, inputs)
        values = check_array(
            targets.values, ensure_2d=False, dtype=np.float64, input_name="y", estimator=self
        )
        if values.ndim == 2 and values.shape[1] == 1 and not targets.of_steps:
            values = column_or_1d(values, warn=True)
        if values.ndim > 2:
            raise ValueError(f"y: expected one number or vector a target, got {values.shape[1:]}")
        shape = values.shape[1:]
        if reset:
            self._target_shape = shape
            self.n_outputs_ = int(np.prod(shape))
        elif shape != self._target_shape:
            raise ValueError(f"y: expected targets of shape {self._target_shape}, got {shape}")
        return Targets(values.reshape(len(values), -1), targets.of_steps)

    def _loss(self, targets: Targets) -> Any:
        return losses.mse

    def _measure_targets(self, targets: Targets, weights: np.ndarray | None) -> None:
        self._target_scaling = measure_scaling(targets.values, weights)

    def _scaled(self, targets: Targets) -> Targets:
        return Targets(
            self._target_scaling.apply(targets.values, self._network["dtype"]), targets.of_steps
        )

    def _outputs(self) -> int:
        return self.n_outputs_

    def _values(self, outputs: np.ndarray) -> np.ndarray:
        values = self._target_scaling.undo(outputs)
        return np.asarray(values.reshape(len(values), *self._target_shape))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
