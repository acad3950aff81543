"""The embedded Reber grammar: the second symbol decides the last but one (Smith & Zipser 1989).

A string is B, then T or P, then a string of Reber's automaton, then T or P as before, then E.
After each symbol the model ranks those that may come next. It has solved the task when the legal
ones come first at all steps of 512 strings, of which it learned from 256.
"""

import sys

import numpy as np

import fastlstm as fl

SYMBOLS = "BTPSXVE"
AUTOMATON = ["T1 P2", "S1 X3", "T2 V4", "X2 S5", "P3 V5", "E6"]  # by state: symbols, next states


def make_string(rng):
    """The numbers of a string's symbols, and for each those that were legal in its place."""
    outer, inner, state = rng.choice(["T", "P"]), [], 0
    while state < len(AUTOMATON):
        edges = AUTOMATON[state].split()
        symbol, state = rng.choice(edges)
        inner.append((symbol, "".join(edges)))
        state = int(state)
    pairs = [("B", "B"), (outer, "TP"), ("B", "B"), *inner, (outer, outer), ("E", "E")]
    legal = [[symbol in allowed for symbol in SYMBOLS] for _, allowed in pairs]
    return np.array([SYMBOLS.index(symbol) for symbol, _ in pairs]), np.array(legal)


class Solved:
    def __init__(self, strings):
        self.x = [np.eye(7)[string[:-1]] for string, _ in strings]
        self.legal = np.concatenate([legal[1:] for _, legal in strings])

    def on_epoch_end(self, run):
        scores = np.concatenate(run.trainer.predict(self.x, batch_size=512))
        lowest_legal = np.where(self.legal, scores, np.inf).min(axis=1)
        return (lowest_legal > np.where(self.legal, -np.inf, scores).max(axis=1)).all()


def solve(cell, budget, seed):
    """Learn from 256 strings; return after how many, or None if `budget` was too few."""
    rng = np.random.default_rng(seed)
    strings = [make_string(rng) for _ in range(512)]
    x, y = [np.eye(7)[s[:-1]] for s, _ in strings[:256]], [s[1:] for s, _ in strings[:256]]
    options = {"forget_bias": 1.0} if cell is fl.LSTM else {}
    model = fl.Sequential(cell(7, 16, rng=seed, **options), fl.Linear(16, 7, rng=seed))
    trainer = fl.Trainer(model, "cross_entropy", fl.optim.Adam(2e-2), clip_norm=1.0, seed=seed)
    options = {"epochs": budget // 256, "callbacks": Solved(strings), "progress": False}
    history = trainer.fit(x, y, batch_size=4, **options)
    return 256 * history.epochs if history.stopped_by == "callback" else None


if __name__ == "__main__":
    for cell in (fl.LSTM,) if "--quick" in sys.argv else (fl.LSTM, fl.RNN):
        took = solve(cell, 8_440, 0)
        print(f"{cell.__name__} needs {took or 'more than 8440'} strings")
        assert took or cell is fl.RNN
