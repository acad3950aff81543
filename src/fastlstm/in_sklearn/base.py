"""What the classifier and the regressor share: how they are fitted, and the network's outputs."""

import copy
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import sklearn
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from fastlstm.checks import read_dtype, read_flag, read_number, read_size, warn_user
from fastlstm.in_sklearn.callbacks import CallbackSupport, Epochs
from fastlstm.in_sklearn.inputs import Inputs, read_inputs
from fastlstm.in_sklearn.network import CLIP_NORM, build_network, read_pooling
from fastlstm.in_sklearn.scaling import measure_scaling
from fastlstm.in_sklearn.targets import Targets, read_weights
from fastlstm.training.callbacks import EarlyStopping
from fastlstm.training.data.sequences import read_fraction
from fastlstm.training.optim import AdamW
from fastlstm.training.trainer import Trainer

ROWS = 256  # of a batch in inference
NETWORK = "cell", "hidden_size", "num_layers", "bidirectional", "dropout", "pooling", "dtype"

Data = tuple[Inputs, Targets, Targets | None]  # sequences, targets and weights


class SequenceEstimator(CallbackSupport, BaseEstimator):
    """The base of the estimators."""

    _loss: str
    loss_curve_: list[float]
    validation_loss_curve_: list[float] | None

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

    def _read_y(self, y: Any, inputs: Inputs, reset: bool, classes: Any = None) -> Targets:
        """The targets as numbers. With `reset`, set what is known of them."""
        raise NotImplementedError

    def _expected(self, y: Any, inputs: Inputs) -> Targets:
        """The targets that a score compares with."""
        return self._read_y(y, inputs, reset=False)

    def _outputs(self) -> int:
        """How many numbers the network gives."""
        raise NotImplementedError

    def _scaled(self, targets: Targets) -> Targets:
        """The targets as the loss takes them."""
        return targets

    def _measure_targets(self, targets: Targets, weights: np.ndarray | None) -> None:
        """Measure by what the targets of training are scaled."""

    def _class_weights(self, targets: Targets) -> np.ndarray | None:
        """The weights of the targets of training, by label."""
        return None

    def _strata(self, targets: Targets) -> np.ndarray | None:
        """What the shares of the training and validation sequences are equal in."""
        return None

    # Fitting.

    def _fit_all(
        self, X: Any, y: Any, sample_weight: Any, lengths: Any, validation: tuple[Any, Any, Any]
    ) -> None:
        """Train for all epochs; `validation` is X, y and lengths, or None for each."""
        callback = Epochs(self, X, y, sample_weight, lengths)
        with self._as_before_an_error():
            goes_on = read_flag("warm_start", self.warm_start) and hasattr(self, "model_")
            data = self._read(X, y, sample_weight, lengths, reset=not goes_on)
            random = check_random_state(self.random_state)
            stops = read_flag("early_stopping", self.early_stopping)
            held_out = None
            if any(given is not None for given in validation):
                held_out = self._read_validation(*validation)
            elif stops:
                data, held_out = self._split(data, random)
            patience = read_size("n_iter_no_change", self.n_iter_no_change)
            tol = read_number("tol", self.tol, 0, np.inf, open_above=True)
            stopping = EarlyStopping(patience, tol) if stops or held_out is None else None
            epochs = read_size("max_epochs", self.max_epochs)
            interrupted = self._train(
                data,
                held_out,
                random,
                epochs=epochs,
                early_stopping=stopping,
                callbacks=[callback],
            )
        _warn_if(interrupted)

    def _fit_once(
        self, X: Any, y: Any, sample_weight: Any, lengths: Any, classes: Any = None
    ) -> None:
        """Train for one more epoch."""
        with self._as_before_an_error():
            reset = not hasattr(self, "model_")
            data = self._read(X, y, sample_weight, lengths, reset=reset, classes=classes)
            random = check_random_state(self.random_state)
            interrupted = self._train(data, None, random, epochs=1)
        _warn_if(interrupted)

    @contextmanager
    def _as_before_an_error(self) -> Iterator[None]:
        """If the block raises, leave the estimator as it was before, its network too."""
        before = dict(self.__dict__)
        for name in {"model_", "_optimizer"} & before.keys():
            before[name] = copy.copy(before[name])
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _read(
        self, X: Any, y: Any, sample_weight: Any, lengths: Any, *, reset: bool, classes: Any = None
    ) -> Data:
        inputs = read_inputs(self, X, lengths, reset=reset)
        targets = self._read_y(y, inputs, reset, classes)
        if reset:
            self._of_steps = targets.of_steps
            self.__dict__.pop("model_", None)
        self._check_form("y", targets)
        return inputs, targets, read_weights(sample_weight, inputs, targets.of_steps)

    def _read_validation(self, X: Any, y: Any, lengths: Any) -> Data:
        if X is None or y is None:
            raise ValueError("X_val, y_val: expected both, got one of them")
        with _naming("X_val"):
            inputs = read_inputs(self, X, lengths, reset=False, suffix="_val")
        with _naming("y_val"):
            targets = self._read_y(y, inputs, reset=False)
        self._check_form("y_val", targets)
        return inputs, targets, None

    def _check_form(self, name: str, targets: Targets) -> None:
        if targets.of_steps != self._of_steps:
            forms = "a target for each sequence", "a target for each step"
            wanted, got = forms[self._of_steps], forms[targets.of_steps]
            raise ValueError(f"{name}: expected {wanted}, as in the fit, got {got}")

    def _split(self, data: Data, random: Any) -> tuple[Data, Data]:
        """Draw the sequences of validation: the others, and these."""
        inputs, targets, weights = data
        parts = train_test_split(
            np.arange(len(inputs)),
            test_size=read_fraction("validation_fraction", self.validation_fraction),
            random_state=random,
            stratify=self._strata(targets),
        )

        def of(rows: np.ndarray) -> Data:
            own = None if weights is None else weights.take(inputs, rows)
            return inputs.take(rows), targets.take(inputs, rows), own

        return of(np.sort(parts[0])), of(np.sort(parts[1]))

    def _train(self, data: Data, held_out: Data | None, random: Any, **options: Any) -> bool:
        """Train a new network, or the one that there is; return whether Ctrl-C ended it."""
        by_class = self._class_weights(data[1])
        weights = _weigh(data, by_class)
        held_out_weights = None if held_out is None else _weigh(held_out, by_class)
        if hasattr(self, "model_"):
            self._go_on()
        else:
            self._start(data, random)
        trainer = self._trainer(self.model_)
        x, y, each = self._arguments(data, weights)
        history = trainer.fit(
            x,
            y,
            **each,
            batch_size=read_size("batch_size", self.batch_size),
            validation=None if held_out is None else self._arguments(held_out, held_out_weights),
            progress=_is_verbose(self.verbose),
            **options,
        )
        self._position = trainer.epoch, trainer.step
        before = len(self.loss_curve_)
        self.loss_curve_ = self.loss_curve_ + history["loss"].tolist()
        self.n_iter_ = self.best_iteration_ = len(self.loss_curve_)
        if held_out is not None:
            earlier = self.validation_loss_curve_ or []
            self.validation_loss_curve_ = earlier + history["val_loss"].tolist()
            if history.best_epoch is not None:
                self.best_iteration_ = before + history.best_epoch + 1
        return history.stopped_by == "interrupt"

    def _start(self, data: Data, random: Any) -> None:
        """Measure the scaling; make a network, and its optimizer."""
        inputs, targets, weights = data
        by_step = None if weights is None else weights.per_step(inputs)
        self._scaling = measure_scaling(inputs.steps, by_step)
        own = by_step if targets.of_steps or weights is None else weights.values
        self._measure_targets(targets, own)
        self._network = self._network_arguments()
        self._seed = int(random.randint(2**31 - 1))
        self.model_ = build_network(
            self.n_channels_in_, self._outputs(), rng=self._seed, **self._network
        )
        self._optimizer = AdamW(self.lr, weight_decay=self.weight_decay)
        self._position = 0, 0  # epochs and steps so far
        self.loss_curve_ = []
        self.validation_loss_curve_ = None

    def _go_on(self) -> None:
        """Let the network and the optimizer go on, with the optimizer's new settings."""
        for name, value in self._network_arguments().items():
            if value != self._network[name]:
                raise ValueError(
                    f"{name}: expected {self._network[name]!r}, as in the fit before, got {value!r}"
                )
        new = AdamW(self.lr, weight_decay=self.weight_decay)
        self._optimizer.lr, self._optimizer.weight_decay = new.lr, new.weight_decay

    def _network_arguments(self) -> dict[str, Any]:
        arguments = {name: getattr(self, name) for name in NETWORK}
        read_pooling(self.pooling)
        if self._of_steps:
            arguments["pooling"] = None
        return arguments | {"dtype": read_dtype("dtype", self.dtype).name}

    def _trainer(self, model: Any) -> Trainer:
        trainer = Trainer(
            model,
            self._loss,
            self._optimizer,
            clip_norm=CLIP_NORM,
            seed=self._seed,
            threads=self.threads,
        )
        trainer.epoch, trainer.step = self._position
        return trainer

    def _arguments(self, data: Data, weights: Targets | None) -> tuple[Any, Any, dict[str, Any]]:
        """x, y and options as a trainer takes them."""
        inputs, targets, _ = data
        x = inputs.by_sequence(self._scaling.apply(inputs.steps, self._network["dtype"]))
        options = {} if weights is None else {"sample_weight": weights.by_sequence(inputs)}
        return x, self._scaled(targets).by_sequence(inputs), options

    # Outputs.

    def _inputs(self, X: Any, lengths: Any) -> Inputs:
        check_is_fitted(self)
        return read_inputs(self, X, lengths, reset=False)

    def _predicted(self, inputs: Inputs, model: Any = None) -> np.ndarray:
        """The outputs of sequences, or of all steps one after another."""
        x = inputs.by_sequence(self._scaling.apply(inputs.steps, self._network["dtype"]))
        trainer = self._trainer(self.model_ if model is None else model)
        result = trainer.predict(x, batch_size=ROWS)
        if isinstance(result, list):
            return np.concatenate(result)
        return np.asarray(result.reshape(-1, result.shape[-1]))

    def _predicted_steps(self, inputs: Inputs) -> np.ndarray:
        """The outputs of all steps; for targets of sequences, as if each ended at that step."""
        if self._of_steps:
            return self._predicted(inputs)
        if not self._network["bidirectional"]:
            hidden = self._predicted(inputs, self.model_[:1])
            for steps in np.split(hidden, inputs.ends[:-1]):
                steps[...] = _pooled_so_far(self._network["pooling"], steps)
            return np.asarray(self.model_[-1](hidden))
        # The reverse direction begins anew at each end.
        outputs = np.empty((len(inputs.steps), self._outputs()), self._network["dtype"])
        for T in range(1, int(inputs.counts.max()) + 1):
            rows = np.flatnonzero(inputs.counts >= T)
            places = (inputs.ends - inputs.counts)[rows, None] + np.arange(T)
            beginnings = Inputs(inputs.steps[places.ravel()], np.full(len(rows), T), T)
            outputs[places[:, -1]] = self._predicted(beginnings)
        return outputs

    def _scored(self, X: Any, y: Any, sample_weight: Any, lengths: Any) -> tuple[Any, Any, Any]:
        """Targets, outputs and weights: of sequences, or of all steps one after another."""
        inputs = self._inputs(X, lengths)
        targets = self._expected(y, inputs)
        self._check_form("y", targets)
        weights = read_weights(sample_weight, inputs, targets.of_steps)
        if weights is not None and targets.of_steps:
            weights = Targets(weights.per_step(inputs), True)
        outputs = self._predicted(inputs)
        return targets.values, outputs, None if weights is None else weights.values

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put an argument's name in front of those errors of scikit-learn that have none."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if re.match(r"(Input )?(X|y|lengths)_val\b", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error


def _weigh(data: Data, by_class: np.ndarray | None) -> Targets | None:
    """The weights of the targets in the loss."""
    inputs, targets, weights = data
    if by_class is not None:
        own = by_class[targets.values]
        if weights is not None:
            own = own * (weights.per_step(inputs) if targets.of_steps else weights.values)
        weights = Targets(own, targets.of_steps)
    if weights is not None and not weights.values.any():
        raise ValueError(
            "sample_weight, class_weight: expected a weight above 0 in training, and in validation"
        )
    return weights


def _warn_if(interrupted: bool) -> None:
    if interrupted:
        warn_user("Training interrupted by user.", os.path.dirname(sklearn.__file__))


def _is_verbose(value: Any) -> bool:
    flag = isinstance(value, (bool, np.bool_))
    return bool(value) if flag else read_size("verbose", value, 0) > 0


def _pooled_so_far(pooling: str, steps: np.ndarray) -> np.ndarray:
    """What pooling makes of the first steps of a sequence, for every number of them."""
    if pooling == "max":
        return np.asarray(np.maximum.accumulate(steps))
    if pooling == "mean":
        sums = np.cumsum(steps, axis=0, dtype=np.float64)
        return np.asarray(sums / np.arange(1, len(steps) + 1)[:, None])
    return steps
