"""Pooling: one vector in place of the steps of a sequence."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import check_shape, memory_for, quiet, read_array, read_flag, read_floats
from fastlstm.engine.reading.mask import Axes, Given, read_batch, within
from fastlstm.module import Gradients, Module, Output, Tape, check_tape, describe_backward

KINDS = "last", "mean", "max"


class Steps(NamedTuple):
    """An x whose steps are pooled, compacted."""

    x: np.ndarray
    axes: Axes
    counts: np.ndarray | None  # [B], the valid steps of each row; None: all are
    given: Given | None  # the form in which x came, if it was a list or had a mask


@dataclass(slots=True, eq=False)
class PoolTape(Tape):
    layer: "Pool"
    shape: tuple[int, ...]  # of x, compacted
    dtype: np.dtype
    axes: Axes
    counts: np.ndarray | None
    given: Given | None
    places: np.ndarray | None = None  # [B, F], the step of each maximum


class Pool(Module):
    """One vector for each row of a batch, from the row's valid steps.

    In a `Sequential`, the layers before say the layout and the directions, and `lengths`, `mask` or
    a list the valid steps. The layers after get whole rows, (N, F), also if x is a list.

    Parameters
    ----------
    kind : "last", "mean" or "max"
        "last" is the output at which each direction ends: of the forward direction that at the
        row's last valid step, of the reverse direction that at its first. These are the final
        states h of the layer before, side by side. "mean" and "max" are over the valid steps; of
        equal maxima, the first has the gradient.
    batch_first : bool, optional
        Whether x is (B, T, F) instead of (T, B, F). None: as in the layers before, else False.
    bidirectional : bool, optional
        Whether the second half of the features is of a reverse direction. None: as in the layer
        before, also across a `Dropout`. A `Linear` layer, or a module of one's own, mixes the
        directions; what follows counts as one that reads forward.

    Notes
    -----
    The vector of a row without valid steps is zero. Its bits do not depend on the other rows.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> pool = fl.Pool("mean")
    >>> x = np.arange(12.0).reshape(3, 2, 2)  # three steps of two rows
    >>> pool(x, lengths=[3, 1])
    array([[4., 5.],
           [2., 3.]])
    """

    pools_steps = True
    _before = Output()  # what is known of x within a `Sequential`

    def __init__(
        self, kind: str, *, batch_first: bool | None = None, bidirectional: bool | None = None
    ):
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f'kind: expected "last", "mean" or "max", got {kind!r}')
        self.kind = kind
        self.batch_first = None if batch_first is None else read_flag("batch_first", batch_first)
        self.bidirectional = (
            None if bidirectional is None else read_flag("bidirectional", bidirectional)
        )

    def __call__(self, x: Any, *, lengths: Any = None, mask: Any = None) -> np.ndarray:
        """Pool the steps of each row.

        Parameters
        ----------
        x : array (T, B, F), (B, T, F) with `batch_first`, or (T, F) for one sequence; or a list
            A list holds sequences (T_k, F).
        lengths : array (B,) of ints, optional
            The number of valid steps of each row; padding is on the right.
        mask : bool array (T, B), (B, T) with `batch_first`, or (T,), optional
            False, or 0, at steps that do not count, in any pattern. For a list, a list of arrays.

        Returns
        -------
        y : array (B, F), or (F,) for one sequence
            float32 or float64, as x; other real dtypes are cast to float64.

        Raises
        ------
        ValueError
            A shape or a value does not fit; the message names the argument.
        TypeError
            x does not hold real numbers, or `mask` no bools, nor 0 and 1.
        """
        return self._pooled(self._read(x, lengths, mask))

    def forward(
        self, x: Any, *, lengths: Any = None, mask: Any = None
    ) -> tuple[np.ndarray, PoolTape]:
        """Pool the steps of each row as a call does, and return a tape.

        Parameters
        ----------
        x, lengths, mask
            As in a call.

        Returns
        -------
        y : array (B, F), or (F,) for one sequence
        tape : PoolTape
            The argument of one `backward`.
        """
        steps = self._read(x, lengths, mask)
        y = self._pooled(steps)
        places = None
        if self.kind == "max" and y.size and steps.x.size:
            places = _filled(steps, -np.inf).argmax(axis=0)
        counts = None if steps.counts is None else steps.counts.copy()
        shape, dtype = steps.x.shape, steps.x.dtype
        return y, PoolTape(self, shape, dtype, steps.axes, counts, steps.given, places)

    @describe_backward
    def backward(self, tape: Any, dy: Any) -> Gradients:
        """Return the gradient of x in its form, zero at steps that do not count."""
        tape = check_tape(tape, PoolTape, self)
        dy, F = read_array("dy", dy, tape.dtype), tape.shape[-1]
        with memory_for("dy", tape.shape):
            dx = np.zeros(tape.shape, tape.dtype)
        rows, counts = tape.axes.rows(dx), tape.counts
        B, T = rows.shape[:2]
        check_shape("dy", dy, *(B, F)[not tape.axes.has_batch :])
        tape.claim()
        dy = dy.reshape(B, F)
        if counts is not None:
            dy = np.where(counts[:, None] > 0, dy, dy.dtype.type(0))
        if self.kind == "last" and T:
            for part, at in tape.layer._ends(B, T, F, counts):
                rows[(*at, part)] = dy[:, part]
        elif self.kind == "mean" and T:
            with quiet():
                shares = dy / _divisors(T, counts, tape.dtype)
            valid = True if counts is None else within(counts, T)[..., None]
            np.copyto(rows, shares[:, None], where=valid)
        elif tape.places is not None:
            np.put_along_axis(rows, tape.places[:, None], dy[:, None], axis=1)
        return Gradients(x=dx if tape.given is None else tape.given.give_back(dx))

    @property
    def _reads_batch_first(self) -> bool:
        """Whether x is (B, T, F), as this layer says or the layers before do."""
        return bool(self._before.batch_first if self.batch_first is None else self.batch_first)

    @property
    def _reverse(self) -> tuple[bool, ...]:
        """For each direction whose features x has, whether it reads from the end."""
        if self.bidirectional is None:
            return self._before.reverse
        return (False, True) if self.bidirectional else (False,)

    def _read(self, x: Any, lengths: Any, mask: Any) -> Steps:
        """The arguments of a call, checked."""
        batch_first, features = self._reads_batch_first, None
        if not isinstance(x, (list, tuple)):
            x = read_floats("x", x)
            features = x.shape[-1:]
        if features is not None and lengths is None and mask is None:
            steps = Steps(x, Axes(x.ndim == 3, batch_first), None, None)
        else:
            batch = read_batch(x, lengths, None, mask, features=features, batch_first=batch_first)
            steps = Steps(read_floats("x", batch.x), batch.axes, batch.lengths, batch.given)
        if steps.x.ndim != 2 + steps.axes.has_batch:
            raise ValueError(
                f"x: expected axes of steps and features, and maybe of a batch, got {steps.x.shape}"
            )
        return steps

    def _pooled(self, steps: Steps) -> np.ndarray:
        rows, counts = steps.axes.rows(steps.x), steps.counts
        B, T, F = rows.shape
        y = np.zeros((B, F), rows.dtype)
        if self.kind == "last":
            ends = self._ends(B, T, F, counts)
            for part, at in ends if T else ():
                y[:, part] = rows[(*at, part)]
        elif T and self.kind == "mean":
            with quiet():
                y = _sum(_filled(steps, 0)) / _divisors(T, counts, y.dtype)
        elif T:
            y = _filled(steps, -np.inf).max(axis=0)
        if counts is not None:
            y[counts == 0] = 0
        return y if steps.axes.has_batch else y[0]

    def _ends(self, B: int, T: int, F: int, counts: np.ndarray | None) -> list[tuple[slice, Any]]:
        """Each direction's features, and the rows and steps at which it ends."""
        directions = len(self._reverse)
        size, rest = divmod(F, directions)
        if rest:
            raise ValueError(f"x: expected features of {directions} directions, got {F}")
        # In a row without valid steps, the index -1 stands for any.
        last = (slice(B), T - 1) if counts is None else (np.arange(B), counts - 1)
        return [
            (slice(k * size, (k + 1) * size), (slice(B), 0) if is_reverse else last)
            for k, is_reverse in enumerate(self._reverse)
        ]

    def _output(self, before: Output) -> Output:
        return before._replace(reverse=(False,), pooled=True)

    def _after(self, before: Output) -> Module:
        placed = object.__new__(type(self))
        placed.__dict__.update(self.__dict__, _before=before)
        return placed


def _filled(steps: Steps, value: float) -> np.ndarray:
    """The steps [T, B, F], with `value` where they are not valid."""
    x = steps.axes.rows(steps.x).swapaxes(0, 1)
    if steps.counts is None:
        return x
    valid = within(steps.counts, len(x)).T[..., None]
    return x if valid.all() else np.where(valid, x, x.dtype.type(value))


def _divisors(T: int, counts: np.ndarray | None, dtype: np.dtype) -> Any:
    """The number of valid steps of each row, [B, 1] or one for all; 1 where there are none."""
    return dtype.type(T) if counts is None else np.maximum(counts, 1)[:, None].astype(dtype)


def _sum(steps: np.ndarray) -> np.ndarray:
    """The sum over the first axis, of neighbors first: zeros at the end change nothing."""
    while len(steps) > 1:
        sums = steps[::2].copy()
        pairs = sums[: len(steps) // 2]
        np.add(pairs, steps[1::2], out=pairs)
        steps = sums
    total: np.ndarray = steps[0]
    return total


class Last(Pool):
    """The output at which each direction ends: ``Pool("last")``.

    Parameters
    ----------
    batch_first, bidirectional : bool, optional
        As in `Pool`; within a `Sequential`, the layers before say both.

    Examples
    --------
    A classifier of sequences of any lengths:

    >>> import numpy as np, fastlstm as fl
    >>> lstm = fl.LSTM(3, 5, bidirectional=True, rng=0)
    >>> model = fl.Sequential(lstm, fl.Last(), fl.Linear(10, 2, rng=0))
    >>> logits, state = model([np.ones((4, 3)), np.ones((7, 3))])
    >>> logits.shape
    (2, 2)
    """

    def __init__(self, *, batch_first: bool | None = None, bidirectional: bool | None = None):
        super().__init__("last", batch_first=batch_first, bidirectional=bidirectional)
