"""The time of a training step of the demo, in the backend in use and in the reference."""

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastlstm as fl
from fastlstm.commands import one_thread
from fastlstm.commands.character_model import CharacterModel
from fastlstm.commands.character_training import ROWS, STEPS, cut, make_trainer

ROUNDS = 6
MOST_SECONDS = 3.0


def measure(model: Path) -> dict[str, float]:
    """Return the seconds of a step by backend, on one thread, for the model saved at a path."""
    result = one_thread.run(__name__, str(model), capture=True)
    if result.returncode:
        raise RuntimeError(f"the timing of single steps failed:\n{result.stderr}")
    times: dict[str, float] = json.loads(result.stdout)
    return times


def shortest_steps(model: Path) -> dict[str, float]:
    """Return the seconds of the shortest of a few steps by backend; the backends alternate."""
    steps = {name: _step(model) for name in (fl.backend(), "reference")}
    shortest = dict.fromkeys(steps, math.inf)
    end = time.perf_counter() + MOST_SECONDS
    for _ in range(ROUNDS):
        for name, step in steps.items():
            with fl.use_backend(name):
                start = time.perf_counter()
                step()
                shortest[name] = min(shortest[name], time.perf_counter() - start)
        if time.perf_counter() > end:
            break
    return shortest


def _step(path: Path) -> Callable[[], Any]:
    """A fit of one step."""
    model = CharacterModel.load(path)
    text = np.random.default_rng(0).choice(model.known, ROWS * STEPS + 1)
    fit, streams = make_trainer(model).fit, cut(model, text.tobytes())
    return partial(fit, streams, epochs=1, progress=False)


if __name__ == "__main__":
    fl.set_num_threads(1)
    print(json.dumps(shortest_steps(Path(sys.argv[1]))))
