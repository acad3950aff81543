"""The regressor of sequences."""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array, column_or_1d

from fastlstm.in_sklearn.base import SequenceEstimator
from fastlstm.in_sklearn.callbacks import with_callbacks
from fastlstm.in_sklearn.descriptions import describe
from fastlstm.in_sklearn.inputs import Inputs
from fastlstm.in_sklearn.scaling import measure_scaling
from fastlstm.in_sklearn.targets import Targets, read_targets


@describe
class LSTMRegressor(RegressorMixin, SequenceEstimator):
    """A recurrent network that predicts numbers from sequences, or at each of their steps.

    It minimizes the squared error of targets scaled to mean 0 and deviation 1 in training.

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
        share of the sequences.
    validation_fraction : ...
    n_iter_no_change : ...
    tol : ...
    channels_first : ...
    random_state : ...
    warm_start : ...
    verbose : ...
    dtype : ...
    threads : ...

    Attributes
    ----------
    n_outputs_ : int
        Numbers of a target.
    n_features_in_ : ...
    n_channels_in_ : int
    n_iter_ : ...
    loss_curve_ : list of float
        The training loss of each epoch: the mean squared error of scaled targets.
    validation_loss_curve_ : ...
    best_iteration_ : ...
    model_ : ...

    Examples
    --------
    >>> import numpy as np
    >>> from fastlstm.sklearn import LSTMRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((80, 12, 2))
    >>> y = X[:, -3:].sum(axis=(1, 2))
    >>> regressor = LSTMRegressor(32, random_state=0).fit(X[:60], y[:60])
    >>> regressor.score(X[60:], y[60:]) > 0.8
    True
    """

    _loss = "mse"

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
        """Train.

        Parameters
        ----------
        X : array (n, T, channels) or (n, T), or list of arrays (T_k, channels) or (T_k,)
            Sequences. (n, T) has one channel. Every channel is scaled to mean 0 and deviation 1
            over the steps of training; padding and the validation set have no part in this.
        y : array (n,) or (n, outputs), or of steps (n, T) or a list of arrays (T_k,)
            A target for each sequence, or for each step. An array of as many columns as X has
            steps, more than one, is of steps. Steps may have several targets, in a last axis.
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
        self : LSTMRegressor

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
        self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None
    ) -> "LSTMRegressor":
        """Train for one epoch, with the network and the optimizer's state of the call before.

        Parameters
        ----------
        X, y, sample_weight, lengths
            As of `fit`. The first call measures the scaling of channels and targets.

        Returns
        -------
        self : LSTMRegressor
        """
        self._fit_once(X, y, sample_weight, lengths)
        return self

    def predict(self, X: Any, lengths: Any = None) -> Any:
        """Return the prediction for each sequence, or for each step if y was of steps.

        Parameters
        ----------
        X, lengths
            As of `fit`.

        Returns
        -------
        y : array (n,) or (n, outputs), or of steps (n, T, ...) or a list of arrays (T_k, ...), as X
            NaN behind the end of a row.
        """
        inputs = self._inputs(X, lengths)
        values = self._values(self._predicted(inputs))
        return inputs.as_given(values, np.nan) if self._of_steps else values

    def predict_steps(self, X: Any, lengths: Any = None) -> Any:
        """Return what is predicted at every step.

        If y was of sequences, this is the prediction for a sequence that ends at the step. If y was
        of steps, it is that of `predict`.

        Parameters
        ----------
        X, lengths
            As of `fit`.

        Returns
        -------
        y : array (n, T, ...) or list of arrays (T_k, ...), as X
            NaN behind the end of a row.

        Notes
        -----
        One pass, but with `bidirectional`, whose reverse direction is another one for each end, a
        pass for each.
        """
        inputs = self._inputs(X, lengths)
        return inputs.as_given(self._values(self._predicted_steps(inputs)), np.nan)

    def score(self, X: Any, y: Any, sample_weight: Any = None, lengths: Any = None) -> float:
        """Return R², over sequences or steps; of several outputs, the mean.

        Parameters
        ----------
        X, y, sample_weight, lengths
            As of `fit`.

        Returns
        -------
        r2 : float
        """
        targets, outputs, weights = self._scored(X, y, sample_weight, lengths)
        values = self._target_scaling.undo(outputs)
        return float(r2_score(targets, values, sample_weight=weights))

    def _read_y(self, y: Any, inputs: Inputs, reset: bool, classes: Any = None) -> Targets:
        targets, name = read_targets(self, y, inputs), f"y{inputs.suffix}"
        values = check_array(
            targets.values,
            ensure_2d=False,
            allow_nd=True,
            dtype=np.float64,
            input_name=name,
            estimator=self,
        )
        if values.ndim == 2 and values.shape[1] == 1 and not targets.of_steps:
            values = column_or_1d(values, warn=True)
        shape = values.shape[1:]
        if len(shape) > 1:
            raise ValueError(f"{name}: expected a number or a vector a target, got shape {shape}")
        if reset:
            self._target_shape = shape
            self.n_outputs_ = int(np.prod(shape))
        elif shape != self._target_shape:
            raise ValueError(f"{name}: expected targets of shape {self._target_shape}, got {shape}")
        return Targets(values.reshape(len(values), -1), targets.of_steps)

    def _measure_targets(self, targets: Targets, weights: np.ndarray | None) -> None:
        self._target_scaling = measure_scaling(targets.values, weights)

    def _scaled(self, targets: Targets) -> Targets:
        values = self._target_scaling.apply(targets.values, self._network["dtype"])
        return Targets(values, targets.of_steps)

    def _outputs(self) -> int:
        return self.n_outputs_

    def _values(self, outputs: np.ndarray) -> np.ndarray:
        values = self._target_scaling.undo(outputs)
        return np.asarray(values.reshape(len(values), *self._target_shape))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
