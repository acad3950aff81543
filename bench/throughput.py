"""Training steps of a character model beside torch's: `python -m bench.throughput`.

A step is all of a training loop's body: logits of an Embedding, an LSTM of two layers and a Linear
layer, cross-entropy, backward, and Adam; torch's is eager, with its fused Adam. Both begin with the
same weights and read the same batches. Float32, one core, hot turns of both.
"""

import argparse
import sys
from collections.abc import Callable
from itertools import cycle

from bench.limits import limit
from bench.turns import medians, protocol

CLASSES, LAYERS, BATCHES = 96, 2, 16
CASES = (  # B, T, H, and how many times as fast as torch it is to be
    (32, 100, 256, 1.0),
    (8, 100, 128, 1.2),
    (1, 20, 32, 4.0),
)
TOLERANCE = 1e-4


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m bench.throughput", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="a row; default: 10")
    parser.add_argument("--steps", type=int, help="T, in place of that of each row")
    options = parser.parse_args()
    limit(1)
    how = protocol(cold=False)
    print(
        how.describe(), f"{'B, T, H':<14}{'ms':>8}{'torch':>8}{'times':>8}{'wanted':>8}", sep="\n"
    )
    for B, T, H, wanted in CASES:
        shape = B, options.steps or T, H
        ours, theirs = steps(*shape)
        loss, expected = ours(), theirs()
        if abs(loss - expected) > TOLERANCE:
            print(f"the first loss DIFFERS: {loss}, torch's {expected}")
            return 1
        found = medians({"ours": ours, "torch": theirs}, how, options.seconds, 3)
        times = found["torch"] / found["ours"]
        milliseconds = "".join(f"{1e3 * seconds:>8.3f}" for seconds in found.values())
        label = ", ".join(map(str, shape))
        print(f"{label:<14}{milliseconds}{times:>8.2f}{wanted:>8.1f}", flush=True)
    return 0


def steps(B: int, T: int, H: int) -> tuple[Callable[[], float], Callable[[], float]]:
    """A training step of fastlstm's model, and of torch's; each returns its loss."""
    # Only now that this process is held to its core: these import NumPy.
    import numpy as np
    import torch

    import fastlstm as fl

    fl.set_num_threads(1)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    text = rng.integers(CLASSES, size=(BATCHES, T + 1, B))
    batches = [(batch[:-1], batch[1:]) for batch in text]

    model = fl.Sequential(
        fl.Embedding(CLASSES, H, rng=rng),
        fl.LSTM(H, H, LAYERS, rng=rng),
        fl.Linear(H, CLASSES, rng=rng),
    )
    optimizer = fl.optim.Adam()
    ours = cycle(batches)

    def step() -> float:
        x, target = next(ours)
        (logits, _), tape = model.forward(x)
        loss, d_logits = fl.losses.cross_entropy(logits, target)
        optimizer.step(model, model.backward(tape, d_logits))
        return loss

    layers = torch.nn.ModuleList(
        [torch.nn.Embedding(CLASSES, H), torch.nn.LSTM(H, H, LAYERS), torch.nn.Linear(H, CLASSES)]
    )
    embedding, lstm, linear = layers
    layers.load_state_dict(
        {name: torch.from_numpy(array) for name, array in model.state_dict().items()}
    )
    their_optimizer = torch.optim.Adam(layers.parameters(), fused=True)
    theirs = cycle([tuple(map(torch.from_numpy, batch)) for batch in batches])

    def torch_step() -> float:
        x, target = next(theirs)
        logits = linear(lstm(embedding(x))[0])
        loss = torch.nn.functional.cross_entropy(logits.view(-1, CLASSES), target.reshape(-1))
        their_optimizer.zero_grad()
        loss.backward()
        their_optimizer.step()
        return loss.item()

    return step, torch_step


if __name__ == "__main__":
    sys.exit(main())
