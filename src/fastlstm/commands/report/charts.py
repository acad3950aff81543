"""Charts in HTML and SVG, which follow the width of the page and its colors."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Axis(NamedTuple):
    """An axis, from `low` to `high`; on a logarithmic one, these are exponents of ten."""

    label: str
    low: float
    high: float
    is_log: bool = False

    def places(self, values: Any) -> np.ndarray:
        """Where values lie on the axis, in percent; NaN for what a logarithm does not have."""
        values = np.asarray(values, np.float64)
        if self.is_log:
            known = np.isfinite(values) & (values > 0)
            values = np.log10(values, out=np.full(values.shape, np.nan), where=known)
        share: np.ndarray = (values - self.low) / (self.high - self.low)
        return share * 100

    def ticks(self) -> dict[str, float]:
        """The labels, and their places in percent."""
        step = _round_step((self.high - self.low) / 5)
        step = max(1.0, math.ceil(step)) if self.is_log else step
        marks = step * np.arange(math.ceil(self.low / step - 1e-9), self.high / step + 1e-9)
        digits = max(0, -math.floor(math.log10(step)))
        return {
            (power_of_ten(round(mark)) if self.is_log else f"{mark:.{digits}f}"): float(
                (mark - self.low) / (self.high - self.low) * 100
            )
            for mark in marks
        }


class Line(NamedTuple):
    """A line of a chart. One point is drawn as a dot, and one height as a level."""

    label: str
    style: str  # a class of the page's style sheet
    x: Any
    y: Any


def line_chart(description: str, lines: Sequence[Line], x_axis: Axis, y_axis: Axis) -> str:
    """Return a chart with its legend; `description` is for those who do not see it."""
    drawn = "".join(_path(line, x_axis, y_axis) for line in lines)
    x_ticks, y_ticks = x_axis.ticks(), y_axis.ticks()
    grid = "".join(f'<path class="grid" d="M0 {100 - y:.2f}H100"/>' for y in y_ticks.values())
    labels = [f'<span class="x" style="left:{x:.2f}%">{t}</span>' for t, x in x_ticks.items()]
    labels += [f'<span class="y" style="bottom:{y:.2f}%">{t}</span>' for t, y in y_ticks.items()]
    legend = "".join(
        f'<li><svg class="swatch" viewBox="0 0 30 10" aria-hidden="true">{_swatch(line)}</svg>'
        f"{html.escape(line.label)}</li>"
        for line in lines
    )
    return (
        f'<figure class="chart"><p class="axis">{html.escape(y_axis.label)}</p><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(description)}">{grid}{drawn}</svg>'
        f'<div aria-hidden="true">{"".join(labels)}</div></div>'
        f'<p class="axis right">{html.escape(x_axis.label)}</p>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def bars(caption: str, rows: Iterable[tuple[str, float, str]]) -> str:
    """Return a table whose rows are a name, a bar, and what stands beside it."""
    rows = list(rows)
    longest = max((value for _, value, _ in rows), default=0) or 1
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        f'<td class="bar"><span style="width:{value / longest * 100:.2f}%"></span></td>'
        f"<td>{html.escape(text)}</td></tr>"
        for name, value, text in rows
    )
    return f'<table class="bars"><caption>{html.escape(caption)}</caption>{body}</table>'


def _path(line: Line, x_axis: Axis, y_axis: Axis) -> str:
    y = 100 - y_axis.places(np.atleast_1d(line.y))
    if line.x is None:
        return f'<path class="{line.style}" d="M0 {y[0]:.2f}H100"/>'
    x = x_axis.places(np.atleast_1d(line.x))
    known = np.isfinite(x) & np.isfinite(y)
    if len(x) == 1:
        return f'<path class="{line.style} dot" d="M{x[0]:.2f} {y[0]:.2f}h0"/>' if known[0] else ""
    pieces, pen = [], "M"
    for place in range(len(x)):
        if known[place]:
            pieces.append(f"{pen}{x[place]:.2f} {y[place]:.2f}")
        pen = "L" if known[place] else "M"
    return f'<path class="{line.style}" d="{"".join(pieces)}"/>'


def _swatch(line: Line) -> str:
    is_dot = line.x is not None and np.size(line.x) == 1
    style, path = (f"{line.style} dot", "M15 5h0") if is_dot else (line.style, "M2 5H28")
    return f'<path class="{style}" d="{path}"/>'


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is `least` or more."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= least * (1 - 1e-9))


def power_of_ten(exponent: int) -> str:
    """Return "1", "10⁻⁵"."""
    raised = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return f"10{str(exponent).translate(raised)}" if exponent else "1"
