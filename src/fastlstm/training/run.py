"""One fit: its loop over epochs and steps, and all that it has to remember."""

import math
import signal
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any

import numpy as np

from fastlstm.training.callbacks import EarlyStopping
from fastlstm.training.data.batch import Batch, Order, Source
from fastlstm.training.history import History
from fastlstm.training.optim.base import NonfiniteError
from fastlstm.training.optim.clip import clip_grad_norm
from fastlstm.training.progress import Progress
from fastlstm.training.scores import Means, Metric


class DivergedError(ValueError, FloatingPointError):
    """The loss, or a gradient, is not finite.

    Attributes
    ----------
    epoch, step : int
        From 1, as displayed: the epoch, and the step within it.
    """

    def __init__(self, what: str, epoch: int, step: int):
        super().__init__(f"{what} in epoch {epoch}, step {step}")
        self.epoch, self.step = epoch, step


class Run:
    """One fit of a trainer. Callbacks get it as their argument.

    Attributes
    ----------
    trainer, model, optimizer
    history : History
        Of the epochs so far.
    epochs : int
        The epoch with which the fit ends.
    epoch : int
        The current epoch, from 0.
    step : int
        The number of steps of the trainer so far.
    logs : dict of str to float
        The values of the last step, or in `on_epoch_end` of the epoch.
    """

    def __init__(
        self,
        trainer: Any,
        source: Source,
        validation: Source | None,
        *,
        epochs: int,
        batch_size: int,
        metrics: Sequence[Metric],
        early_stopping: EarlyStopping | None,
        restore_best: bool,
        callbacks: Sequence[Any],
    ):
        self.trainer, self.model, self.optimizer = trainer, trainer.model, trainer.optimizer
        self.source, self.validation = source, validation
        self.batch_size, self.metrics = batch_size, metrics
        self.early_stopping, self.callbacks = early_stopping, callbacks
        self._restores = restore_best and validation is not None
        names = ["loss", *(metric.name for metric in metrics)]
        names += [f"val_{name}" for name in names] if validation is not None else []
        monitor = early_stopping.monitor if early_stopping else None
        monitor = monitor or ("val_loss" if validation is not None else "loss")
        if monitor not in names:
            raise ValueError(f"early_stopping: expected to monitor one of {names}, got {monitor!r}")
        self.history = History({name: [] for name in [*names, "lr"]}, monitor)
        mode = early_stopping.mode if early_stopping else "auto"
        self._sign = -1 if (mode == "auto" and "accuracy" in monitor) or mode == "max" else 1
        self.epochs = trainer.epoch + epochs
        self.first_epoch = trainer.epoch
        self.logs: dict[str, float] = {}
        self.saver: Any = None  # writes checkpoints, if any are wanted

        # What a checkpoint holds beside model, optimizer, history and the trainer's numbers.
        self.position = 0  # of the next batch in the epoch
        self.sums = Means()  # of the epoch so far
        self.state: Any = None  # that the next batch may go on with
        self.best = math.inf  # the lowest value, with its sign
        self.best_parameters: dict[str, np.ndarray] | None = None
        self.reference = math.inf  # the lowest value for early stopping
        self.waited = 0  # epochs without improvement on it
        self.stop = ""  # why the fit ends; "" while it goes on

        self._asked = False  # whether a callback has asked to stop
        self._last: tuple[Any, Batch, Any] | None = None  # parameters, batch and state of a step

    @property
    def epoch(self) -> int:
        return int(self.trainer.epoch)

    @property
    def step(self) -> int:
        return int(self.trainer.step)

    def go(self, progress: Progress) -> None:
        """Train until the end, and leave the model with its final weights."""
        interrupt = _InterruptOnce()
        try:
            with interrupt:
                self._call("on_fit_begin")
                while not self.stop and not interrupt.requested:
                    self._read_epoch(progress, interrupt)
        except KeyboardInterrupt:
            if interrupt.requested:  # the second time, at once
                raise
            self.stop = "interrupt"
        except DivergedError:
            if self._last is not None:
                self._go_back(*self._last)
            raise
        finally:
            progress.close()
            if self._restores and self.best_parameters is not None:
                self.model.load_state_dict(self.best_parameters)
        self.history.stopped_by = self.stop or "interrupt"
        self._call("on_fit_end")

    def _read_epoch(self, progress: Progress, interrupt: "_InterruptOnce") -> None:
        """Read an epoch from the current position to its end, or to where the fit ends."""
        trainer = self.trainer
        order = Order(trainer.seed, self.epoch)
        before = self.position
        for batch in self.source.batches(self.batch_size, order, before):
            self._step(batch)
            progress.step(self.epoch, len(batch.x), self.logs["loss"])
            self._call("on_step_end")
            if self._asked:
                break
            if self.saver is not None:
                self.saver.after_step(self)
            if interrupt.requested:
                if self.saver is not None:
                    self.saver.save(self)
                return
        if not self.position:
            raise ValueError("x: expected at least one batch, got none")
        self._end_epoch(progress)

    def _step(self, batch: Batch) -> None:
        trainer, state = self.trainer, self.state if batch.carries else None
        if trainer.schedule is not None:
            self.optimizer.lr = trainer.schedule(self.step)
        pred, self.state, tape = trainer.caller.forward(batch, state, trainer.seed, self.step)
        part, gradient = trainer.objective(pred, batch)
        if not math.isfinite(part.total):
            raise self._diverged(f"loss: expected a finite number, got {part.total}")
        parts = {metric.name: metric(pred, batch) for metric in self.metrics}
        if gradient is not None:
            grads = trainer.caller.backward(tape, gradient)
            if trainer.clip_norm is not None:
                clip_grad_norm(grads, trainer.clip_norm)
            before = self.model.parameters()
            try:
                self.optimizer.step(self.model, grads)
            except NonfiniteError as error:
                raise self._diverged(str(error)) from error
            self._last = before, batch, state
        self.sums.add({"loss": part, **parts})
        self.position += 1
        trainer.step += 1
        self.logs = {"loss": part.total / part.weight if part.weight else math.nan}

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(what, self.epoch + 1, self.position + 1)

    def _go_back(self, before: Any, batch: Batch, state: Any) -> None:
        """Undo the last step if it is to blame: if the loss of its own batch is no more finite."""
        pred, _ = self.trainer.caller.infer(batch, state)
        if not math.isfinite(self.trainer.objective(pred, batch)[0].total):
            self.model.load_state_dict(before)

    def _end_epoch(self, progress: Progress) -> None:
        """Validate, compare, and decide whether the fit goes on."""
        logs = self.sums.means()
        if self.validation is not None:
            found = self.trainer._scores(self.validation, self.batch_size, self.metrics)
            logs |= {f"val_{name}": value for name, value in found.items()}
        self.logs = logs | {"lr": self.optimizer.lr}
        self.history.append(self.logs)
        value = self._sign * self.logs[self.history.monitor]
        if value < self.best:
            self.best, self.history.best_epoch = value, self.history.epochs - 1
            if self.validation is not None:
                self.best_parameters = dict(self.model.parameters())
        stopping = self.early_stopping
        if stopping is not None:
            improved = value < self.reference - stopping.min_delta
            self.reference = value if improved else self.reference
            self.waited = 0 if improved else self.waited + 1
        progress.epoch_end(self.epoch, self.logs)
        self._call("on_epoch_end")
        self.trainer.epoch += 1
        self.position, self.sums, self.state = 0, Means(), None
        if self._asked:
            self.stop = "callback"
        elif self.epoch >= self.epochs:
            self.stop = "epochs"
        elif stopping is not None and self.waited >= stopping.patience:
            self.stop = "early stopping"
        if self.saver is not None:
            self.saver.save(self)

    def _call(self, method: str) -> None:
        for callback in self.callbacks:
            function = getattr(callback, method, None)
            answer = None if function is None else function(self)
            if isinstance(answer, (bool, np.bool_)) and answer:
                self._asked = True


class _InterruptOnce:
    """Within the block, the first Ctrl-C only sets `requested`; the next one interrupts."""

    requested = False

    def __enter__(self) -> None:
        # Another handler, and other threads, are none of a trainer's business.
        self._acts = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )
        if self._acts:
            signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *exception: object) -> None:
        if self._acts:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
