"""Training of a character model for a given time."""

import math
import signal
import sys
import time
from types import FrameType
from typing import Any

import numpy as np

import fastlstm as fl
from fastlstm.commands.character_model import CharacterModel

ROWS = 16  # parts of the text that are read in parallel
STEPS = 64  # characters between two updates; the state is carried over, its gradient is not
LEARNING_RATE = 6e-3
BETAS = (0.8, 0.99)  # Adam's; short averages, since there are only a few thousand updates
LARGEST_NORM = 1.0  # of the gradients; larger ones are scaled down
SLICES = 120  # parts of the training time: points of the loss curve
RUNNING_STEPS = 50  # steps of the running mean of the loss


class Trainer:
    """Stateful truncated back-propagation through time with Adam.

    Parameters
    ----------
    model : CharacterModel
    text : bytes
        Divided into `ROWS` equal streams, each read from its beginning; long enough for one step.

    Attributes
    ----------
    characters : int
        Number of characters read so far; those read again count again.
    """

    def __init__(self, model: CharacterModel, text: bytes):
        self.model = model
        self.characters = 0
        self._text = text
        self._length = len(text) // ROWS
        symbols = model.encode(text)[: ROWS * self._length]
        self._streams = symbols.reshape(ROWS, self._length).T  # [length, B]
        self._optimizer = fl.optim.Adam(lr=LEARNING_RATE, betas=BETAS)
        self._position = 0
        self._state: Any = None

    def step(self, learning_rate: float) -> float:
        """Do one update, and return the loss before it, in nats per character."""
        if self._position + STEPS >= self._length:
            self._position, self._state = 0, None
        window = self._streams[self._position : self._position + STEPS + 1]
        layers = self.model.layers
        (logits, self._state), tape = layers.forward(window[:-1], self._state)
        loss, d_logits = fl.losses.cross_entropy(logits, window[1:])
        gradients = layers.backward(tape, d_logits)
        fl.optim.clip_grad_norm(gradients, LARGEST_NORM)
        self._optimizer.lr = learning_rate
        self._optimizer.step(layers, gradients)
        self._position += STEPS
        self.characters += STEPS * ROWS
        return loss

    def text_read(self) -> bytes:
        """Return the part of the text that was read, each character once."""
        read = min(self.characters // ROWS + 1, self._length)
        streams = (self._text[row * self._length :][:read] for row in range(ROWS))
        return b"".join(streams)


class History:
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

    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the points of the curve: seconds, and bits per character."""
        seconds = [(number + 0.5) * self._slice for number in self._sums]
        return np.array(seconds), np.array([total / count for total, count in self._sums.values()])


class InterruptOnce:
    """Within the block, the first Ctrl-C only sets `requested`; the next one interrupts."""

    requested = False

    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def train(trainer: Trainer, seconds: float, tqdm: Any) -> tuple[History, float]:
    """Train for `seconds`, or until Ctrl-C, but at least one step.

    The learning rate follows a cosine to 0.

    Parameters
    ----------
    trainer : Trainer
    seconds : float
    tqdm : type
        The class of the progress bar.

    Returns
    -------
    history : History
    elapsed : float
        Seconds of training.
    """
    history = History(seconds)
    interrupt = InterruptOnce()
    bar_format = "{percentage:3.0f}%|{bar:24}| {n:.1f}/{total:g} s{postfix}"
    pause = 0.25 if sys.stderr.isatty() else 5.0  # seconds; few lines in a log
    with interrupt, tqdm(total=seconds, bar_format=bar_format, mininterval=pause) as progress:
        start = time.perf_counter()
        elapsed, more = 0.0, True
        while more:
            share = elapsed / seconds
            loss = trainer.step(LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * share)))
            elapsed = time.perf_counter() - start
            more = elapsed < seconds and not interrupt.requested
            history.add(elapsed, loss)
            progress.set_postfix_str(
                f"loss {history.running * math.log(2):.3f}, "
                f"{history.running:.3f} bits per character, "
                f"{trainer.characters / elapsed:,.0f} characters/s",
                refresh=False,
            )
            progress.update(min(elapsed, seconds) - progress.n)
    return history, elapsed
