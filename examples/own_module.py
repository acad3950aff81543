"""A model of two branches: one remembers how a sequence began, the other averages it.

The target of a sequence is the sign of its first number, plus the mean of its second feature.
"""

import numpy as np

import fastlstm as fl


class TwoBranches(fl.Module):
    """An LSTM's last output and the mean over all steps, each through a linear layer, added up."""

    def __init__(self, features, hidden_size, rng=None):
        self.features, self.hidden_size = features, hidden_size
        self.lstm = fl.LSTM(features, hidden_size, forget_bias=1.0, rng=rng)
        self.last = fl.Linear(hidden_size, 1, rng=rng)
        self.mean = fl.Linear(features, 1, rng=rng)

    def __call__(self, x):
        y, _ = self.lstm(x)
        return self.last(y[-1]) + self.mean(x.mean(axis=0))

    def forward(self, x):
        (y, _), lstm_tape = self.lstm.forward(x)
        from_last, last_tape = self.last.forward(y[-1])
        from_mean, mean_tape = self.mean.forward(x.mean(axis=0))
        return from_last + from_mean, (x.shape, lstm_tape, last_tape, mean_tape)

    def backward(self, tape, dresult):
        (T, B, _), lstm_tape, last_tape, mean_tape = tape
        mean = self.mean.backward(mean_tape, dresult)
        last = self.last.backward(last_tape, dresult)
        dy = np.zeros((T, B, self.hidden_size), np.float32)
        dy[-1] = last.x
        lstm = self.lstm.backward(lstm_tape, dy)
        return self.collect(x=lstm.x + mean.x / T, lstm=lstm, last=last, mean=mean)


def main():
    rng = np.random.default_rng(0)
    model, optimizer = TwoBranches(2, 24, rng=rng), fl.optim.Adam(lr=0.01)
    for step in range(401):
        x = rng.standard_normal((10, 64, 2)).astype(np.float32)  # steps, sequences, features
        target = np.sign(x[0, :, :1]) + x[:, :, 1:].mean(axis=0)
        result, tape = model.forward(x)
        loss, dresult = fl.losses.mse(result, target)
        grads = model.backward(tape, dresult)
        fl.optim.clip_grad_norm(grads, 1.0)
        optimizer.step(model, grads)
        if step % 100 == 0:
            print(f"step {step:3}: loss {loss:.3f}")
    assert loss < 0.2, f"expected a loss below 0.2, got {loss:.3f}"


if __name__ == "__main__":
    main()
