"""What every engine offers."""

from collections.abc import Callable
from importlib import import_module, metadata
from typing import Any, ClassVar

import numpy as np

from bench.cases import Case
from bench.problem import Problem

Training = tuple[np.ndarray, dict[str, np.ndarray]]


class CannotDoError(Exception):
    """An engine cannot do a case; the message says what it lacks."""


class Peer:
    """One engine with one problem's weights and arrays; the table's column is its `name`.

    Everyone gets arrays that are already in its own form, and gives new ones back: what is timed is
    the job that `fl.LSTM` does, with the problem's initial state or with none, and a final state
    that can be carried on.

    Parameters
    ----------
    problem : Problem
    threads : int
        That it may use.

    Raises
    ------
    CannotDoError
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()  # modules
    by_default: ClassVar[bool] = True  # whether it runs without being asked for
    trains: ClassVar[bool] = False
    cells: ClassVar[tuple[str, ...]] = ("LSTM",)

    def __init__(self, problem: Problem, threads: int):
        raise NotImplementedError

    @classmethod
    def available(cls) -> str | None:
        """None, or why it cannot run here."""
        try:
            for module in cls.requires:
                import_module(module)
        except ImportError as error:
            return str(error)
        return None

    @classmethod
    def versions(cls) -> dict[str, str]:
        """The version of each package it needs."""
        return {module: metadata.version(module) for module in cls.requires}

    @classmethod
    def check(cls, case: Case, mode: str) -> None:
        """Raise CannotDoError for a cell that it has not, or has not in `mode`."""
        if case.variant:
            raise CannotDoError("plain cells only")
        if case.cell not in cls.cells:
            raise CannotDoError(f"{', '.join(cls.cells)} only")
        if mode == "training" and not cls.trains:
            raise CannotDoError("no training")

    def prepare(self) -> None:
        """What comes before each of its turns, not timed."""

    def call(self, mode: str) -> Callable[[], Any]:
        """What is timed in `mode`."""
        return self.train if mode == "training" else self.infer

    def infer(self) -> np.ndarray:
        """The output [T, B, directions * P]."""
        raise NotImplementedError

    def train(self) -> Training:
        """Forward and backward: the gradients of x and, under torch's names, of the weights."""
        raise NotImplementedError


LACKS = {
    "lengths": "no ragged batches",
    "resets": "no resets",
    "proj_size": "no projection",
    "bidirectional": "no second direction",
}


def refuse(problem: Problem, *features: str) -> None:
    """Raise CannotDoError if the case has one of `features`, which are keys of `LACKS`."""
    for feature in features:
        if getattr(problem.case, feature):
            raise CannotDoError(LACKS[feature])


def as_layers_take_it(
    state: tuple[np.ndarray, ...] | None, convert: Callable[[np.ndarray], Any] = np.asarray
) -> Any:
    """The state of a layer, torch's or fastlstm's: a state of one part stands alone."""
    if state is None:
        return None
    parts = tuple(map(convert, state))
    return parts if len(parts) > 1 else parts[0]
