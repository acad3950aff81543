"""Training of a model."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from fastlstm.checks import read_flag, read_number, read_size
from fastlstm.module import Module
from fastlstm.training.callbacks import EarlyStopping, read_callbacks
from fastlstm.training.calls import Caller, has_steps
from fastlstm.training.checkpoints import Saver, settings_of
from fastlstm.training.data.batch import Batches, Source
from fastlstm.training.data.sequences import Sequences, read_fraction
from fastlstm.training.data.streams import Streams
from fastlstm.training.history import History
from fastlstm.training.optim.base import Optimizer
from fastlstm.training.progress import make_progress
from fastlstm.training.run import Run
from fastlstm.training.scores import Means, Metric, Objective, read_metrics


class Trainer:
    """Trains a model, and evaluates it.

    Parameters
    ----------
    model : Module
        Data is given sequences first, whatever the model's own layout.
    loss : function or str
        Of `fastlstm.losses`, its name, or a function of your own,
        ``loss(pred, target, mask=None) -> (mean, d_pred)``. It gets pred as (B, T, ...), or as
        (B, ...) if the model gives one vector a sequence.
    optimizer : Optimizer
    schedule : function, optional
        From the number of steps so far to the learning rate: see `fastlstm.schedules`.
    clip_norm : float, optional
        The largest norm of the gradients of a step; larger ones are scaled down.
    seed : int
        What training draws depends on this seed, the step and the row of the batch alone: dropout,
        zoneout and the order of sequences. The layers' own generators rest.

    Attributes
    ----------
    epoch, step : int
        How many epochs and steps were made. Another `fit` goes on from there: two fits of one
        epoch are a fit of two.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> rng = np.random.default_rng(0)
    >>> x = [rng.standard_normal((n, 3)) for n in rng.integers(4, 9, 50)]
    >>> y = [one.cumsum(axis=0) for one in x]
    >>> model = fl.Sequential(fl.LSTM(3, 16, rng=0), fl.Linear(16, 3, rng=0))
    >>> trainer = fl.Trainer(model, "mse", fl.optim.Adam(1e-2))
    >>> history = trainer.fit(x, y, epochs=20, validation=0.2, progress=False)
    >>> bool(history["val_loss"].min() < history["val_loss"][0] / 2)
    True
    >>> [pred.shape for pred in trainer.predict(x[:2])] == [one.shape for one in x[:2]]
    True
    """

    def __init__(
        self,
        model: Module,
        loss: Any,
        optimizer: Optimizer,
        *,
        schedule: Any = None,
        clip_norm: float | None = None,
        seed: int = 0,
    ):
        self.caller = Caller(model)
        self.model = model
        self.objective = Objective(loss)
        if not callable(getattr(optimizer, "step", None)):
            raise TypeError(f"optimizer: expected an Optimizer, got {optimizer!r:.60}")
        self.optimizer = optimizer
        if schedule is not None and not callable(schedule):
            raise TypeError(f"schedule: expected a function of the step, got {schedule!r:.60}")
        self.schedule = schedule
        self.clip_norm = None
        if clip_norm is not None:
            self.clip_norm = read_number("clip_norm", clip_norm, 0, np.inf)
            if not self.clip_norm:
                raise ValueError("clip_norm: expected a number above 0, got 0")
        self.seed = read_size("seed", seed, 0)
        self.epoch = self.step = 0
        self._metrics: Sequence[Metric] = ()  # of the last fit

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int,
        batch_size: int = 32,
        lengths: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
        validation: Any = None,
        early_stopping: EarlyStopping | None = None,
        metrics: Any = (),
        restore_best: bool = True,
        checkpoint: Any = None,
        checkpoint_every: Any = "epoch",
        callbacks: Any = (),
        progress: bool = True,
    ) -> History:
        """Train.

        Parameters
        ----------
        x : array (N, T, ...), list of arrays (T_k, ...), `Streams`, or iterable of batches
            Batches are (x, y) or `fastlstm.training.Batch`, sequences first. An iterable gives them
            again in every epoch; a function gets the number of the epoch and returns an iterable.
        y : array (N, ...), (N, T, ...), or list of arrays
            A target for each sequence or for each step, as the model predicts. None with streams
            and batches, which have targets of their own.
        epochs : int
        batch_size : int
            Rows of a batch. The last batch may have fewer.
        lengths : array (N,) of ints, optional
            Steps of each row of x; what is behind does not count.
        mask : bool array (N, T), optional
            False at steps to skip; neither the model nor the loss sees them. Of a list, a list.
        sample_weight : array (N,) or (N, T), optional
            Of each sequence, or of each step in the loss.
        validation : float, tuple, `Streams` or iterable of batches, optional
            A fraction of the sequences, drawn, or of the stream, its tail; or data that is not
            trained on: (x, y), or (x, y, {"lengths": ..., "mask": ..., "sample_weight": ...}).
        early_stopping : EarlyStopping, optional
        metrics : "accuracy", functions, or several of them
            A function of the predictions and targets that count, (n, ...) each, returns their mean
            or one value for each; weights do not matter. Values are in the history under the
            function's name.
        restore_best : bool
            Whether the model ends with the weights of the epoch that was best on the validation
            set, whatever ended the training. Without such a set, the last weights stay.
        checkpoint : str or path, optional
            A folder for checkpoints. The same script, run again, goes on from the newest one that
            is whole, to the same bits as if it had never been stopped, and returns at once if it
            had ended. More epochs go on, too.
        checkpoint_every : "epoch" or int
            Write after every epoch, and also after so many steps.
        callbacks : objects, optional
            See `fastlstm.training.callbacks`.
        progress : bool
            Whether to display progress: by tqdm in a terminal or notebook, else by lines.

        Returns
        -------
        History
            Of this fit: "loss", metrics, the same on the validation set with ``"val_"``, and "lr".

        Raises
        ------
        DivergedError
            The loss or a gradient is not finite. The model has its best weights if there is a
            validation set and an epoch has ended, else the last whose loss was finite.
        ValueError, TypeError
            An argument does not fit, or the checkpoints are of other data, sizes or settings.
        OSError
            A checkpoint cannot be written.

        Notes
        -----
        The first Ctrl-C ends the training after the current step, and `fit` returns.
        """
        epochs, batch_size = read_size("epochs", epochs), read_size("batch_size", batch_size)
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            raise TypeError(f"early_stopping: expected EarlyStopping, got {early_stopping!r:.60}")
        options = {"lengths": lengths, "mask": mask, "sample_weight": sample_weight}
        source = _read_source(x, y, options)
        held_out: Source | None
        if isinstance(validation, (int, float, np.number)):
            fraction = read_fraction("validation", validation)
            if not isinstance(source, (Sequences, Streams)):
                raise ValueError("validation: batches cannot be divided, so expected (x, y)")
            source, held_out = source.split(fraction, self.seed)
        else:
            held_out = _read_validation(validation)
        self._metrics = read_metrics(metrics)
        run = Run(
            self,
            source,
            held_out,
            epochs=epochs,
            batch_size=batch_size,
            metrics=self._metrics,
            early_stopping=early_stopping,
            restore_best=read_flag("restore_best", restore_best),
            callbacks=read_callbacks(callbacks),
        )
        if checkpoint is not None:
            run.saver = Saver(checkpoint, checkpoint_every, settings_of(run))
            if not run.saver.restore(run):
                run.saver.save(run)
        shown = make_progress(read_flag("progress", progress), run.epochs, self.epoch, source.size)
        run.go(shown)
        return run.history

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int = 32,
        lengths: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
        metrics: Any = None,
    ) -> dict[str, float]:
        """Return the loss and the metrics, as means over all positions that count.

        Parameters
        ----------
        x, y, lengths, mask, sample_weight
            As of `fit`. Streams carry their state from batch to batch.
        batch_size : int
        metrics : as of `fit`
            None for those of the last fit.

        Returns
        -------
        dict of str to float
            "loss", and the metrics by name.
        """
        options = {"lengths": lengths, "mask": mask, "sample_weight": sample_weight}
        source = _read_source(x, y, options)
        read = self._metrics if metrics is None else read_metrics(metrics)
        return self._scores(source, read_size("batch_size", batch_size), read)

    def predict(
        self, x: Any, *, batch_size: int = 32, lengths: Any = None, mask: Any = None
    ) -> Any:
        """Return the model's output, in the order of x.

        Parameters
        ----------
        x, lengths, mask
            As of `fit`; not batches.
        batch_size : int

        Returns
        -------
        array (N, ...), or of every step (N, T, ...); a list of arrays (T_k, ...) if x is a list
            Zeros at steps that do not count. (L, ...) of `Streams`.
        """
        batch_size = read_size("batch_size", batch_size)
        if isinstance(x, Streams):
            results, state = [], None
            for batch in x.batches(batch_size, None, 0):
                pred, state = self.caller.infer(batch, state if batch.carries else None)
                results.append(pred)
            return x.in_order(results)
        source = Sequences(x, lengths=lengths, mask=mask)
        is_list = isinstance(source.x, list)
        T = source.x.shape[1] if isinstance(source.x, np.ndarray) else 0
        by_row: list[np.ndarray] = [np.empty(0)] * source.size
        result: Any = None
        for rows in source.rows(batch_size, None):
            batch = source.take(rows)
            pred, _ = self.caller.infer(batch)
            if not has_steps(pred, batch) or not is_list:
                steps = (T,) if has_steps(pred, batch) else ()
                if result is None:
                    rest = pred.shape[2:] if steps else pred.shape[1:]
                    result = np.zeros((source.size, *steps, *rest), pred.dtype)
                target = result[:, : pred.shape[1]] if steps else result
                target[rows] = pred
                continue
            for row, one in zip(rows, pred, strict=True):
                by_row[row] = one[: source.lengths[row]].copy()
        return by_row if result is None else result

    def _scores(
        self, source: Source, batch_size: int, metrics: Sequence[Metric]
    ) -> dict[str, float]:
        means, state = Means(), None
        for batch in source.batches(batch_size, None, 0):
            pred, state = self.caller.infer(batch, state if batch.carries else None)
            part, _ = self.objective(pred, batch)
            means.add({"loss": part, **{one.name: one(pred, batch) for one in metrics}})
        return means.means()


def _read_source(x: Any, y: Any, options: dict[str, Any]) -> Source:
    """What is read in batches, from the arguments of a fit."""
    if y is not None and not isinstance(x, Streams):
        return Sequences(x, y, **options)
    for name, value in {"y": y, **options}.items():
        if value is not None:
            raise ValueError(f"{name}: x has its own, so expected None")
    if isinstance(x, Streams):
        return x
    if isinstance(x, np.ndarray) or not (callable(x) or hasattr(x, "__iter__")):
        raise ValueError("y: expected targets, got None")
    return Batches(x)


def _read_validation(validation: Any) -> Source | None:
    if validation is None:
        return None
    if not isinstance(validation, tuple):
        return _read_source(validation, None, {})
    x, y, *rest = validation if len(validation) > 1 else (None, None, None, None)
    if len(rest) > 1 or not all(isinstance(options, dict) for options in rest):
        raise ValueError("validation: expected a fraction, (x, y) or (x, y, options)")
    unknown = set(chain(*rest)) - {"lengths", "mask", "sample_weight"}
    if unknown:
        raise ValueError(f"validation: unknown options {sorted(unknown)}")
    return _read_source(x, y, {} if not rest else rest[0])
