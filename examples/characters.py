"""A character model: it learns the next byte of a text, here of Python's own source, and writes.

The text is one long stream. The state is carried over from batch to batch; gradients are not.
"""

import argparse  # the text
import sys
from math import log
from pathlib import Path

import numpy as np

import fastlstm as fl


def write(model, prompt, count, rng):
    """Draw `count` bytes one by one; each is the input of the next step."""
    written = list(prompt)
    logits, state = model(np.array(written)[:, None])
    for _ in range(count):
        odds = np.exp(1.5 * (logits[-1, 0] - logits[-1, 0].max()))  # sharpened a little
        written.append(rng.choice(len(odds), p=odds / odds.sum()))
        logits, state = model(np.array([written[-1:]]), state)
    return bytes(written).decode(errors="replace")


def main():
    epochs, bar = (1, 4.0) if "--quick" in sys.argv else (12, 2.5)
    text = np.frombuffer(Path(argparse.__file__).read_bytes(), np.uint8).clip(max=127)
    if "--quick" in sys.argv:
        text = text[:40_000]
    rng = np.random.default_rng(0)
    model = fl.Sequential(
        fl.Embedding(128, 32, rng=rng), fl.LSTM(32, 128, rng=rng), fl.Linear(128, 128, rng=rng)
    )
    streams = fl.training.Streams(text[:-1], text[1:], rows=8, steps=32)
    trainer = fl.Trainer(model, "cross_entropy", fl.optim.Adam(5e-3), clip_norm=1.0)
    history = trainer.fit(streams, epochs=epochs, validation=0.1)  # its tail
    bits = history["val_loss"].min() / log(2)
    print(write(model, b"def ", 300, rng))
    print(f"{bits:.2f} bits a character at the end of the text, which it has not learned from")
    assert bits < bar, f"expected less than {bar} bits"


if __name__ == "__main__":
    main()
