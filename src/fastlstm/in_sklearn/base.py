"""What the classifier and the regressor share: how they are fitted, and the network's outputs."""

import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastlstm.checks import read_dtype, read_flag, read_size
from fastlstm.in_sklearn.callbacks import CallbackSupportMixin, Epochs
from fastlstm.in_sklearn.inputs import Inputs, read_inputs
from fastlstm.in_sklearn.network import build_network
from fastlstm.in_sklearn.scaling import measure_scaling
from fastlstm.in_sklearn.targets import Targets, read_targets, read_weights
from fastlstm.layers.sequential import Sequential
from fastlstm.training.callbacks import EarlyStopping
from fastlstm.training.data.sequences import read_fraction
from fastlstm.training.optim import AdamW
from fastlstm.training.trainer import Trainer

CLIP_NORM = 1.0  # of the gradients of a step
ROWS = 256  # of a batch in inference
NETWORK = "cell", "hidden_size", "num_layers", "bidirectional", "dropout", "pooling", "dtype"


class SequenceEstimator(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """The base of the estimators. A subclass reads y (`_read_y`), and has a loss (`_loss`)."""

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
        channels_first: bool = False,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: bool = False,
        dtype: Any = "float32",
        threads: int | None = None,
    ):
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.cell = cell
        self.pooling = pooling
        self.lr = lr
        self.weight_decay = weight_decay
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.channels_first = channels_first
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.dtype = dtype
        self.threads = threads

    # What a subclass has.

    def _read_y(self, y: Any, inputs: Inputs, reset: bool) -> Targets:
        """The targets as the loss takes them. With `reset`, set what is known of them."""
        raise NotImplementedError

    def _loss(self, targets: Targets) -> Any:
        """The loss, for these targets of training."""
        raise NotImplementedError

    def _measure_targets(self, targets: Targets, weights: np.ndarray | None) -> None:
        """Measure what the targets of training are scaled by."""

    def _scaled(self, targets: Targets) -> Targets:
        """The targets as the network gives them."""
        return targets

    def _strata(self, targets: Targets) -> np.ndarray | None:
        """The strata of the sequences, from which validation takes its share of each."""
        return None

    def _outputs(self) -> int:
        """How many numbers the network gives."""
        raise NotImplementedError

    # Fitting.

    def _fit_all(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        lengths: Any,
        X_val: Any,
        y_val: Any,
        lengths_val: Any,
    ) -> None:
        """`fit`, whose callbacks get X and y as they are."""
        validation = (X_val, y_val, lengths_val)
        if X_val is None and y_val is None and lengths_val is None:
            validation = None
        callback = Epochs(self, X, y, {"sample_weight": sample_weight, "lengths": lengths})
        self._fit(X, y, sample_weight, lengths, validation=validation, callback=callback)

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any,
        lengths: Any,
        *,
        validation: tuple[Any, Any, Any] | None = None,
        once: bool = False,
        callback: Epochs | None = None,
    ) -> None:
        """Train for all epochs, or `once` for one more."""
        goes_on = hasattr(self, "model_") and (once or read_flag("warm_start", self.warm_start))
        read_flag("channels_first", self.channels_first)
        early_stopping = read_flag("early_stopping", self.early_stopping) and not once
        inputs = read_inputs(self, X, lengths, reset=not goes_on)
        targets = self._read_y(y, inputs, reset=not goes_on)
        weights = read_weights(sample_weight, inputs, targets.of_steps)
        random = check_random_state(self.random_state)
        held_out = None
        if validation is not None:
            held_out = self._read_validation(*validation, targets.of_steps)
        elif early_stopping:
            fraction = read_fraction("validation_fraction", self.validation_fraction)
            kept, drawn = train_test_split(
                np.arange(len(inputs)),
                test_size=fraction,
                random_state=random,
                stratify=self._strata(targets),
            )
            held_out = inputs.take(drawn), targets.take(inputs, drawn), _take(weights, inputs, drawn)
            targets, weights = targets.take(inputs, kept), _take(weights, inputs, kept)
            inputs = inputs.take(kept)
        if goes_on:
            self._check_network()
        else:
            self._start(inputs, targets, weights, random)
        trainer = self._trainer(self.model_, self._loss(targets))
        x, y, options = self._arguments(inputs, targets, weights)
        stopping = None
        if not once and (held_out is None or early_stopping):
            patience = read_size("n_iter_no_change", self.n_iter_no_change)
            stopping = EarlyStopping(patience, min_delta=self.tol)
        history = trainer.fit(
            x,
            y,
            epochs=1 if once else read_size("max_epochs", self.max_epochs),
            batch_size=read_size("batch_size", self.batch_size),
            validation=None if held_out is None else self._arguments(*held_out),
            early_stopping=stopping,
            callbacks=[callback] if callback is not None else [],
            progress=bool(self.verbose),
            **options,
        )
        self._position = trainer.epoch, trainer.step
        before = len(self.loss_curve_)
        self.loss_curve_ += history["loss"].tolist()
        self.n_iter_ = self.best_iteration_ = len(self.loss_curve_)
        if held_out is not None:
            self.validation_loss_curve_ = self.validation_loss_curve_ or []
            self.validation_loss_curve_ += history["val_loss"].tolist()
            if history.best_epoch is not None:
                self.best_iteration_ = before + history.best_epoch + 1
        if history.stopped_by == "interrupt":
            warnings.warn("Training interrupted by user.", stacklevel=3)

    def _read_validation(self, X: Any, y: Any, lengths: Any, of_steps: bool) -> Any:
        if X is None or y is None:
            raise ValueError("X_val, y_val: expected both or neither")
        inputs = read_inputs(self, X, lengths, reset=False)
        targets = self._read_y(y, inputs, reset=False)
        if targets.of_steps != of_steps:
            raise ValueError("y_val: expected targets as y, of sequences or of steps")
        return inputs, targets, None

    def _start(
        self, inputs: Inputs, targets: Targets, weights: Targets | None, random: Any
    ) -> None:
        """Measure the scaling, and make a new network and its optimizer."""
        by_step = None if weights is None else weights.per_step(inputs)
        self._scaling = measure_scaling(inputs.steps, by_step)
        own = by_step if targets.of_steps or weights is None else weights.values
        self._measure_targets(targets, own)
        self._of_steps = targets.of_steps
        self._network = self._network_arguments()
        self._seed = int(random.randint(2**31 - 1))
        self.model_ = build_network(
            self.n_channels_in_, self._outputs(), rng=self._seed, **self._network
        )
        self._optimizer = AdamW(self.lr, weight_decay=self.weight_decay)
        self._position = 0, 0
        self.loss_curve_: list[float] = []
        self.validation_loss_curve_: list[float] | None = None

    def _network_arguments(self) -> dict[str, Any]:
        arguments = {name: getattr(self, name) for name in NETWORK}
        arguments["dtype"] = read_dtype("dtype", self.dtype).name
        return arguments | ({"pooling": None} if self._of_steps else {})

    def _check_network(self) -> None:
        """Raise if the network would be another one; the optimizer takes its new values."""
        for name, value in self._network_arguments().items():
            if value != self._network[name]:
                raise ValueError(
                    f"{name}: expected {self._network[name]!r}, as in the fit before, got {value!r}"
                )
        self._optimizer.lr = self.lr
        self._optimizer.weight_decay = AdamW(self.lr, weight_decay=self.weight_decay).weight_decay

    def _trainer(self, model: Any, loss: Any = "mse") -> Trainer:
        trainer = Trainer(
            model,
            loss,
            self._optimizer,
            clip_norm=CLIP_NORM,
            seed=self._seed,
            threads=self.threads,
        )
        trainer.epoch, trainer.step = self._position
        return trainer

    def _arguments(
        self, inputs: Inputs, targets: Targets, weights: Targets | None
    ) -> tuple[Any, Any, dict[str, Any]]:
        """Data as a trainer takes it."""
        x = inputs.by_sequence(self._scaling.apply(inputs.steps, self._network["dtype"]))
        options = {} if weights is None else {"sample_weight": weights.by_sequence(inputs)}
        return x, self._scaled(targets).by_sequence(inputs), options

    # Outputs.

    def _read(self, X: Any, lengths: Any) -> Inputs:
        check_is_fitted(self)
        return read_inputs(self, X, lengths, reset=False)

    def _predicted(self, model: Any, inputs: Inputs) -> np.ndarray:
        """The model's outputs, of sequences or of all steps one after another."""
        x = inputs.by_sequence(self._scaling.apply(inputs.steps, self._network["dtype"]))
        result = self._trainer(model).predict(x, batch_size=ROWS)
        if isinstance(result, list):
            return np.concatenate(result)
        return np.asarray(result.reshape(-1, result.shape[-1]))

    def _predicted_steps(self, inputs: Inputs) -> np.ndarray:
        """The outputs of every step: as if the sequence ended there."""
        if self._of_steps:
            return self._predicted(self.model_, inputs)
        recurrent, *_, head = self.model_._modules
        if not self._network["bidirectional"]:
            hidden = self._predicted(Sequential(recurrent), inputs)
            for steps in np.split(hidden, inputs.ends[:-1]):
                steps[...] = _running(self._network["pooling"], steps)
            return np.asarray(head(hidden))
        outputs = np.empty((len(inputs.steps), self._outputs()), self._network["dtype"])
        begins = inputs.ends - inputs.counts
        for last in range(inputs.counts.max()):  # the reverse direction is another for each end
            rows = np.flatnonzero(inputs.counts > last)
            places = begins[rows, None] + np.arange(last + 1)
            prefixes = Inputs(
                inputs.steps[places.ravel()], np.full(len(rows), last + 1), last + 1
            )
            outputs[places[:, -1]] = self._predicted(self.model_, prefixes)
        return outputs

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


def _take(weights: Targets | None, inputs: Inputs, rows: np.ndarray) -> Targets | None:
    return None if weights is None else weights.take(inputs, rows)


def _running(pooling: str, steps: np.ndarray) -> np.ndarray:
    """What the pooling of a sequence gives of its first steps, for each number of them."""
    if pooling == "max":
        return np.maximum.accumulate(steps)
    if pooling == "mean":
        sums = np.cumsum(steps, axis=0, dtype=np.float64)
        return np.asarray(sums / np.arange(1, len(steps) + 1)[:, None])
    return steps
