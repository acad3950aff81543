"""The display of training: tqdm in terminals and notebooks, else a line for each epoch."""

import sys
import time
from collections.abc import Mapping
from typing import Any

PAUSE = 0.1  # seconds between two updates of the bar


class Progress:
    """Nothing is displayed."""

    def __init__(self, epochs: int, first: int, size: int | None):
        self.epochs, self.first, self.size = epochs, first, size
        self.rows = 0  # computed so far by this fit
        self._start = self._shown = time.perf_counter()

    def step(self, epoch: int, rows: int, loss: float) -> None:
        self.rows += rows

    def epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class Lines(Progress):
    """A line for each epoch."""

    def epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        seconds = time.perf_counter() - self._start
        done = epoch + 1 - self.first
        left = seconds / done * (self.epochs - epoch - 1)
        rate = self.rows / seconds if seconds else 0
        print(
            f"epoch {epoch + 1}/{self.epochs}: {_text(logs)}, {rate:,.0f} sequences/s, "
            f"{_time(left)} left",
            flush=True,
        )


class Bar(Progress):
    """A bar of tqdm over all epochs."""

    def __init__(self, epochs: int, first: int, size: int | None, tqdm: Any):
        super().__init__(epochs, first, size)
        total = None if size is None else size * epochs
        initial = 0 if size is None else size * first
        self._bar = tqdm(total=total, initial=initial, unit=" sequences", dynamic_ncols=True)
        self._before = ""

    def step(self, epoch: int, rows: int, loss: float) -> None:
        super().step(epoch, rows, loss)
        now = time.perf_counter()
        if now - self._shown > PAUSE:
            self._shown = now
            self._show(epoch, f"loss {loss:.4g}{self._before}")
            self._bar.update(self.rows - (self._bar.n - self._bar.initial))

    def epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        self._before = f"; before: {_text(logs)}"
        self._show(epoch, _text(logs))
        if self.size is None:  # now it is known
            self.size = self.rows
            self._bar.total = self.rows // (epoch + 1 - self.first) * self.epochs
        self._bar.update(self.rows - (self._bar.n - self._bar.initial))

    def _show(self, epoch: int, text: str) -> None:
        self._bar.set_description_str(f"epoch {epoch + 1}/{self.epochs}", refresh=False)
        self._bar.set_postfix_str(text, refresh=False)

    def close(self) -> None:
        self._bar.close()


def make_progress(wanted: bool, epochs: int, first: int, size: int | None) -> Progress:
    """What displays a fit that begins with epoch `first` and reads `size` sequences in each."""
    if not wanted:
        return Progress(epochs, first, size)
    if "ipykernel" in sys.modules or sys.stderr.isatty():
        try:
            from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            return Bar(epochs, first, size, tqdm)
    return Lines(epochs, first, size)


def _text(logs: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in logs.items() if name != "lr")


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
