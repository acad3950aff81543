"""Sequences of any lengths, classified by an LSTM that reads them in both directions.

Each is a noisy tone whose pitch rises, falls or stays. The model sees 10 to 60 steps of one number.
"""

import sys

import numpy as np

import fastlstm as fl

RISE = np.array([0.0, 0.5, -0.5])  # of the pitch, by class


def make_tones(rng, count):
    """Return a list of arrays (T_k, 1), and the class of each."""
    labels, tones = rng.integers(3, size=count), []
    for label in labels:
        steps = np.arange(rng.integers(10, 61))
        pitch = 0.7 + RISE[label] * (steps / len(steps) - 0.5)
        tone = np.sin(rng.uniform(0, 2 * np.pi) + pitch.cumsum())
        tones.append((tone + 0.1 * rng.standard_normal(len(steps)))[:, None])
    return tones, labels


def main():
    epochs, bar = (6, 0.6) if "--quick" in sys.argv else (30, 0.9)
    rng = np.random.default_rng(0)
    x, labels = make_tones(rng, 1000)
    model = fl.Sequential(
        fl.LSTM(1, 24, bidirectional=True, rng=rng),
        fl.Last(),  # where each direction ends: 24 numbers of each
        fl.Linear(48, 3, rng=rng),
    )
    trainer = fl.Trainer(model, "cross_entropy", fl.optim.Adam(1e-2), clip_norm=1.0)
    stop = fl.training.EarlyStopping(patience=5)
    trainer.fit(x, labels, epochs=epochs, validation=0.2, metrics="accuracy", early_stopping=stop)
    x, labels = make_tones(rng, 500)
    accuracy = trainer.evaluate(x, labels)["accuracy"]
    classes = trainer.predict(x[:8]).argmax(axis=1)
    print(f"{accuracy:.1%} of new tones are right; the first: {classes}, and in truth {labels[:8]}")
    assert accuracy > bar, f"expected an accuracy above {bar}"


if __name__ == "__main__":
    main()
