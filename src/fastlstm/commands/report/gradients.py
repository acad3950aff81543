"""How far back the gradient reaches in the demo's LSTM, and in a plain RNN in its place."""

import contextlib
import time
from typing import Any, NamedTuple

import numpy as np

import fastlstm as fl
from fastlstm.commands.character_model import CharacterModel
from fastlstm.commands.character_training import MOST_EPOCHS, cut, make_trainer
from fastlstm.commands.corpus import Corpus

BEGINNING = 4.0  # seconds of the LSTM's training; the RNN takes the updates of this time
BACK = 128  # characters that a gradient is followed back
PIECES = 16  # of held-out text, in which it is measured at once


class Beginning:
    """A callback that keeps what a fit did in its first seconds.

    Attributes
    ----------
    rates : list of float
        The learning rate of each update.
    parameters : dict of str to array, or None
        Those of the model after these updates; None if there were no more.
    """

    def __init__(self, seconds: float = BEGINNING):
        self.rates: list[float] = []
        self.parameters: dict[str, np.ndarray] | None = None
        self._seconds = seconds

    def on_fit_begin(self, run: Any) -> None:
        self._end = time.perf_counter() + self._seconds

    def on_step_end(self, run: Any) -> None:
        if self.parameters is None:
            self.rates.append(run.optimizer.lr)
            if time.perf_counter() >= self._end:
                self.parameters = run.model.state_dict()


class Fall(NamedTuple):
    """How the gradient of a loss by the hidden state falls on its way back.

    Attributes
    ----------
    name : str
    updates : int
        How many the model has learned from.
    norms : array (characters + 1,)
        The norm of the gradient so many characters back, over that at the loss.
    """

    name: str
    updates: int
    norms: np.ndarray


def compare(
    model: CharacterModel, updates: int, beginning: Beginning, data: Corpus, seed: int
) -> list[Fall]:
    """Measure the trained LSTM; and an RNN beside the LSTM after as many updates.

    The RNN has the same sizes, the same embedding at first, and learns from the same characters in
    the same order at the same learning rates. The loss is the cross entropy of the last character
    of some pieces of held-out text.
    """
    x, target = pieces(model, data.held_out)
    falls = [Fall("LSTM", updates, _fall(model, x, target))]
    if beginning.parameters is not None and len(beginning.rates) < updates:
        early = like(model, seed, fl.LSTM)
        early.layers.load_state_dict(beginning.parameters)
        falls.append(Fall("LSTM", len(beginning.rates), _fall(early, x, target)))
    rnn = like(model, seed, fl.RNN)
    taken = learn(rnn, data.training, beginning.rates)
    falls.append(Fall("RNN", taken, _fall(rnn, x, target)))
    return falls


def like(model: CharacterModel, seed: int, recurrent: Any) -> CharacterModel:
    """Return an untrained model of the same sizes."""
    sizes = model.embedding_size, model.hidden_size
    return CharacterModel(model.known, *sizes, rng=seed, recurrent=recurrent)


def pieces(model: CharacterModel, text: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Return symbols (steps, pieces) of a text, and the symbol that follows each."""
    back = min(BACK, len(text) - 2)
    count = min(PIECES, len(text) // (back + 2))
    symbols = model.encode(text[: count * (back + 2)]).reshape(count, -1).T
    return symbols[:-1], symbols[1:]


def _fall(model: CharacterModel, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    last = np.zeros(x.shape, bool)
    last[-1] = True
    _, dy = fl.losses.cross_entropy(model.layers(x)[0], target, last)
    norms = fl.inspection.gradient_flow(model.layers, x, dy=dy).hidden[::-1]
    fall: np.ndarray = norms / norms[0]
    return fall


def learn(model: CharacterModel, text: bytes, rates: list[float]) -> int:
    """Learn at the given rates, and return the number of updates."""

    class Stop:
        def on_step_end(self, run: Any) -> bool:
            return bool(run.step == len(rates))

    trainer = make_trainer(model, rates.__getitem__)
    with contextlib.suppress(fl.training.DivergedError):  # the model is the last that was finite
        history = trainer.fit(
            cut(model, text), epochs=MOST_EPOCHS, callbacks=Stop(), progress=False
        )
        if history.stopped_by == "interrupt":
            raise KeyboardInterrupt
    return trainer.step
