"""Many streams through one model, a tick at a time: they begin, skip ticks, and end.

Each stream has a row of the state, which `step` updates in place.
"""

import numpy as np

import fastlstm as fl

STREAMS, TICKS = 200, 50


def main():
    rng = np.random.default_rng(0)
    model = fl.Sequential(fl.LSTM(1, 32, rng=rng), fl.Linear(32, 1, rng=rng))
    state, initial = model.zero_state(STREAMS), model.zero_state(1)
    seen = [[] for _ in range(STREAMS)]
    for _ in range(TICKS):
        rows = np.flatnonzero(rng.random(STREAMS) < 0.75)  # the others skip this tick
        x = rng.standard_normal((len(rows), 1)).astype(np.float32)
        y = model.step(x, state, rows)
        for row, number, result in zip(rows, x, y, strict=True):
            seen[row].append((number, result))
        ended = rng.integers(STREAMS)
        (h, c), (h0, c0) = state[0], initial[0]
        h[:, ended], c[:, ended] = h0[:, 0], c0[:, 0]  # another stream begins in its row
        seen[ended].clear()
    for pairs in filter(None, seen):  # each stream has what it would have alone
        numbers, results = map(np.array, zip(*pairs, strict=True))
        np.testing.assert_allclose(model(numbers)[0], results, rtol=1e-4, atol=1e-5)
    print(f"{STREAMS} streams, {TICKS} ticks: as each stream alone")


if __name__ == "__main__":
    main()
