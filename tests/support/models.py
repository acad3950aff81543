"""Models that a user writes, on `fl.Module`'s public names alone."""

import numpy as np

import fastlstm as fl


class Residual(fl.Module):
    """A recurrent layer with a residual connection and a learned scale."""

    def __init__(self, size, rng=None):
        self.size = size
        self.lstm = fl.LSTM(size, size, dtype=np.float64, rng=rng)
        self.define(scale=np.linspace(0.5, 1.5, size))

    def __call__(self, x):
        return x + self.scale * self.lstm(x)[0]

    def forward(self, x):
        (y, _), tape = self.lstm.forward(x)
        return x + self.scale * y, (tape, y)

    def backward(self, tape, dresult):
        tape, y = tape
        grads = self.lstm.backward(tape, self.scale * dresult)
        dscale = (y * dresult).sum(axis=(0, 1))
        return self.collect(x=dresult + grads.x, lstm=grads, scale=dscale)


class Branches(fl.Module):
    """Two branches over the same x, one of them a `Sequential`; the results stand side by side."""

    def __init__(self, size, rng=None):
        self.size = size
        self.gru = fl.GRU(size, 3, bidirectional=True, dtype=np.float64, rng=rng)
        self.dense = fl.Sequential(
            fl.Linear(size, 4, dtype=np.float64, rng=rng),
            fl.Linear(4, 2, dtype=np.float64, rng=rng),
        )

    def __call__(self, x):
        return np.concatenate([self.gru(x)[0], self.dense(x)], axis=-1)

    def forward(self, x):
        (y, _), gru_tape = self.gru.forward(x)
        z, dense_tape = self.dense.forward(x)
        return np.concatenate([y, z], axis=-1), (gru_tape, dense_tape)

    def backward(self, tape, dresult):
        gru = self.gru.backward(tape[0], dresult[..., :6])
        dense = self.dense.backward(tape[1], dresult[..., 6:])
        return self.collect(x=gru.x + dense.x, gru=gru, dense=dense)


class TwoResults(fl.Module):
    """A residual block, whose output is one result, and a line through it, which is the other."""

    def __init__(self, size, rng=None):
        self.size = size
        self.block = Residual(size, rng=rng)
        self.line = fl.Linear(size, 2, dtype=np.float64, rng=rng)

    def __call__(self, x):
        y = self.block(x)
        return y, self.line(y[-1])

    def forward(self, x):
        y, block_tape = self.block.forward(x)
        last, line_tape = self.line.forward(y[-1])
        return (y, last), (block_tape, line_tape)

    def backward(self, tape, dresult):
        dy, dlast = dresult
        line = self.line.backward(tape[1], dlast)
        dy = dy.copy()
        dy[-1] += line.x
        block = self.block.backward(tape[0], dy)
        return self.collect(x=block.x, line=line, block=block)


class Recurrent(fl.Module):
    """A recurrent model: calls take and return a state, and what else recurrent layers take."""

    is_recurrent = True

    def __init__(self, size, rng=None):
        self.size = size
        self.rnn = fl.RNN(size, size, dtype=np.float64, rng=rng)

    def __call__(self, x, state=None, **options):
        y, state = self.rnn(x, state, **options)
        return x * y, state

    def forward(self, x, state=None, **options):
        (y, state), tape = self.rnn.forward(x, state, **options)
        return (x * y, state), (tape, x, y)

    def backward(self, tape, dresult, dstate=None, **options):
        tape, x, y = tape
        rnn = self.rnn.backward(tape, x * dresult, dstate, **options)
        return self.collect(x=rnn.x + y * dresult, state=rnn.state, rnn=rnn)


class Swap(fl.Module):
    """The axes of steps and rows, swapped."""

    def __call__(self, x):
        return x.swapaxes(0, 1)

    def forward(self, x):
        return self(x), None

    def backward(self, tape, dresult):
        return self.collect(x=self(dresult))
