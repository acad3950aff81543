"""The classifier of sequences."""

from functools import partial
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from fastlstm.in_sklearn.base import SequenceEstimator
from fastlstm.in_sklearn.callbacks import with_callbacks
from fastlstm.in_sklearn.inputs import Inputs
from fastlstm.in_sklearn.targets import Targets, read_targets, read_weights
from fastlstm.training import losses

FILLS = {"i": -1, "f": np.nan, "U": "", "O": None}  # labels where there is no step, by dtype


class LSTMClassifier(ClassifierMixin, SequenceEstimator):  # type: ignore[misc]
    """TODO"""

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        cell: str = "lstm",
        pooling: str = "last",
        lr: float = 5e-3,
        weight_decay: float = 1e-2,
        max_epochs: int = 100,
        batch_size: int = 32,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        class_weight: Any = None,
        channels_first: bool = False,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
        dtype: Any = "float32",
        threads: int | None = None,
    ):
        super().__init__(
            hidden_size,
            num_layers=num_layers,
            bidirectional=bidirectional,
            dropout=dropout,
            cell=cell,
            pooling=pooling,
            lr=lr,
            weight_decay=weight_decay,
            max_epochs=max_epochs,
            batch_size=batch_size,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            channels_first=channels_first,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
            dtype=dtype,
            threads=threads,
        )
        self.class_weight = class_weight

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
    ) -> "LSTMClassifier":
        self._known_classes = None
        self._fit_all(X, y, sample_weight, lengths, X_val, y_val, lengths_val)
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
        lengths: Any = None,
    ) -> "LSTMClassifier":
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: the classes' shares "
                "are not known; expected a dict"
            )
        self._read_classes(classes)
        self._fit(X, y, sample_weight, lengths, once=True)
        return self

    def _read_classes(self, classes: Any) -> None:
        """Read the classes that `partial_fit` is told at first."""
        known = getattr(self, "classes_", None) if hasattr(self, "model_") else None
        if classes is None:
            if known is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            return
        given = np.unique(column_or_1d(classes))
        if known is not None and not np.array_equal(given, known):
            raise ValueError(
                f"classes: expected {known.tolist()}, as in the first call, got {given.tolist()}"
            )
        self._known_classes = given

    def predict(self, X: Any, lengths: Any = None) -> Any:
        inputs = self._read(X, lengths)
        return self._given(self._labels(self._predicted(self.model_, inputs)), inputs)

    def predict_proba(self, X: Any, lengths: Any = None) -> Any:
        inputs = self._read(X, lengths)
        return self._given(_softmax(self._predicted(self.model_, inputs)), inputs)

    def decision_function(self, X: Any, lengths: Any = None) -> Any:
        inputs = self._read(X, lengths)
        logits = self._predicted(self.model_, inputs).astype(np.float64)
        if len(self.classes_) == 2:
            logits = logits[:, 1] - logits[:, 0]
        return self._given(logits, inputs)

    def predict_steps(self, X: Any, lengths: Any = None, *, proba: bool = False) -> Any:
        inputs = self._read(X, lengths)
        logits = self._predicted_steps(inputs)
        values = _softmax(logits) if proba else self._labels(logits)
        return inputs.as_given(values, _fill(values))

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        inputs = self._read(X, lengths)
        targets = read_targets(self, y, inputs)
        weights = read_weights(sample_weight, inputs, targets.of_steps)
        if weights is not None:
            own = weights.per_step(inputs) if targets.of_steps else weights.values
        else:
            own = None
        labels = self._labels(self._predicted(self.model_, inputs))
        return float(accuracy_score(targets.values, labels, sample_weight=own))

    # What the base asks for.

    def _read_y(self, y: Any, inputs: Inputs, reset: bool) -> Targets:
        targets = read_targets(self, y, inputs)
        values = column_or_1d(targets.values, warn=True)
        assert_all_finite(values, input_name="y")
        check_classification_targets(values)
        found = np.unique(values)
        if reset:
            classes = found if self._known_classes is None else self._known_classes
            if len(classes) < 2:
                raise ValueError(
                    "This classifier needs samples of at least 2 classes in the data, but the "
                    f"data contains only one class: {classes[0]!r}"
                )
            self.classes_ = classes
        unknown = np.setdiff1d(found, self.classes_)
        if unknown.size:
            raise ValueError(
                f"y: expected the classes {self.classes_.tolist()}, got also {unknown.tolist()}"
            )
        return Targets(np.searchsorted(self.classes_, values), targets.of_steps)

    def _loss(self, targets: Targets) -> Any:
        if self.class_weight is None:
            return losses.cross_entropy
        weights = compute_class_weight(
            self.class_weight, classes=self.classes_, y=self.classes_[targets.values]
        )
        return partial(losses.cross_entropy, class_weight=weights)

    def _strata(self, targets: Targets) -> np.ndarray | None:
        return None if targets.of_steps else targets.values

    def _outputs(self) -> int:
        return len(self.classes_)

    def _labels(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[logits.argmax(axis=1)])

    def _given(self, values: np.ndarray, inputs: Inputs) -> Any:
        return inputs.as_given(values, _fill(values)) if self._of_steps else values


def _softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _fill(values: np.ndarray) -> Any:
    """What stands where there is no step."""
    return FILLS.get(values.dtype.kind, 0)
