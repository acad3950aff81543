"""The classifier of sequences."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import assert_all_finite, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from fastlstm.in_sklearn.base import SequenceEstimator
from fastlstm.in_sklearn.callbacks import with_callbacks
from fastlstm.in_sklearn.descriptions import describe
from fastlstm.in_sklearn.inputs import Inputs
from fastlstm.in_sklearn.targets import Targets, read_targets
from fastlstm.layers.activation import softmax

FILLS = {"i": -1, "f": np.nan, "U": "", "O": None}  # labels behind the end, by dtype


@describe
class LSTMClassifier(ClassifierMixin, SequenceEstimator):
    """A recurrent network that classifies sequences, or each of their steps.

    Parameters
    ----------
    hidden_size : ...
    num_layers : int
    bidirectional : ...
    dropout : ...
    cell : "lstm", "gru" or "rnn"
    pooling : ...
    lr : ...
    weight_decay : float
    max_epochs : ...
    batch_size : ...
    early_stopping : bool
        Whether to stop when the validation loss no longer falls. Without X_val, validation takes a
        share of the sequences, the same of each class.
    validation_fraction : ...
    n_iter_no_change : ...
    tol : ...
    class_weight : dict, "balanced" or None
        Weights of the classes in the loss; "balanced" for those inversely proportional to their
        frequency.
    channels_first : ...
    random_state : ...
    warm_start : ...
    verbose : ...
    dtype : ...
    threads : ...

    Attributes
    ----------
    classes_ : array
    n_features_in_ : ...
    n_channels_in_ : int
    n_iter_ : ...
    loss_curve_ : list of float
        The training loss of each epoch, in nats.
    validation_loss_curve_ : ...
    best_iteration_ : ...
    model_ : ...

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = [rng.standard_normal((steps, 2)) for steps in rng.integers(5, 12, 60)]
    >>> y = np.array(["up" if one[-1, 0] > 0 else "down" for one in X])
    >>> classifier = LSTMClassifier(32, random_state=0).fit(X, y)
    >>> classifier.score(X, y) > 0.95, classifier.predict_proba(X[:3]).shape
    (True, (3, 2))
    """

    _loss = "cross_entropy"

    def __init__(
        self,
        hidden_size: int = 64,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        cell: str = "lstm",
        pooling: str = "last",
        lr: float = 1e-2,
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
        """Train.

        Parameters
        ----------
        X : array (n, T, channels) or (n, T), or list of arrays (T_k, channels) or (T_k,)
            Sequences. (n, T) has one channel. Every channel is scaled to mean 0 and deviation 1
            over the steps of training; padding and the validation set have no part in this.
        y : array (n,), or of steps (n, T) or a list of arrays (T_k,)
            A target for each sequence, or for each step. An array of as many columns as X has
            steps, more than one, is of steps.
        sample_weight : array (n,), optional
            Of each sequence; with targets of steps also in the form of y.
        lengths : array (n,) of ints, optional
            Steps of each row of an array X. What is behind may be NaN.
        X_val, y_val : as X and y, optional
            A validation set. The network ends with the weights of the epoch that was best on it.
        lengths_val : array of ints, optional
            As `lengths`, of X_val.

        Returns
        -------
        self : LSTMClassifier

        Raises
        ------
        ValueError, TypeError
            Something does not fit. The estimator is then as it was before.

        Notes
        -----
        The first Ctrl-C ends the training with a warning, and what was learned stays.
        """
        self._fit_all(X, y, sample_weight, lengths, (X_val, y_val, lengths_val))
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
        lengths: Any = None,
    ) -> "LSTMClassifier":
        """Train for one epoch, with the network and the optimizer's state of the call before.

        Parameters
        ----------
        X, y, sample_weight, lengths
            As of `fit`. The first call measures the scaling of the channels.
        classes : array, optional
            All classes that y may have; the first call needs it.

        Returns
        -------
        self : LSTMClassifier
        """
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"class_weight: expected a dict or None for partial_fit, which does not know the "
                f"frequencies, got {self.class_weight!r}"
            )
        if hasattr(self, "model_"):
            known = self.classes_.tolist()
            if classes is not None and np.unique(classes).tolist() != known:
                raise ValueError(f"classes: expected {known}, as before, got {list(classes)}")
        elif classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        self._fit_once(X, y, sample_weight, lengths, classes)
        return self

    def predict(self, X: Any, lengths: Any = None) -> Any:
        """Return the most likely label of each sequence, or of each step if y was of steps.

        Parameters
        ----------
        X, lengths
            As of `fit`.

        Returns
        -------
        labels : array (n,), or of steps (n, T) or a list of arrays (T_k,), as X
            Behind the end of a row stands -1, NaN, "" or None, as the labels' dtype allows, else 0.
        """
        inputs = self._inputs(X, lengths)
        return self._given(self._labels(self._predicted(inputs)), inputs)

    def predict_proba(self, X: Any, lengths: Any = None) -> Any:
        """Return the probability of each class, for each sequence or step.

        Parameters
        ----------
        X, lengths
            As of `fit`.

        Returns
        -------
        probabilities : array (n, classes), or of steps (n, T, classes) or a list of (T_k, classes)
            NaN behind the end of a row.
        """
        inputs = self._inputs(X, lengths)
        return self._given(softmax(self._predicted(inputs).astype(np.float64)), inputs)

    def decision_function(self, X: Any, lengths: Any = None) -> Any:
        """Return the logit of each class, for each sequence or step.

        Parameters
        ----------
        X, lengths
            As of `fit`.

        Returns
        -------
        logits : array (n, classes), or of steps (n, T, classes) or a list of (T_k, classes)
            Of two classes, without the last axis: the logit of the second, which is above 0 where
            it is predicted. NaN behind the end of a row.
        """
        inputs = self._inputs(X, lengths)
        logits = self._predicted(inputs).astype(np.float64)
        if len(self.classes_) == 2:
            logits = logits[:, 1] - logits[:, 0]
        return self._given(logits, inputs)

    def predict_steps(self, X: Any, lengths: Any = None, *, proba: bool = False) -> Any:
        """Return what is predicted at every step.

        If y was of sequences, this is the prediction for a sequence that ends at the step, as for
        early classification. If y was of steps, it is that of `predict` or `predict_proba`.

        Parameters
        ----------
        X, lengths
            As of `fit`.
        proba : bool
            Whether to return probabilities in place of labels.

        Returns
        -------
        labels : array (n, T) or list of arrays (T_k,), as X
            As of `predict`. Probabilities have another axis.

        Notes
        -----
        One pass, but with `bidirectional`, whose reverse direction is another one for each end, a
        pass for each.
        """
        inputs = self._inputs(X, lengths)
        logits = self._predicted_steps(inputs)
        values = softmax(logits.astype(np.float64)) if proba else self._labels(logits)
        return inputs.as_given(values, _fill(values))

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        """Return the accuracy, over sequences or steps.

        Parameters
        ----------
        X, y, sample_weight, lengths
            As of `fit`.

        Returns
        -------
        accuracy : float
        """
        labels, logits, weights = self._scored(X, y, sample_weight, lengths)
        return float(accuracy_score(labels, self._labels(logits), sample_weight=weights))

    def _read_y(self, y: Any, inputs: Inputs, reset: bool, classes: Any = None) -> Targets:
        targets, name = self._expected(y, inputs), f"y{inputs.suffix}"
        check_classification_targets(targets.values)
        found = np.unique(targets.values)
        if reset:
            self.classes_ = found if classes is None else np.unique(classes)
            if len(self.classes_) < 2:
                raise ValueError(
                    "This classifier needs samples of at least 2 classes in the data, but the "
                    f"data contains only one class: {self.classes_[0]!r}"
                )
        unknown = np.setdiff1d(found, self.classes_)
        if unknown.size:
            raise ValueError(
                f"{name}: expected the classes {self.classes_.tolist()}, "
                f"got also {unknown.tolist()}"
            )
        return Targets(np.searchsorted(self.classes_, targets.values), targets.of_steps)

    def _expected(self, y: Any, inputs: Inputs) -> Targets:
        targets, name = read_targets(self, y, inputs), f"y{inputs.suffix}"
        if targets.values[:1].size > 1:
            shape = targets.values.shape
            raise ValueError(f"{name} should be a 1d array, got an array of shape {shape} instead.")
        labels = column_or_1d(targets.values, warn=True)
        assert_all_finite(labels, input_name=name)
        return Targets(labels, targets.of_steps)

    def _class_weights(self, targets: Targets) -> np.ndarray | None:
        if self.class_weight is None:
            return None
        labels = self.classes_[targets.values]
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=labels)
        return np.asarray(weights, np.float64)

    def _strata(self, targets: Targets) -> np.ndarray | None:
        return None if targets.of_steps else targets.values

    def _outputs(self) -> int:
        return len(self.classes_)

    def _labels(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(self.classes_[logits.argmax(axis=1)])

    def _given(self, values: np.ndarray, inputs: Inputs) -> Any:
        return inputs.as_given(values, _fill(values)) if self._of_steps else values


def _fill(values: np.ndarray) -> Any:
    """What stands where there is no step."""
    return FILLS.get(values.dtype.kind, 0)
