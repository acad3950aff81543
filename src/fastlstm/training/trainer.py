"""Training of a model."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from itertools import chain
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from fastlstm.checks import brief, read_flag, read_number, read_size
from fastlstm.distributed.hosts import share_cores
from fastlstm.distributed.ranks import Place, read_ranks
from fastlstm.distributed.watch import watched
from fastlstm.module import Module
from fastlstm.training.callbacks import EarlyStopping, read_callbacks
from fastlstm.training.calls import Caller
from fastlstm.training.checkpoints import Saver, data_digest, settings_of, share_state, text_of
from fastlstm.training.data.batch import Batches, Source
from fastlstm.training.data.sequences import Sequences, read_fraction
from fastlstm.training.data.streams import Streams
from fastlstm.training.history import History
from fastlstm.training.optim.base import Optimizer
from fastlstm.training.progress import make_progress
from fastlstm.training.run import Run
from fastlstm.training.scores import Means, Metric, Objective, read_metrics

P = ParamSpec("P")
Result = TypeVar("Result")


def _together(
    method: Callable[Concatenate["Trainer", P], Result],
) -> Callable[Concatenate["Trainer", P], Result]:
    """Make a method one that all ranks call together."""

    @wraps(method)
    def call(self: "Trainer", /, *args: P.args, **options: P.kwargs) -> Result:
        with self.ranks.together():
            return method(self, *args, **options)

    return call


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
    threads : int, optional
        The most threads for the recurrent layers of the model, in place of `get_num_threads`.
    recompute : int or "sqrt", optional
        For long sequences: memory for a part of the steps, as of a recurrent layer's `forward`. The
        weights keep their bits.
    comm : communicator, optional
        Of mpi4py, as ``MPI.COMM_WORLD``, or any object with its methods `Get_rank`, `Get_size`,
        `Bcast`, `Allreduce` and `Allgather`. Its ranks train one model together. All have to make
        the same calls with the same arguments, and get the same result: see Notes.
    deterministic : bool
        Whether ranks sum gradients in their order, in float64, so that every run with as many ranks
        has the same bits. It moves more data: use it for small models or few ranks.

    Attributes
    ----------
    epoch, step : int
        How many epochs and steps were made. Another `fit` goes on from there: two fits of one
        epoch are a fit of two.

    Notes
    -----
    With `comm`, every rank begins with the parameters of rank 0, and is given the whole data. Of
    each batch, the same as without `comm`, rank r of n computes the rows from B·r/n to B·(r + 1)/n,
    rounded down, or none. Gradients are summed over all positions that count, wherever they are,
    divided by their weight, and then clipped; dropout is drawn by the row of the whole batch. So
    weights and history differ from those of one process by rounding alone, unless a cell written in
    Python draws for itself.

    Making the trainer, `fit` and `evaluate` are calls that all ranks make. `predict` is not: it
    computes whatever it is given. Rank 0 displays the progress, writes checkpoints and calls
    callbacks (see `fastlstm.training.callbacks`). An exception on one rank is a `RankError` of
    `fastlstm.distributed` on the others. Scripts are run by ``mpiexec -n 2 python -m mpi4py``,
    which also ends all ranks if one fails elsewhere.

    The ranks of a host divide its cores: unless `threads`, `set_num_threads` or a variable says how
    many threads this process has, making the trainer lowers that number to the rank's share.

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
        threads: int | None = None,
        recompute: int | str | None = None,
        comm: Any = None,
        deterministic: bool = False,
    ):
        self.ranks = read_ranks(comm, deterministic)
        with self.ranks.together():
            self.caller = Caller(model, threads, recompute)
            self.model = model
            self.objective = Objective(loss)
            self.objective.check(model)
            has_step = callable(getattr(optimizer, "step", None)) and hasattr(optimizer, "lr")
            if isinstance(optimizer, type) or not has_step:
                raise TypeError(f"optimizer: expected an Optimizer, got {brief(optimizer)}")
            self.optimizer = optimizer
            if schedule is not None and not callable(schedule):
                raise TypeError(f"schedule: expected a function of the step, got {brief(schedule)}")
            self.schedule = schedule
            self.clip_norm = None
            if clip_norm is not None:
                self.clip_norm = read_number("clip_norm", clip_norm, 0, np.inf, open_below=True)
            self.seed = read_size("seed", seed, 0)
            self.epoch = self.step = 0
            self._metrics: Sequence[Metric] = ()  # of the last fit
            self._share_parameters()
            share_cores(self.ranks, is_needed=threads is None)

    def _share_parameters(self) -> None:
        """Let every rank have the parameters of rank 0."""
        if self.ranks.size == 1:
            return
        parameters = self.model.parameters()
        forms = [f"{name} {p.shape} {p.dtype}" for name, p in parameters.items()]
        self.ranks.compare(
            Place.TRAINER, {"model": text_of(self.model), "parameters": "; ".join(forms)}
        )
        arrays, _ = self.ranks.broadcast(Place.STATE, parameters, None)
        self.model.load_state_dict(arrays)

    @_together
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
            With `comm`, all ranks give the same ones.
        y : array (N, ...), (N, T, ...), or list of arrays
            A target for each sequence or for each step, as the model predicts. None with streams
            and batches, which have targets of their own.
        epochs : int
        batch_size : int
            Rows of a batch. The last batch may have fewer.
        lengths : array (N,) of ints, optional
            Steps of each row of x; what is behind does not count.
        mask : bool array (N, T), optional
            False, or 0, at steps to skip; neither the model nor the loss sees them. Of a list, a
            list.
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
            had ended. More epochs go on, too. One process at a time trains with a folder.
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
            A checkpoint cannot be written, or another process trains with the folder.
        RankError
            Another rank failed, or ranks do not make the same calls (`comm`).

        Notes
        -----
        The first Ctrl-C ends the training after the current step, and `fit` returns.
        When a rank of `comm` is killed, all end, and standard error says which one (on Linux).
        """
        epochs, batch_size = read_size("epochs", epochs), read_size("batch_size", batch_size)
        if early_stopping is not None and not isinstance(early_stopping, EarlyStopping):
            raise TypeError(f"early_stopping: expected EarlyStopping, got {brief(early_stopping)}")
        if checkpoint is None and checkpoint_every != "epoch":
            raise ValueError(
                f"checkpoint_every: without checkpoint, expected 'epoch', got {checkpoint_every!r}"
            )
        options = {"lengths": lengths, "mask": mask, "sample_weight": sample_weight}
        source = _read_source(x, y, options)
        self.caller.check(source)
        held_out: Source | None
        if isinstance(validation, (int, float, np.number)):
            fraction = read_fraction("validation", validation)
            if not isinstance(source, (Sequences, Streams)):
                raise ValueError("validation: batches cannot be divided, so expected (x, y)")
            source, held_out = source.split(fraction, self.seed)
        else:
            try:
                held_out = _read_validation(validation)
                self.caller.check(held_out)
            except (TypeError, ValueError) as error:
                kind = TypeError if isinstance(error, TypeError) else ValueError
                text = str(error).removeprefix("validation: ")
                raise kind(f"validation: {text}") from error
        self._metrics = read_metrics(metrics)
        progress = read_flag("progress", progress) and not self.ranks.rank
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
        settings = {}
        if checkpoint is not None or self.ranks.size > 1:
            settings = settings_of(run)
            ends = {"epochs": epochs, "restore_best": restore_best, "checkpoint": bool(checkpoint)}
            ends |= {"checkpoint_every": checkpoint_every}
            self.ranks.compare(Place.FIT, {name: str(v) for name, v in ends.items()} | settings)
        if checkpoint is not None:
            run.saver = Saver(checkpoint, checkpoint_every, settings)
        writes = checkpoint is not None and not self.ranks.rank
        with run.saver.opened() if writes else nullcontext():
            goes_on = writes and run.saver.restore(run)
            share_state(run)
            if checkpoint is not None and not self.ranks.exchange(Place.FIT, [goes_on])[0, 0]:
                run.saver.save(run)
            shown = make_progress(progress, run.epochs, self.epoch, source.size)
            advice = "" if checkpoint is None else "Run again, it goes on from the last checkpoint."
            with watched(self.ranks, advice):
                run.go(shown)
        return run.history

    @_together
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

        Raises
        ------
        ValueError, TypeError
            As `fit`.
        """
        options = {"lengths": lengths, "mask": mask, "sample_weight": sample_weight}
        source = _read_source(x, y, options)
        self.caller.check(source)
        read = self._metrics if metrics is None else read_metrics(metrics)
        batch_size = read_size("batch_size", batch_size)
        if self.ranks.size > 1:
            names = ", ".join(metric.name for metric in read)
            given = {"data": data_digest(source), "batch_size": str(batch_size)}
            self.ranks.compare(Place.EVALUATE, {**given, "metrics": names})
        return self._scores(source, batch_size, read)

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

        Raises
        ------
        ValueError, TypeError
            As `fit`.
        """
        batch_size = read_size("batch_size", batch_size)
        if isinstance(x, Streams):
            _read_source(x, None, {"lengths": lengths, "mask": mask})
            results, state = [], None
            for batch in x.batches(batch_size, None, 0):
                pred, state = self.caller.infer(batch, state if batch.carries else None)
                results.append(pred)
            return x.in_order(results)
        source = Sequences(x, lengths=lengths, mask=mask)
        self.caller.check(source)
        return self.caller.predict(source, batch_size)

    def _scores(
        self, source: Source, batch_size: int, metrics: Sequence[Metric]
    ) -> dict[str, float]:
        means, state = Means(), None
        is_shared = self.ranks.size > 1
        share = self.ranks.share if is_shared else None
        for batch in source.batches(batch_size, None, 0, share):
            if is_shared and not len(batch.x):
                continue
            pred, state = self.caller.infer(batch, state if batch.carries else None)
            part, _ = self.objective(pred, batch, is_shared)
            means.add({"loss": part, **{one.name: one(pred, batch) for one in metrics}})
        if is_shared:
            self.ranks.compare(Place.SCORES, {"batches": str(getattr(source, "seen", 0))})
            names = ["loss", *(metric.name for metric in metrics)]
            means = means.of_all(self.ranks, Place.SCORES, names)
        return means.means()


def _read_source(x: Any, y: Any, options: dict[str, Any], name: str = "x") -> Source:
    """What is read in batches, from the arguments of a fit or of its `validation`."""
    if y is not None and not isinstance(x, Streams):
        return Sequences(x, y, **options)
    for option, value in {"y": y, **options}.items():
        if value is not None:
            raise ValueError(f"{option}: x has its own, so expected None")
    if isinstance(x, Streams):
        return x
    are_sequences = isinstance(x, list) and bool(x) and isinstance(x[0], (np.ndarray, list))
    is_array = isinstance(x, np.ndarray) or not (callable(x) or hasattr(x, "__iter__"))
    if is_array or are_sequences:
        raise ValueError("y: expected targets, got None")
    return Batches(x, name)


def _read_validation(validation: Any) -> Source | None:
    if not isinstance(validation, tuple):
        return None if validation is None else _read_source(validation, None, {}, "validation")
    x, y, *rest = validation if len(validation) in (2, 3) else (None, None, None)
    if not all(isinstance(options, dict) for options in rest):
        raise ValueError("validation: expected a fraction, (x, y) or (x, y, options)")
    unknown = set(chain(*rest)) - {"lengths", "mask", "sample_weight"}
    if unknown:
        raise ValueError(f"validation: unknown options {sorted(unknown)}")
    return _read_source(x, y, {} if not rest else rest[0])
