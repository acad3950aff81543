"""See the gates of an LSTM that learned to add the two marked numbers of a sequence.

Its input gate opens at the marks and its forget gate keeps the sum. Draws docs/pictures/gates.png,
and in flow.png the gradient of an LSTM and of a plain RNN on the way back through 200 steps.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt  # pip install "fastlstm[plot]"
import numpy as np

import fastlstm as fl

T, FOLDER = 50, Path(__file__).parents[1] / "docs" / "pictures"


def make_batch(rng, rows=16):
    """Rows of T steps, each a number and a mark; and the sum of the marked numbers."""
    numbers, marks = rng.uniform(-1, 1, (T, rows)), np.zeros((T, rows))
    for half in (0, T // 2):
        marks[half + rng.integers(T // 2, size=rows), np.arange(rows)] = 1
    return np.stack([numbers, marks], axis=2), (numbers * marks).sum(axis=0)[:, None]


def train(batches):
    lstm, rng = fl.LSTM(2, 8, init="chrono", t_max=T, rng=0), np.random.default_rng(0)
    model, optimizer = fl.Sequential(lstm, fl.Last(), fl.Linear(8, 1, rng=0)), fl.optim.Adam(1e-2)
    for _ in range(batches):
        x, y = make_batch(rng)
        (pred, _), tape = model.forward(x)
        loss, dy = fl.losses.mse(pred, y)
        grads = model.backward(tape, dy)
        fl.optim.clip_grad_norm(grads, 1.0)
        optimizer.step(model, grads)
    return model, loss


def draw(model):
    x, _ = make_batch(np.random.default_rng(3), rows=200)
    trace = fl.inspection.trace(model, x)
    layer = trace.layers[0]
    written = layer.save * layer.candidate * x[..., :1] * x[..., 1:]  # of the marked numbers
    gates, flow = (plt.subplots(figsize=(12, 5), layout="constrained") for _ in range(2))
    axes = trace.plot(unit=written.sum(axis=(0, 1)).argmax(), ax=gates[1])
    above = {"loc": "lower right", "bbox_to_anchor": (1, 0.97), "frameon": False}
    axes[0].legend(["number", "mark"], ncols=2, fontsize="small", **above)
    cells = {"RNN": fl.RNN(2, 64, rng=0), "LSTM": fl.LSTM(2, 64, init="chrono", t_max=200, rng=0)}
    steps = np.random.default_rng(0).normal(size=(200, 1, 2))
    fl.inspection.compare_flow(cells, steps).plot(ax=flow[1])
    return {"gates": gates[0], "flow": flow[0]}


if __name__ == "__main__":
    model, loss = train(200 if "--quick" in sys.argv else 6_000)
    print(f"mean squared error of the last batch: {loss:.5f}")
    for name, figure in draw(model).items():
        if "--quick" not in sys.argv:
            figure.savefig(FOLDER / f"{name}.png", dpi=96)
