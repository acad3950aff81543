"""`fastlstm bench`: times of the builds, the reference, and torch if it is installed."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastlstm as fl
from fastlstm.commands import one_thread

SHAPES = [  # T, B, I, H
    (1000, 1, 1, 40),
    (200, 1, 64, 128),
    (100, 8, 64, 128),
    (100, 32, 64, 128),
    (100, 256, 16, 64),
]
SECONDS_PER_ROW = 4.5  # for all engines together
FEWEST_ROUNDS, MOST_ROUNDS = 3, 300


class Engine(NamedTuple):
    """One way to compute a layer."""

    name: str
    infer: Callable[[], np.ndarray]  # returns the output
    train: Callable[[], np.ndarray]  # returns the gradient of the input


def run() -> int:
    """Print the table from a new process with one thread, and return its exit status."""
    return one_thread.run("fastlstm.commands.bench").returncode


def main() -> int:
    """Print the table, and return the exit status: 1 if the results of engines differ."""
    fl.set_num_threads(1)
    torch = _torch()
    names = [*fl.backends(), *([f"torch {torch.__version__.split('+')[0]}"] if torch else [])]
    print("One LSTM layer, float32, one thread. µs: medians of runs taken turn about.")
    for mode in ("infer", "train"):
        what = "Inference" if mode == "infer" else "Forward and backward"
        print(f"\n{what:<22}" + "".join(f"{name:>14}" for name in names))
        for shape in SHAPES:
            engines = _engines(shape, torch)
            runs = [getattr(engine, mode) for engine in engines]
            disagreement = _disagreement([engine.name for engine in engines], runs)
            if disagreement:
                print(f"{shape}: {disagreement}", file=sys.stderr)
                return 1
            medians = _medians(runs)
            label = "{}, {}, {}, {}".format(*shape)
            print(f"{label:<22}" + "".join(f"{median * 1e6:>14.0f}" for median in medians))
            ratios = "".join(f"{f'× {median / medians[0]:.2f}':>14}" for median in medians)
            print(f"{'':<22}{ratios}", flush=True)
    print(f"\nShapes: T, B, I, H. ×: how many times the time of {names[0]}.")
    return 0


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return None
    torch.set_num_threads(1)
    return torch


def _engines(shape: tuple[int, int, int, int], torch: Any) -> list[Engine]:
    """Every backend, and torch if there is one, with the same parameters and input."""
    T, B, I, H = shape
    rng = np.random.default_rng(0)
    lstm = fl.LSTM(I, H, rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    dy = rng.standard_normal((T, B, H), np.float32)
    engines = [_build(name, lstm, x, dy) for name in fl.backends()]
    return [*engines, _torch_engine(torch, lstm, x, dy)] if torch else engines


def _build(name: str, lstm: fl.LSTM, x: np.ndarray, dy: np.ndarray) -> Engine:
    def infer() -> np.ndarray:
        with fl.use_backend(name):
            y: np.ndarray = lstm(x)[0]
        return y

    def train() -> np.ndarray:
        with fl.use_backend(name):
            _, tape = lstm.forward(x)
            dx: np.ndarray = lstm.backward(tape, dy).x
        return dx

    return Engine(name, infer, train)


def _torch_engine(torch: Any, lstm: fl.LSTM, x: np.ndarray, dy: np.ndarray) -> Engine:
    peer = torch.nn.LSTM(lstm.input_size, lstm.hidden_size)
    peer.load_state_dict({k: torch.from_numpy(v) for k, v in lstm.state_dict().items()})
    tensor, gradient = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

    def infer() -> np.ndarray:
        with torch.inference_mode():
            y: np.ndarray = peer(tensor)[0].numpy()
        return y

    def train() -> np.ndarray:
        peer.zero_grad()
        tensor.grad = None
        peer(tensor)[0].backward(gradient)
        dx: np.ndarray = tensor.grad.numpy()
        return dx

    return Engine("torch", infer, train)


def _disagreement(names: list[str], runs: list[Callable[[], np.ndarray]]) -> str | None:
    """Run every engine once; describe one that differs from the first by more than rounding."""
    first, *others = [run() for run in runs]
    scale = np.abs(first).max()
    for name, other in zip(names[1:], others, strict=True):
        difference = np.abs(first - other).max() / scale
        if not difference < 1e-4:
            return f"{names[0]} and {name} differ by {difference:.1e} of the largest value"
    return None


def _medians(runs: list[Callable[[], np.ndarray]]) -> list[float]:
    """Median seconds of each run, from as many rounds as the time for a row allows."""
    times: list[list[float]] = [[] for _ in runs]
    end = time.perf_counter() + SECONDS_PER_ROW
    for number in range(MOST_ROUNDS):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for run, series in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            series.append(time.perf_counter() - start)
    return [statistics.median(series) for series in times]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
