"""Losses and metrics as means over the positions of a whole epoch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import brief, takes, warn_user
from fastlstm.distributed.ranks import Alone, Place
from fastlstm.training import losses
from fastlstm.training.calls import has_steps
from fastlstm.training.data.batch import Batch

NAMES = "mse", "mae", "huber", "cross_entropy", "binary_cross_entropy"
OF_LOGITS = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid"}  # what losses apply


class Part(NamedTuple):
    """What a batch adds to a mean."""

    total: float  # Σ w·l
    weight: float  # Σ w


NOTHING = Part(0.0, 0.0)


class Means:
    """Means of parts by name; never a mean of means."""

    def __init__(self, sums: Mapping[str, tuple[float, float]] | None = None):
        self.sums = dict(sums or {})

    def add(self, parts: dict[str, Part]) -> None:
        for name, part in parts.items():
            total, weight = self.sums.get(name, (0.0, 0.0))
            self.sums[name] = total + part.total, weight + part.weight

    def of_all(self, ranks: Alone, place: Place, names: Sequence[str]) -> "Means":
        """The sums of all ranks together."""
        return Means(split(names, ranks.exchange(place, self.values(names))))

    def values(self, names: Sequence[str]) -> list[float]:
        """The sums as ranks exchange them, two for each name."""
        return [number for name in names for number in self.sums.get(name, NOTHING)]

    def means(self) -> dict[str, float]:
        return {
            name: total / weight if weight else float("nan")
            for name, (total, weight) in self.sums.items()
        }


def split(names: Sequence[str], values: np.ndarray) -> dict[str, Part]:
    """The sums by name of what ranks exchanged, float64 [ranks, two for each name]."""
    sums = values.sum(axis=0).reshape(-1, 2).tolist()
    return {name: Part(*one) for name, one in zip(names, sums, strict=True)}


class Objective:
    """A loss of `fastlstm.losses`, its name, or a user's function.

    That function is called as ``loss(pred, target)``, with ``mask=`` if it takes one or a batch has
    one, and with ``sample_weight=`` if a batch has weights. It returns the mean over the positions
    that count, and the gradient of pred. pred and target are (B, T, ...) or (B, ...).
    """

    def __init__(self, loss: Any):
        if isinstance(loss, str):
            if loss not in NAMES:
                raise ValueError(f"loss: expected one of {', '.join(NAMES)}, got {loss!r}")
            loss = getattr(losses, loss)
        if not callable(loss):
            raise TypeError(f"loss: expected a function or its name, got {brief(loss)}")
        self.loss: Callable[..., tuple[float, np.ndarray]] = loss
        self._parts = getattr(loss, "parts", None)
        if isinstance(loss, partial) and hasattr(loss.func, "parts"):
            self._parts = partial(loss.func.parts, *loss.args, **loss.keywords)
        self._takes_mask = takes(loss, "mask")

    def __reduce__(self) -> Any:
        return Objective, (self.loss,)  # parts are a function within a function

    def check(self, model: Any) -> None:
        """Warn if the model ends with the function that its loss applies to logits."""
        last = model
        while last._children and all(map(str.isdigit, last._children)):
            *_, last = last._children.values()
        loss = self.loss.func if isinstance(self.loss, partial) else self.loss
        name = getattr(loss, "__name__", "")
        if loss is getattr(losses, name, None) and getattr(last, "kind", "") == OF_LOGITS.get(name):
            warn_user(
                f"loss: {name} takes logits, and the model ends with a {last.kind}, which it would "
                "apply once more: leave the last layer out, as in model[:-1]"
            )

    def __call__(
        self, pred: np.ndarray, batch: Batch, is_share: bool = False
    ) -> tuple[Part, np.ndarray | None]:
        """Return the part of a batch, and the gradient of its mean; None if nothing counts.

        `is_share` is whether other ranks have other rows of the batch.
        """
        target, mask = batch.y, None
        if has_steps(pred, batch):
            mask = batch.counted()
            target = _cut(target, batch.x.shape[1])
        weight = batch.sample_weight
        positions = pred.shape[: 2 if has_steps(pred, batch) else 1]
        weights = _weights(positions, mask, weight)
        if not weights.any():
            return Part(0.0, 0.0), None
        options = {}
        if mask is not None or (self._takes_mask and self._parts is None):
            options["mask"] = mask
        if weight is not None:
            options["sample_weight"] = weight
        if self._parts is not None:
            total, own_weight, gradient = self._parts(pred, target, divide=not is_share, **options)
            if is_share and not own_weight:  # by class weights; others may count
                return Part(0.0, 0.0), None
            return Part(total, own_weight), gradient / own_weight if is_share else gradient
        result = self.loss(pred, target, **options)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"loss: expected a function that returns (mean, d_pred), got {brief(result)} of it"
            )
        mean, gradient = result
        counts = float(weights.sum())
        return Part(float(mean) * counts, counts), np.asarray(gradient)


class Metric:
    """A name and a function of predictions and targets.

    The function gets the positions that count, one after another: (n, ...) of both. It returns
    their mean, or one value for each of them.
    """

    def __init__(self, metric: Any):
        if metric == "accuracy":
            self.name, self._function = "accuracy", accuracy
        elif callable(metric):
            self.name = getattr(metric, "__name__", type(metric).__name__)
            self._function = metric
        else:
            raise ValueError(f'metrics: expected "accuracy" or functions, got {brief(metric)}')

    def __call__(self, pred: np.ndarray, batch: Batch) -> Part:
        target = batch.y
        if has_steps(pred, batch):
            target, mask = _cut(target, batch.x.shape[1]), batch.counted()
            if mask is None:
                pred, target = (a.reshape(-1, *a.shape[2:]) for a in (pred, target))
            else:
                pred, target = pred[mask], target[mask]
        if not len(pred):
            return Part(0.0, 0.0)
        values = np.asarray(self._function(pred, target), np.float64)
        if not values.ndim:
            return Part(float(values) * len(pred), float(len(pred)))
        return Part(float(values.sum()), float(values.size))


def read_metrics(metrics: Any) -> list[Metric]:
    """The metrics of a call, checked."""
    given = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    read = [Metric(metric) for metric in given]
    names = [metric.name for metric in read]
    if len({"loss", "lr", *names}) != 2 + len(names):
        raise ValueError(f"metrics: expected names of their own, got {names}")
    return read


def accuracy(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Where the prediction is right: the largest of the logits, or for a logit its sign."""
    if target.ndim == pred.ndim - 1:
        return np.asarray(pred.argmax(axis=-1) == target)
    if target.shape != pred.shape:
        raise ValueError(f"accuracy: expected labels for {pred.shape}, got {target.shape}")
    return np.asarray((pred > 0) == (target > 0.5))


def _cut(target: Any, T: int) -> Any:
    return target[:, :T] if isinstance(target, np.ndarray) and target.ndim > 1 else target


def _weights(
    positions: tuple[int, ...], mask: np.ndarray | None, weight: np.ndarray | None
) -> np.ndarray:
    """The weight of every position."""
    weights: np.ndarray = np.ones(positions) if mask is None else mask.astype(np.float64)
    if weight is None:
        return weights
    axes = max(weights.ndim, weight.ndim)
    weights, weight = (a.reshape(a.shape + (1,) * (axes - a.ndim)) for a in (weights, weight))
    return np.asarray(weights * weight)
