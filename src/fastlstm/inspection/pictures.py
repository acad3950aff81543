"""Drawings of what inspection finds. They need matplotlib (extra `plot`).

Each reads without color: lines differ in style, and the lightness of a color map grows with the
value.
"""

import itertools
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastlstm.checks import import_pyplot, read_index, read_integers

INK, GREY, BLUE, ORANGE = "#222222", "#bbbbbb", "#1f6fb4", "#e08a1e"
COLORS = BLUE, ORANGE, "#3b8f5a", "#8a5fb0"
STYLES: tuple[Any, ...] = "-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3))
GATES = "cividis"
SIGNED = "#0b2a5b", "#3a68a6", "#a3a3a3", "#eaa843", "#fff3c4"  # from -1 to 1, 0 in the middle
MOST_LINES = 4  # of an input; more features are a heat map

STATES = "cell", "hidden"
LABELS = {
    "input": "input",
    "cell": "cell state",
    "hidden": "hidden state",
    "forget_gate": "forget gate (remember)",
    "input_gate": "input gate (save)",
    "reset_gate": "reset gate",
    "update_gate": "update gate",
    "candidate": "candidate",
    "output_gate": "output gate (focus)",
}


def trace(
    trace: Any,
    layer: int = -1,
    row: int = 0,
    unit: int | None = None,
    order: Any = "activity",
    ax: Any = None,
) -> Any:
    """Draw one row of a trace over time: the input, the states, and every gate.

    Parameters
    ----------
    trace : Trace
    layer : int
        The place in ``trace.layers``.
    row : int
        The row of the batch.
    unit : int, optional
        Draws the lines of this unit, in the cell and hidden states over those of the other units.
        Without it, heat maps show all units.
    order : "activity" or array of ints
        The units of the heat maps, from top to bottom. "activity" orders them by the standard
        deviation over time of the cell state, or of the hidden state where there is no cell.
    ax : matplotlib Axes or array of Axes, optional
        One Axes of a grid (``plt.subplots``), in whose place all panels are drawn, or an array with
        one for every panel. Without it, a new figure.

    Returns
    -------
    axes : array of matplotlib Axes
        One for every panel: input, cell, hidden, forget gate, input gate, candidate, output gate
        for an LSTM; input, hidden, reset gate, update gate, candidate for a GRU; input, hidden for
        an RNN. ``axes[k].get_label()`` is the array's name.

    Raises
    ------
    ValueError
        The trace has no step, `layer`, `row` or `unit` is out of range, `order` has other units
        than the layer, or `ax` has too few or too many Axes.
    TypeError
        An index is no whole number.
    ImportError
        matplotlib is not installed.
    """
    plt = import_pyplot()
    from matplotlib.ticker import MaxNLocator

    record = trace.layers[read_index("layer", layer, len(trace.layers))]
    row = read_index("row", row, trace.x.shape[1])
    if not len(trace.x):
        raise ValueError("trace: expected at least one step, got none")
    live = np.arange(len(trace.x)) < (len(trace.x) if trace.lengths is None else trace.lengths[row])
    if trace.mask is not None:
        live = trace.mask[:, row]
    arrays = {name: _at(live, array[:, row]) for name, array in record.arrays.items()}
    main = arrays["cell" if "cell" in arrays else "hidden"]
    units = main.shape[1]
    if unit is None:
        shown = by_activity(main) if isinstance(order, str) else read_integers("order", order)
        _check_order(order, shown, units)
    else:
        unit = read_index("unit", unit, units)
    left = ["input", *(name for name in STATES if name in arrays)]
    right = [name for name in LABELS if name in arrays and name not in STATES]
    axes = _panels(plt, ax, left, right)
    if ax is None:
        of = f"{units} units" if unit is None else f"unit {unit} of {units}"
        title = f"{record.kind}, layer {record.name}, row {row}, {of}"
        axes[0].figure.suptitle(title, fontsize="medium", color=INK)
    arrays["input"] = _at(live, trace.x[:, row])
    for panel, name in zip(axes, left + right, strict=True):
        values = arrays[name]
        if name == "input":
            _input(panel, values)
        elif unit is not None:
            _unit(panel, name, values, unit if values.shape[1] == units else None)
        elif values.shape[1] == units:
            _heat_map(panel, name, values, shown)
        else:  # a projection has units of its own
            _heat_map(panel, name, values, by_activity(values))
        panel.set_label(name)
        panel.set_title(LABELS[name], loc="left", fontsize="small", color=INK)
        panel.set_xlim(-0.5, len(values) - 0.5)
        whole_steps = {"steps": [1, 2, 5, 10], "integer": True, "min_n_ticks": 1}
        panel.xaxis.set_major_locator(MaxNLocator("auto", **whole_steps))
        panel.tick_params(labelsize="small")
    return axes


def flow(flow: Any, ax: Any = None) -> Any:
    """Draw how the gradient of one model fades on its way back in time, on a log scale.

    Parameters
    ----------
    flow : GradientFlow
    ax : matplotlib Axes, optional

    Returns
    -------
    ax : matplotlib Axes
        A line for ∂L/∂h, with a cell one for ∂L/∂c, and a thin one for the carousel's factor.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    return _flows({"": flow}, ax)


def flows(comparison: Any, ax: Any = None) -> Any:
    """Draw the gradient of several models over time, as `flow` that of one.

    Parameters
    ----------
    comparison : FlowComparison
    ax : matplotlib Axes, optional

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ImportError
        matplotlib is not installed.
    """
    return _flows(comparison.flows, ax)


def by_activity(values: np.ndarray) -> np.ndarray:
    """The units of values (T, H) by their standard deviation over time, the largest first."""
    known = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    deviations = known.std(axis=0) if len(known) else np.zeros(values.shape[1])
    return np.argsort(-deviations, kind="stable")


def signed_colors(name: str = "signed", colors: Iterable[str] = SIGNED) -> Any:
    """The color map of what may be negative."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, list(colors))


def _check_order(order: Any, shown: np.ndarray, units: int) -> None:
    if isinstance(order, str) and order != "activity":
        raise ValueError(f'order: expected "activity" or an array of units, got {order!r}')
    if shown.ndim != 1 or not shown.size:
        raise ValueError(f"order: expected units in one dimension, got shape {shown.shape}")
    if shown.min() < 0 or shown.max() >= units:
        outside = shown[(shown < 0) | (shown >= units)][0]
        raise ValueError(f"order: expected units from 0 to {units - 1}, got {outside}")


def _at(live: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (T, H) with NaN, which is not drawn, at steps that the row skips or does not have."""
    return np.where(live[:, None], values, np.nan)


def _panels(plt: Any, ax: Any, left: list[str], right: list[str]) -> np.ndarray:
    """Axes for the panels of both columns, with one time axis."""
    count = len(left) + len(right)
    columns = [names for names in (left, right) if names]
    if ax is not None and not isinstance(ax, plt.Axes):
        axes = np.array(ax, dtype=object).ravel()
        if len(axes) != count:
            raise ValueError(f"ax: expected {count} Axes, or one for all, got {len(axes)}")
        return axes
    if ax is None:
        figure = plt.figure(figsize=(5.5 * len(columns), 1 + 1.2 * len(left)), layout="constrained")
        grid = figure.add_gridspec(1, len(columns))
    else:
        figure, place = ax.figure, ax.get_subplotspec()
        if place is None:
            raise ValueError(f"ax: expected Axes of a grid, as plt.subplots makes, or {count} Axes")
        ax.set_axis_off()
        grid = place.subgridspec(1, len(columns))
    made: list[Any] = []
    for column, names in zip(grid, columns, strict=True):
        for cell in column.subgridspec(len(names), 1):
            made.append(figure.add_subplot(cell, sharex=made[0] if made else None))
            made[-1].tick_params(labelbottom=False)
        made[-1].tick_params(labelbottom=True)
        made[-1].set_xlabel("step", fontsize="small", color=INK)
    axes = np.empty(count, dtype=object)
    axes[:] = made
    return axes


def _input(panel: Any, values: np.ndarray) -> None:
    """Draw features (T, F): a few as lines, more as a heat map."""
    features = values.shape[1]
    if features > MOST_LINES:
        return _heat_map(panel, "input", values, np.arange(features))
    for feature, style in zip(range(features), STYLES, strict=False):
        look = {"color": INK, "linestyle": style, "linewidth": 1} | _dot(values)
        panel.plot(values[:, feature], label=f"feature {feature}", **look)
    if features > 1:
        above = {"loc": "lower right", "bbox_to_anchor": (1, 0.97), "borderaxespad": 0}
        panel.legend(ncols=features, frameon=False, fontsize="x-small", **above)
    panel.spines[["top", "right"]].set_visible(False)
    return None


def _dot(values: np.ndarray) -> dict[str, Any]:
    """How a line is drawn that has no second point."""
    return {"marker": "."} if np.isfinite(values).any(axis=1).sum() == 1 else {}


def _unit(panel: Any, name: str, values: np.ndarray, unit: int | None) -> None:
    """Draw a unit of (T, H), and for a state the others beneath; None draws only these."""
    if name in STATES:
        others = np.delete(values, [] if unit is None else [unit], axis=1)
        panel.plot(others, color=GREY, linewidth=0.6, zorder=1, **_dot(values))
    if unit is not None:
        panel.plot(values[:, unit], color=BLUE, linewidth=1.6, zorder=2, **_dot(values))
    if name.endswith("_gate"):
        panel.set_ylim(*_padded(*_range(name, values)))
    panel.spines[["top", "right"]].set_visible(False)


def _heat_map(panel: Any, name: str, values: np.ndarray, units: np.ndarray) -> None:
    """Draw values (T, H) with a row for each of `units`, and the color bar."""
    from matplotlib.ticker import MaxNLocator

    low, high = _range(name, values)
    colors = GATES if low >= 0 else signed_colors()
    image = panel.imshow(
        values.T[units], aspect="auto", interpolation="nearest", cmap=colors, vmin=low, vmax=high
    )
    panel.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    panel.yaxis.set_major_formatter(
        lambda place, _: str(units[round(place)]) if 0 <= round(place) < len(units) else ""
    )
    panel.set_ylabel("feature" if name == "input" else "unit", fontsize="small", color=INK)
    ticks = (low, high) if low >= 0 else (low, 0, high)
    bar = panel.figure.colorbar(image, ax=panel, pad=0.01, aspect=12, ticks=ticks, format="%.2g")
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize="x-small", length=0)


def _range(name: str, values: np.ndarray) -> tuple[float, float]:
    """The ends of the scale: at least 0 to 1 for a gate, else symmetrical, if values are signed."""
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    if name.endswith("_gate"):
        low, high = min(low, 0.0), max(high, 1.0)
    largest = float(max(-low, high)) or 1.0
    unsigned = low >= 0 and (name == "input" or name.endswith("_gate"))
    return 0.0 if unsigned else -largest, largest


def _padded(low: float, high: float) -> tuple[float, float]:
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _flows(models: Mapping[str, Any], ax: Any) -> Any:
    if ax is None:
        ax = import_pyplot().subplots(figsize=(8, 4.5), layout="constrained")[1]
    styles = itertools.cycle(STYLES)
    steps = 1
    drawn = []
    for (name, model), color in zip(models.items(), itertools.cycle(COLORS), strict=False):
        thick = {"color": color, "linewidth": 1.8}
        thin = {"color": color, "linewidth": 0.7, "linestyle": "-"}
        for label, norms, look in (
            ("∂L/∂h", model.hidden, thick),
            ("∂L/∂c", model.cell, thick),
            ("carousel", model.carousel, thin),
        ):
            if norms is not None:
                look = look if look is thin else look | {"linestyle": next(styles)}
                drawn += ax.plot(_positive(norms), label=f"{name} {label}".strip(), **look)
                steps = max(steps, len(norms))
    ax.set_yscale("log")
    ax.set_xlabel("step", color=INK)
    ax.set_ylabel("norm of the gradient", color=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="#eeeeee")
    ax.set_axisbelow(True)
    _label_at_left(ax, drawn, steps)
    return ax


def _positive(norms: Any) -> np.ndarray:
    """Norms with NaN, a gap in the line, where they are zero (underflow) or not finite."""
    norms = np.asarray(norms, np.float64)
    return np.where(np.isfinite(norms) & (norms > 0), norms, np.nan)


def _label_at_left(ax: Any, lines: list[Any], steps: int) -> None:
    """Write each line's label before its first point, where the lines are furthest apart."""
    box = ax.get_window_extent()
    points = 72 / ax.figure.dpi
    room = 5.5 * max(len(line.get_label()) for line in lines) + 12
    ax.set_xlim(-steps * min(room / max(box.width * points - room, 1), 1), steps - 0.5)
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick < steps])
    ax.set_ylim(ax.get_ylim())
    to_axes = ax.transScale + ax.transLimits
    lowest = -np.inf
    starts = []
    for line in lines:
        known = np.flatnonzero(np.isfinite(line.get_ydata()))
        if known.size:
            first = known[0]
            height = to_axes.transform((first, line.get_ydata()[first]))[1]
            starts.append((height, first, line))
    for height, first, line in sorted(starts, key=operator.itemgetter(0, 1)):
        lowest = max(height, lowest + 13 / (box.height * points))
        ax.annotate(
            line.get_label(),
            (first, lowest),
            xycoords=("data", "axes fraction"),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            color=line.get_color(),
            fontsize="small",
        )
