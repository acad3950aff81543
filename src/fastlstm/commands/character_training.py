"""Training of a character model for a given time."""

import math
import sys
import time
from typing import Any

import numpy as np

import fastlstm as fl
from fastlstm.commands.character_model import CharacterModel

ROWS = 16  # parts of the text that are read in parallel
STEPS = 64  # characters between two updates; the state is carried over, its gradient is not
LEARNING_RATE = 6e-3
BETAS = (0.8, 0.99)  # Adam's; short averages, since there are only a few thousand updates
LARGEST_NORM = 1.0  # of the gradients; larger ones are scaled down
MOST_EPOCHS = 2**31 - 1  # the time ends the training
SLICES = 120  # parts of the training time: points of the loss curve
RUNNING_STEPS = 50  # steps of the running mean of the loss


class LossCurve:
    """The loss over time: its mean in every slice of the training time, and a running mean.

    Attributes
    ----------
    running : float
        Bits per character: the mean of the first steps, an exponential mean later.
    """

    def __init__(self, seconds: float):
        self.running = 0.0
        self._slice = seconds / SLICES
        self._sums: dict[int, tuple[float, int]] = {}
        self._steps = 0

    def add(self, elapsed: float, loss: float) -> None:
        """Add a loss in nats."""
        bits = loss / math.log(2)
        self._steps += 1
        self.running += (bits - self.running) / min(self._steps, RUNNING_STEPS)
        number = int(elapsed / self._slice)
        total, count = self._sums.get(number, (0.0, 0))
        self._sums[number] = total + bits, count + 1

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of the curve: seconds, and bits per character."""
        seconds = [(number + 0.5) * self._slice for number in self._sums]
        return np.array(seconds), np.array([total / count for total, count in self._sums.values()])


class Clock:
    """Ends a fit after some seconds, and displays them; gives the learning rate meanwhile.

    Parameters
    ----------
    seconds : float
    tqdm : type
        The class of the progress bar.

    Attributes
    ----------
    curve : LossCurve
    elapsed : float
        Seconds of training so far.
    """

    def __init__(self, seconds: float, tqdm: Any):
        self.curve = LossCurve(seconds)
        self.elapsed = 0.0
        self._seconds = seconds
        self._tqdm = tqdm

    def learning_rate(self, step: int) -> float:
        """Return that of the present moment: a cosine of the time, down to 0."""
        share = min(self.elapsed / self._seconds, 1.0)
        return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * share))

    def on_fit_begin(self, run: Any) -> None:
        self._start = time.perf_counter()

    def on_step_end(self, run: Any) -> bool:
        self.elapsed = time.perf_counter() - self._start
        self.curve.add(self.elapsed, run.logs["loss"])
        if run.step == 1:
            self._progress = self._make_progress()
        self._progress.set_postfix_str(
            f"loss {self.curve.running * math.log(2):.3f}, "
            f"{self.curve.running:.3f} bits per character, "
            f"{run.step * ROWS * STEPS / self.elapsed:,.0f} characters/s",
            refresh=False,
        )
        self._progress.update(min(self.elapsed, self._seconds) - self._progress.n)
        return self.elapsed >= self._seconds

    def on_fit_end(self, run: Any) -> None:
        if run.step:
            self._progress.close()

    def _make_progress(self) -> Any:
        return self._tqdm(
            total=self._seconds,
            bar_format="{percentage:3.0f}%|{bar:24}| {n:.1f}/{total:g} s{postfix}",
            mininterval=0.25 if sys.stderr.isatty() else 5.0,  # seconds; few lines in a log
        )


def cut(model: CharacterModel, text: bytes) -> fl.training.Streams:
    """Return the text in `ROWS` parts of whole steps, each read from its beginning."""
    symbols = model.encode(text)[: _length(text) * ROWS + 1]
    return fl.training.Streams(symbols[:-1], symbols[1:], rows=ROWS, steps=STEPS)


def make_trainer(model: CharacterModel, schedule: Any = None) -> fl.Trainer:
    """Return a trainer of the model; the learning rate is constant without a schedule."""
    optimizer = fl.optim.Adam(LEARNING_RATE, betas=BETAS)
    return fl.Trainer(
        model.layers, "cross_entropy", optimizer, schedule=schedule, clip_norm=LARGEST_NORM
    )


def train(
    model: CharacterModel, text: bytes, seconds: float, tqdm: Any, watch: Any = None
) -> tuple[LossCurve, float, int]:
    """Train for `seconds`, or until Ctrl-C after the first step.

    Parameters
    ----------
    model : CharacterModel
    text : bytes
        Long enough for one step.
    seconds : float
    tqdm : type
        The class of the progress bar.
    watch : object, optional
        A callback.

    Returns
    -------
    curve : LossCurve
    elapsed : float
        Seconds of training.
    characters : int
        Number of characters read; those read again count again.
    """
    clock = Clock(seconds, tqdm)
    trainer = make_trainer(model, clock.learning_rate)
    callbacks = [clock] if watch is None else [clock, watch]
    trainer.fit(cut(model, text), epochs=MOST_EPOCHS, callbacks=callbacks, progress=False)
    if not trainer.step:
        raise KeyboardInterrupt
    return clock.curve, clock.elapsed, trainer.step * ROWS * STEPS


def text_read(text: bytes, characters: int) -> bytes:
    """Return the part of the text of which `characters` were read, each character once."""
    length = _length(text)
    read = min(characters // ROWS, length) + 1  # the last one was only predicted
    return b"".join(text[row * length :][:read] for row in range(ROWS))


def _length(text: bytes) -> int:
    """The characters that a part of the text has."""
    return (len(text) - 1) // (ROWS * STEPS) * STEPS
