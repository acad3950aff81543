"""What a fit saw, and the reading of what later calls give against it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastlstm.in_sklearn.forecast.series import (
    Form,
    check_names,
    has_index,
    is_list_of_series,
    read_series,
    read_steps,
)

Steps = tuple[np.ndarray, np.ndarray | None]  # y, (T, k), and the exogenous values, (T, d)


@dataclass(frozen=True)
class Layout:
    """How y and X were given, and how forecasts are to be given.

    Attributes
    ----------
    forms : list of Form
        Of each series up to now.
    is_list : bool
    outputs, features : int
        Columns of y, and of X; 0 without X.
    feature_names : columns of X, optional
    log : bool
        Whether logarithms are forecast.
    """

    forms: list[Form]
    is_list: bool
    outputs: int
    features: int
    feature_names: Any
    log: bool

    def next_steps(self, y_name: str, y: Any, x_name: str, x: Any) -> list[Steps]:
        """Read the steps that follow each series."""
        count = len(self.forms) if self.is_list else None
        ys = _as_list(y_name, y, count, is_list=self.is_list)
        xs = self._parts(x_name, x, len(ys), self.is_list)
        steps: list[Steps] = []
        for (name, one), own, form in zip(_named(y_name, ys), xs, self.forms, strict=True):
            check_names(name, form.names, one)
            values = self._inner(name, read_steps(name, one, self.outputs))
            form.check_next(name, one)
            steps.append((values, self._exogenous(x_name, own, len(values), form)))
        return steps

    def windows(self, y: Any, x: Any) -> tuple["Layout", list[Steps]]:
        """Read `last_window` and `X_window`: series to continue, and their layout."""
        is_list = is_list_of_series(y)
        ys = list(y) if is_list else [y]
        xs = self._parts("X_window", x, len(ys), is_list)
        forms, steps = [], []
        for (name, one), own in zip(_named("last_window", ys), xs, strict=True):
            check_names(name, self.forms[0].names, one)
            values, form = read_series(name, one, self.outputs)
            _check_index("X_window", own, name, one)
            forms.append(form)
            exogenous = self._exogenous("X_window", own, len(values), None)
            steps.append((self._inner(name, values), exogenous))
        return replace(self, forms=forms, is_list=is_list), steps

    def future(self, x: Any, rows: int) -> list[np.ndarray | None]:
        """Read `X_future`: `rows` steps for each series."""
        xs = self._parts("X_future", x, len(self.forms), self.is_list)
        return [
            self._exogenous("X_future", one, rows, form)
            for one, form in zip(xs, self.forms, strict=True)
        ]

    def after(self, steps: list[Steps]) -> "Layout":
        """The layout of the series with their next steps."""
        pairs = zip(self.forms, steps, strict=True)
        return replace(self, forms=[form.after(len(y)) for form, (y, _) in pairs])

    def give(self, values: list[np.ndarray]) -> Any:
        """Return forecasts (n, k) as the series were given."""
        given = [form.give(self.outer(one)) for form, one in zip(self.forms, values, strict=True)]
        return given if self.is_list else given[0]

    def outer(self, values: np.ndarray) -> np.ndarray:
        """Values as users see them."""
        return np.exp(values) if self.log else values

    def _inner(self, name: str, values: np.ndarray) -> np.ndarray:
        if self.log and len(values) and values.min() <= 0:
            raise ValueError(f"{name}: expected values above 0 for log=True, got {values.min():g}")
        return np.log(values) if self.log else values

    def _parts(self, name: str, x: Any, count: int, is_list: bool) -> list[Any]:
        """What is given for each series."""
        if x is None:
            return [None] * count
        if not self.features:
            raise ValueError(f"{name}: fit had no X, so expected None")
        return _as_list(name, x, count if is_list else None, is_list=is_list)

    def _exogenous(self, name: str, x: Any, rows: int, form: Form | None) -> np.ndarray | None:
        if not self.features:
            return None
        if x is None:
            raise ValueError(f"{name}: fit had X, so expected values of {rows} steps, got None")
        check_names(name, self.feature_names, x)
        values = read_steps(name, x, self.features)
        if len(values) != rows:
            raise ValueError(f"{name}: expected {rows} steps, got {len(values)}")
        if form is not None:
            form.check_next(name, x)
        return values


def read_layout(y: Any, X: Any, log: bool) -> tuple[Layout, list[Steps]]:
    """Read the arguments of a fit."""
    is_list = is_list_of_series(y)
    ys = list(y) if is_list else [y]
    features, names = 0, None
    xs: list[Any] = [None] * len(ys)
    if X is not None:
        xs = _as_list("X", X, len(ys) if is_list else None, is_list=is_list)
        features = read_steps("X", xs[0]).shape[1]
        names = xs[0].columns if has_index(xs[0]) and hasattr(xs[0], "columns") else None
    values, first = read_series("y[0]" if is_list else "y", ys[0])
    layout = Layout([], is_list, values.shape[1], features, names, log)
    steps: list[Steps] = []
    for (name, one), own in zip(_named("y", ys), xs, strict=True):
        check_names(name, first.names, one)
        values, form = read_series(name, one, layout.outputs)
        _check_index("X", own, name, one)
        layout.forms.append(form)
        x = layout._exogenous("X", own, len(values), None)
        steps.append((layout._inner(name, values), x))
    return layout, steps


def _as_list(name: str, value: Any, count: int | None, *, is_list: bool) -> list[Any]:
    """A list of what is given for each series; `count` of them if y was a list."""
    if not is_list:
        return [value]
    if not isinstance(value, (list, tuple)) or len(value) != count:
        got = len(value) if isinstance(value, (list, tuple)) else type(value).__name__
        raise ValueError(f"{name}: expected a list for each of {count} series, got {got}")
    return list(value)


def _named(name: str, parts: list[Any]) -> list[tuple[str, Any]]:
    """The parts with their names in messages."""
    if len(parts) == 1:
        return [(name, parts[0])]
    return [(f"{name}[{place}]", part) for place, part in enumerate(parts)]


def _check_index(x_name: str, x: Any, y_name: str, y: Any) -> None:
    if has_index(x) and has_index(y) and not x.index.equals(y.index):
        raise ValueError(
            f"{x_name}: expected the index of {y_name}, got one from {x.index[:1].tolist()} to "
            f"{x.index[-1:].tolist()}; or pass {x_name}.to_numpy()"
        )
