"""Streams that skip ticks, beside a plain batch: `python -m bench.streams` from the project's root.

A layer holds the state of many streams, of which a random three quarters make a step at each tick:
`layer.step(x, state, rows)`. Beside it stands `layer(x, state)` with a batch of as many rows, and
its time is the unit. Float32, one core, hot turns of all.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import cycle
from typing import Any

from bench.limits import limit
from bench.turns import medians, protocol

SHAPES = ((1, 1, 40), (8, 1, 40), (200, 1, 40), (200, 40, 40), (200, 64, 128))  # streams, I, H
MOST = 1.1  # times the plain batch


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.streams", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="a row; default: 5")
    options = parser.parse_args()
    limit(1)
    how = protocol(cold=False)
    print(how.describe(), f"{'streams, I, H':<22}{'plain µs':>10}{'step':>8}{'out=':>8}", sep="\n")
    for cell in ("LSTM", "GRU"):
        for shape in SHAPES:
            runs = make(cell, *shape)
            found = medians(runs, how, options.seconds, 3)
            step, into = (found[name] / found["plain"] for name in ("step", "out="))
            text = f"{cell} {', '.join(map(str, shape))}"
            line = f"{text:<22}{found['plain'] * 1e6:>10.2f}{step:>8.2f}{into:>8.2f}"
            print(line + "   over" * (max(step, into) > MOST))
    return 0


def make(cell: str, streams: int, I: int, H: int) -> dict[str, Callable[[], Any]]:
    """The plain batch, the same rows by `step`, and `step` with `out`."""
    # Only now that this process is held to its core: these import NumPy.
    import numpy as np

    import fastlstm as fl

    fl.set_num_threads(1)
    rng = np.random.default_rng(0)
    layer = getattr(fl, cell)(I, H, rng=rng)
    n = max(1, 3 * streams // 4)
    ticks = cycle([np.sort(rng.permutation(streams)[:n]) for _ in range(64)])
    x, state = rng.standard_normal((n, I)).astype(np.float32), layer.zero_state(streams)
    out = np.empty((n, H), np.float32)
    return {
        "plain": partial(layer, x[None], layer.zero_state(n)),
        "step": lambda: layer.step(x, state, next(ticks)),
        "out=": lambda: layer.step(x, state, next(ticks), out),
    }


if __name__ == "__main__":
    sys.exit(main())
