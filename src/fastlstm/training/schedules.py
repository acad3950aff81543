"""Schedules: functions from the number of steps taken to the learning rate of the next.

They remember nothing, so training that goes on needs the number of its step only. Schedules that
show the same are equal.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import cos, pi
from typing import Any

import numpy as np

from fastlstm.checks import read_number, read_size


class Schedule:
    """Base class of all schedules.

    Examples
    --------
    >>> import fastlstm as fl
    >>> schedule = fl.schedules.cosine(1e-3, 1000, warmup=100)
    >>> schedule(0), schedule(50), schedule(100), schedule(1000)
    (0.0, 0.0005, 0.001, 0.0)
    >>> schedule
    cosine(lr=0.001, steps=1000, warmup=100, start=0.0, end=0.0)
    """

    def __call__(self, step: int) -> float:
        """Return the learning rate of a step; the first is step 0."""
        return self._at(read_size("step", step, 0))

    def _at(self, step: int) -> float:
        raise NotImplementedError

    def _read(self, *, sizes: tuple[str, ...] = (), **above: float) -> None:
        """Read the fields: `sizes` are numbers of steps, others rates below a bound."""
        for name in sizes:
            object.__setattr__(self, name, read_size(name, getattr(self, name)))
        for name, bound in above.items():
            number = read_number(name, getattr(self, name), 0, bound)
            object.__setattr__(self, name, number)


@dataclass(frozen=True)
class constant(Schedule):
    """The same learning rate at every step.

    Parameters
    ----------
    lr : float
    """

    lr: float

    def __post_init__(self) -> None:
        self._read(lr=np.inf)

    def _at(self, step: int) -> float:
        return self.lr


@dataclass(frozen=True)
class linear(Schedule):
    """A straight line, as for a warm-up: from `start` at step 0 to `lr` at step `steps` and after.

    Parameters
    ----------
    lr : float
    steps : int
    start : float

    Examples
    --------
    >>> import fastlstm as fl
    >>> fl.schedules.linear(0.1, steps=4)(2)
    0.05
    """

    lr: float
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        self._read(sizes=("steps",), lr=np.inf, start=np.inf)

    def _at(self, step: int) -> float:
        share = min(step / self.steps, 1.0)
        return self.start * (1 - share) + self.lr * share


@dataclass(frozen=True)
class cosine(Schedule):
    """Half a cosine from `lr` down to `end` at step `steps` and after (Loshchilov & Hutter 2017).

    Parameters
    ----------
    lr : float
    steps : int
        With the warm-up.
    warmup : int
        The number of steps, less than `steps`, of a straight line from `start` to `lr` before it.
    start, end : float
    """

    lr: float
    steps: int
    warmup: int = 0
    start: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        self._read(sizes=("steps",), lr=np.inf, start=np.inf, end=np.inf)
        object.__setattr__(self, "warmup", read_size("warmup", self.warmup, 0))
        if self.warmup >= self.steps:
            raise ValueError(f"warmup: expected less than {self.steps} steps, got {self.warmup}")

    def _at(self, step: int) -> float:
        if step < self.warmup:
            return linear(self.lr, self.warmup, self.start)(step)
        return _anneal(self.lr, self.end, (step - self.warmup) / (self.steps - self.warmup))


@dataclass(frozen=True)
class one_cycle(Schedule):
    """Half a cosine up to `lr`, and half a cosine down (Smith & Topin 2018), as torch.optim has it.

    It begins at lr / divide, reaches lr at step rise · steps - 1, and lr / divide / divide_end at
    step steps - 1 and after.

    Parameters
    ----------
    lr : float
        The highest.
    steps : int
    rise : float in [0, 1]
    divide, divide_end : float
        Above 0.

    Examples
    --------
    >>> import fastlstm as fl
    >>> schedule = fl.schedules.one_cycle(0.1, steps=100)
    >>> round(schedule(0), 6), schedule(29)
    (0.004, 0.1)
    """

    lr: float
    steps: int
    rise: float = 0.3
    divide: float = 25.0
    divide_end: float = 1e4

    def __post_init__(self) -> None:
        self._read(sizes=("steps",), lr=np.inf, rise=1, divide=np.inf, divide_end=np.inf)
        for name in ("divide", "divide_end"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected a number above 0, got 0")

    def _at(self, step: int) -> float:
        start, top, last = self.lr / self.divide, self.rise * self.steps - 1, self.steps - 1
        if step < top:
            return _anneal(start, self.lr, step / top)
        share = (step - top) / (last - top) if last > top else float(step > top)
        return _anneal(self.lr, start / self.divide_end, share)


@dataclass(frozen=True)
class exponential(Schedule):
    """lr · rate^(step / steps).

    Parameters
    ----------
    lr : float
    rate : float
    steps : int
        The number of steps after which the learning rate is `rate` times what it was.
    """

    lr: float
    rate: float
    steps: int = 1

    def __post_init__(self) -> None:
        self._read(sizes=("steps",), lr=np.inf, rate=np.inf)

    def _at(self, step: int) -> float:
        return float(self.lr * self.rate ** (step / self.steps))


@dataclass(frozen=True)
class piecewise(Schedule):
    """`values[0]` up to step `boundaries[0]`, from there on `values[1]`, and so on.

    Parameters
    ----------
    boundaries : ints
        Rising.
    values : floats
        One more than boundaries.

    Examples
    --------
    >>> import fastlstm as fl
    >>> schedule = fl.schedules.piecewise([10, 20], [0.1, 0.01, 0.001])
    >>> schedule(9), schedule(10), schedule(50)
    (0.1, 0.01, 0.001)
    """

    boundaries: Any
    values: Any

    def __post_init__(self) -> None:
        boundaries = _read_boundaries(self.boundaries, "values", self.values)
        values = (read_number(f"values[{k}]", v, 0, np.inf) for k, v in enumerate(self.values))
        object.__setattr__(self, "boundaries", boundaries)
        object.__setattr__(self, "values", tuple(values))

    def _at(self, step: int) -> float:
        value: float = self.values[sum(step >= boundary for boundary in self.boundaries)]
        return value


@dataclass(frozen=True)
class joined(Schedule):
    """One schedule after another; each counts its steps from the boundary where it begins.

    Parameters
    ----------
    schedules : schedules
        Or any functions from a step to a learning rate.
    boundaries : ints
        Rising, one less than schedules.

    Examples
    --------
    >>> import fastlstm as fl
    >>> parts = fl.schedules.linear(0.1, steps=5), fl.schedules.exponential(0.1, 0.5, steps=10)
    >>> schedule = fl.schedules.joined(parts, [5])
    >>> schedule(0), schedule(5), schedule(15)
    (0.0, 0.1, 0.05)
    """

    schedules: Any
    boundaries: Any

    def __post_init__(self) -> None:
        boundaries = _read_boundaries(self.boundaries, "schedules", self.schedules)
        for k, schedule in enumerate(self.schedules):
            if not callable(schedule):
                raise TypeError(f"schedules[{k}]: expected a schedule, got {schedule!r}")
        object.__setattr__(self, "boundaries", boundaries)
        object.__setattr__(self, "schedules", tuple(self.schedules))

    def _at(self, step: int) -> float:
        past = [boundary for boundary in (0, *self.boundaries) if step >= boundary]
        lr: float = self.schedules[len(past) - 1](step - past[-1])
        return lr


def _anneal(first: float, last: float, share: float) -> float:
    """From `first` to `last` along half a cosine."""
    if share >= 1:
        return last
    return last + (first - last) * (1 + cos(pi * share)) / 2


def _read_boundaries(boundaries: Any, name: str, parts: Any) -> tuple[int, ...]:
    for argument, value in (("boundaries", boundaries), (name, parts)):
        if not isinstance(value, (tuple, list)):
            raise TypeError(f"{argument}: expected a list, got {value!r}")
    if len(parts) != len(boundaries) + 1:
        raise ValueError(f"{name}: expected {len(boundaries) + 1}, got {len(parts)}")
    read = tuple(read_size(f"boundaries[{k}]", b) for k, b in enumerate(boundaries))
    if any(a >= b for a, b in pairwise(read)):
        raise ValueError(f"boundaries: expected rising numbers, got {read}")
    return read
