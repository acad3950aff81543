"""Backward through time in little memory: `python -m bench.recompute` from the project's root.

One training call, forward and backward, with `recompute="sqrt"` and without, in turns: the memory
beyond x, y and their gradients at its most, as tracemalloc sees it, and the fastest time. Float32,
one core.
"""

import argparse
import sys
import time
import tracemalloc

from bench.limits import limit

T, B, I, H = 10_000, 8, 128, 128
CASES = {
    "LSTM": {},
    "LSTM, two layers": {"num_layers": 2},
    "LSTM, bidirectional": {"bidirectional": True},
    "LSTM, zoneout": {"zoneout": (0.1, 0.1)},
    "GRU": {},
    "RNN": {},
}
MOST_MEMORY, MOST_TIME = 0.10, 1.4  # times the call without


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python -m bench.recompute", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--turns", type=int, default=3, help="default: 3")
    turns = parser.parse_args().turns
    limit(1)
    print(f"{f'T {T}, B {B}, I {I}, H {H}':<28}{'MB':>8}{'less':>8}{'ratio':>8}", end="")
    print(f"{'s':>8}{'longer':>8}{'ratio':>8}")
    for name, options in CASES.items():
        step = make(name.split(",")[0], options)
        memory = [most_memory(step, recompute) for recompute in (None, "sqrt")]
        times = [min(each) for each in zip(*(both_times(step) for _ in range(turns)), strict=True)]
        less, longer = memory[1] / memory[0], times[1] / times[0]
        line = f"{name:<28}{memory[0] / 1e6:>8.1f}{memory[1] / 1e6:>8.1f}{less:>8.3f}"
        line += f"{times[0]:>8.2f}{times[1]:>8.2f}{longer:>8.2f}"
        print(line + "   over" * (less > MOST_MEMORY or longer > MOST_TIME), flush=True)
    return 0


def make(kind: str, options: dict):
    """A function of `recompute` that makes one training call; returns the bytes of y and dx."""
    import numpy as np  # only now that this process is held to its core

    import fastlstm as fl

    fl.set_num_threads(1)
    rng = np.random.default_rng(0)
    layer = getattr(fl, kind)(I, H, rng=rng, **options)
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    dy = rng.standard_normal(layer(x[:1])[0].shape[1:]).astype(np.float32)
    dy = np.ascontiguousarray(np.broadcast_to(dy, (T, *dy.shape)))

    def step(recompute) -> int:
        (y, _), tape = layer.forward(x, recompute=recompute)
        return y.nbytes + layer.backward(tape, dy).x.nbytes + x.nbytes  # the tape has a copy of x

    return step


def most_memory(step, recompute) -> int:
    """Bytes of a call at its most, beyond x, y and their gradients."""
    step(recompute)
    tracemalloc.start()
    given = step(recompute)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - given


def both_times(step) -> list[float]:
    """Seconds without and with `recompute`."""
    taken = []
    for recompute in (None, "sqrt"):
        start = time.perf_counter()
        step(recompute)
        taken.append(time.perf_counter() - start)
    return taken


if __name__ == "__main__":
    sys.exit(main())
