"""One fit: its loop over epochs and steps, and all that it has to remember."""

import math
import signal
import threading
import zlib
from collections.abc import Sequence
from types import FrameType
from typing import Any

import numpy as np

from fastlstm.distributed.flat import Flat
from fastlstm.distributed.ranks import Place
from fastlstm.module import Gradients
from fastlstm.training.callbacks import EarlyStopping, load_states, of_rank, with_states
from fastlstm.training.data.batch import Batch, Order, Source
from fastlstm.training.history import History
from fastlstm.training.optim.base import NonfiniteError
from fastlstm.training.optim.clip import clip_grad_norm
from fastlstm.training.progress import Progress
from fastlstm.training.scores import Means, Metric, Part, split


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
        self.ranks = trainer.ranks
        self.early_stopping, self.callbacks = early_stopping, of_rank(self.ranks.rank, callbacks)
        self._restores = restore_best and validation is not None
        self.names = names = ["loss", *(metric.name for metric in metrics)]  # of a step's values
        if validation is not None:
            names = [*names, *(f"val_{name}" for name in names)]
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
        self.loaded_states: dict[str, Any] | None = None  # of callbacks, from a checkpoint

        named = with_states(callbacks).items()  # the same names on all ranks
        self._with_states = {name: one for name, one in named if of_rank(self.ranks.rank, [one])}
        self._has_begun = False  # whether callbacks were told of the fit
        self._flat = Flat(self.model.parameters()) if self.ranks.size > 1 else None
        self._rows = 0  # of the last step, of all ranks
        self._interrupt = _InterruptOnce()
        self._wants_stop = False  # whether a callback of this rank has asked to stop
        self._heard = False, False  # the wishes of all ranks, when they last met
        self._last: tuple[Any, Batch, Any] | None = None  # parameters, batch and state of a step

    @property
    def epoch(self) -> int:
        return int(self.trainer.epoch)

    @property
    def step(self) -> int:
        return int(self.trainer.step)

    def go(self, progress: Progress) -> None:
        """Train until the end, and leave the model with its final weights."""
        try:
            with self._interrupt:
                self._begin()
                while not self.stop and not self._all_wishes()[1]:
                    self._read_epoch(progress)
        except KeyboardInterrupt:
            if self._interrupt.requested:  # the second time, at once
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

    def _begin(self) -> None:
        """Tell callbacks, which may begin anew, and then give them what they knew."""
        self._call("on_fit_begin")
        if self.loaded_states is not None:
            load_states(self._with_states, self.loaded_states, says=not self.ranks.rank)
        self._has_begun = True

    def callback_states(self) -> dict[str, Any] | None:
        """What callbacks remember, by name; None as long as they were told of no fit."""
        if not self._has_begun:
            return self.loaded_states
        return {name: callback.state_dict() for name, callback in self._with_states.items()}

    def _read_epoch(self, progress: Progress) -> None:
        """Read an epoch from the current position to its end, or to where the fit ends."""
        trainer = self.trainer
        order = Order(trainer.seed, self.epoch)
        before = self.position
        share = None if self._flat is None else self.ranks.share
        for batch in self.source.batches(self.batch_size, order, before, share):
            if self._step(batch, may_stop=self.position > before):
                progress.step(self.epoch, self._rows, self.logs["loss"])
                self._call("on_step_end")
                if self.saver is not None and not self._all_wishes()[0]:
                    self.saver.after_step(self)
            asked, interrupted = self._all_wishes()
            if asked:
                break
            if interrupted:
                if self.saver is not None:
                    self.saver.save(self)
                return
        if not self.position:
            raise ValueError("x: expected at least one batch, got none")
        self._end_epoch(progress)

    def _step(self, batch: Batch, may_stop: bool) -> bool:
        """Take a step; or none, and return False, if a rank was asked to stop before it."""
        trainer, state = self.trainer, self.state if batch.carries else None
        if trainer.schedule is not None:
            self.optimizer.lr = trainer.schedule(self.step)
        parts, grads, new_state = self._compute(batch, state)
        self._rows = len(batch.x)
        if self._flat is not None:
            self._flat.put(grads, parts["loss"].weight)
            parts = self._exchange(parts)
            if may_stop and any(self._heard):
                return False
        loss = parts["loss"]
        if not math.isfinite(loss.total):
            raise self._diverged(f"loss: expected a finite number, got {loss.total}")
        if self._flat is not None and loss.weight:
            self.ranks.add(self._flat)
            grads = self._flat.take(loss.weight)
        if grads is not None:
            if trainer.clip_norm is not None:
                clip_grad_norm(grads, trainer.clip_norm)
            before = self.model.parameters()
            try:
                self.optimizer.step(self.model, grads)
            except NonfiniteError as error:
                raise self._diverged(str(error)) from error
            self._last = before, batch, state
        self.state = new_state
        self.sums.add(parts)
        self.position += 1
        trainer.step += 1
        self.logs = {"loss": loss.total / loss.weight if loss.weight else math.nan}
        return True

    def _compute(self, batch: Batch, state: Any) -> tuple[dict[str, Part], Gradients | None, Any]:
        """What this rank's rows of a batch add to the sums, their gradients, and the new state."""
        trainer, is_share = self.trainer, self._flat is not None
        if is_share and not len(batch.x):
            return {"loss": Part(0.0, 0.0)}, None, None
        pred, state, tape = trainer.caller.forward(batch, state, trainer.seed, self.step)
        part, gradient = trainer.objective(pred, batch, is_share)
        parts = {"loss": part}
        if not math.isfinite(part.total):
            return parts, None, state
        parts |= {metric.name: metric(pred, batch) for metric in self.metrics}
        return parts, None if gradient is None else trainer.caller.backward(tape, gradient), state

    def _exchange(self, parts: dict[str, Part]) -> dict[str, Part]:
        """Meet the other ranks in a step, and return the sums of all."""
        seen = getattr(self.source, "seen", 0)
        own = *self._wishes(), self.optimizer.lr, self._rows, seen
        every = self.ranks.exchange(Place.STEP, [*own, *Means(parts).values(self.names)])
        self._hear(every[:, :2])
        self.optimizer.lr, self._rows = every[0, 2], int(every[:, 3].sum())
        differs = every[:, 4] != every[0, 4]
        if differs.any():
            raise self.ranks.error(int(differs.argmax()), "it read another batch than rank 0")
        return split(self.names, every[:, 5:])

    def _wishes(self) -> tuple[bool, bool]:
        """Whether a callback of this rank wants to stop, and whether Ctrl-C came."""
        return self._wants_stop, self._interrupt.requested

    def _all_wishes(self) -> tuple[bool, bool]:
        return self._wishes() if self._flat is None else self._heard

    def _hear(self, wishes: np.ndarray) -> None:
        self._heard = bool(wishes[:, 0].any()), bool(wishes[:, 1].any())

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(what, self.epoch + 1, self.position + 1)

    def _go_back(self, before: Any, batch: Batch, state: Any) -> None:
        """Undo the last step if it is to blame: if the loss of its own batch is no more finite."""
        sums, is_share = Means(), self._flat is not None
        if len(batch.x) or not is_share:
            pred, _ = self.trainer.caller.infer(batch, state)
            sums.add({"loss": self.trainer.objective(pred, batch, is_share)[0]})
        loss = sums.of_all(self.ranks, Place.UNDO, ["loss"]).sums["loss"]
        if not math.isfinite(loss[0]):
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
        if self._flat is not None:
            self._meet()
        self.trainer.epoch += 1
        self.position, self.sums, self.state = 0, Means(), None
        if self._all_wishes()[0]:
            self.stop = "callback"
        elif self.epoch >= self.epochs:
            self.stop = "epochs"
        elif stopping is not None and self.waited >= stopping.patience:
            self.stop = "early stopping"
        if self.saver is not None:
            self.saver.save(self)

    def _meet(self) -> None:
        """Tell the other ranks who was asked to stop, and see that they have the same model."""
        digest = 0
        for array in self.model.parameters().values():
            digest = zlib.crc32(array.tobytes(), digest)
        every = self.ranks.exchange(Place.EPOCH, [*self._wishes(), digest])
        self._hear(every[:, :2])
        differs = every[:, 2] != every[0, 2]
        if differs.any():
            raise self.ranks.error(
                int(differs.argmax()),
                "its parameters are no longer those of rank 0; callbacks that change the model "
                "or the optimizer need the attribute on_every_rank = True",
            )

    def _call(self, method: str) -> None:
        for callback in self.callbacks:
            function = getattr(callback, method, None)
            answer = None if function is None else function(self)
            if isinstance(answer, (bool, np.bool_)) and answer:
                self._wants_stop = True


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
