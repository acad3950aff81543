"""Data, models and small tools for tests of training."""

import numpy as np

import fastlstm as fl

LENGTHS = 7, 3, 5, 1, 9, 3, 2, 8, 4, 6, 5


def ragged(rng, lengths=LENGTHS, features=3):
    """Sequences, and running sums of them."""
    x = [rng.standard_normal((n, features)) for n in lengths]
    return x, [one.cumsum(axis=0)[:, :2] for one in x]


def padded(sequences, filler=np.nan):
    """Sequences as one array, with a filler behind each end."""
    T = max(map(len, sequences))
    array = np.full((len(sequences), T, *sequences[0].shape[1:]), filler)
    for row, one in zip(array, sequences, strict=True):
        row[: len(one)] = one
    return array


def tagger(batch_first=False, dropout=0.0, dtype=np.float64):
    """A model that predicts two numbers a step."""
    return fl.Sequential(
        fl.LSTM(3, 4, batch_first=batch_first, dtype=dtype, rng=0),
        fl.Dropout(dropout),
        fl.Linear(4, 2, dtype=dtype, rng=0),
    )


def equal(model, other):
    """Whether two models have the same bits."""
    ours, theirs = (
        one.state_dict() if isinstance(one, fl.Module) else one for one in (model, other)
    )
    return all((ours[name] == theirs[name]).all() for name in ours)


class Watch:
    """A callback that notes when it is called, and asks to stop at a step or after an epoch."""

    def __init__(self, step=None, epoch=None, do=lambda run: True):
        self.step, self.epoch, self.do = step, epoch, do
        self.losses, self.epochs, self.begun, self.ended = [], [], 0, 0

    def on_fit_begin(self, run):
        self.begun += 1

    def on_step_end(self, run):
        self.losses.append(run.logs["loss"])
        return self.do(run) if run.step == self.step else None

    def on_epoch_end(self, run):
        self.epochs.append(run.logs)
        return self.do(run) if run.epoch == self.epoch else None

    def on_fit_end(self, run):
        self.ended += 1
