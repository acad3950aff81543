"""The report as a picture: how many times the fastest peer's time fastlstm's goes into."""

import textwrap
from pathlib import Path

from bench.report import ratio

WIDTH, DOTS_PER_INCH = 9.0, 100  # 900 pixels
MOST_LETTERS = 110  # of a line of the title
COLORS = {"inference": "#1f6fb4", "inference-state": "#7fb2de", "training": "#e08a1e"}
TICKS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)


def draw(report: dict, path: Path) -> None:
    """Draw `report` to a .png or .svg file: a bar for each case and mode that has peers.

    Raises
    ------
    ValueError
        When no case has a peer.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [row for row in report["rows"] if ratio(row) is not None]
    if not rows:
        raise ValueError("nothing to draw: no case has a peer")
    labels = list(dict.fromkeys(row["label"] for row in rows))
    modes = [mode for mode in COLORS if any(row["mode"] == mode for row in rows)]
    thickness = 0.8 / len(modes)
    with mpl.rc_context({"font.size": 9, "svg.hashsalt": "fastlstm"}):
        height = 1.3 + len(labels) * 0.17 * len(modes) + 0.12 * len(labels)
        figure = Figure(figsize=(WIDTH, height), dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        for number, mode in enumerate(modes):
            ours = [row for row in rows if row["mode"] == mode]
            places = [labels.index(row["label"]) - 0.4 + thickness * (number + 0.5) for row in ours]
            _bars(axes, places, [ratio(row) for row in ours], thickness, mode)
        _frame(axes, labels, [ratio(row) for row in rows])
        # The figure's title, since that of the axes begins behind the labels and would be cut.
        figure.suptitle(_title(report), x=0.01, ha="left", fontsize=10)
        if len(modes) > 1:
            axes.legend(loc="lower right", frameon=False)
        # Without a date, the same report gives the same file.
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata)


def _bars(axes, places: list[float], ratios: list[float], thickness: float, mode: str) -> None:
    """Bars from 1, each with its ratio at the end."""
    lengths = [value - 1 for value in ratios]
    axes.barh(places, lengths, thickness * 0.9, left=1, color=COLORS[mode], label=mode)
    for place, value in zip(places, ratios, strict=True):
        side = 1 if value >= 1 else -1
        axes.annotate(
            f"{value:.2f}" if value < 9.95 else f"{value:.0f}",
            (value, place),
            (3 * side, 0),
            textcoords="offset points",
            va="center_baseline",
            ha="left" if side > 0 else "right",
            fontsize=7,
        )


def _frame(axes, labels: list[str], ratios: list[float]) -> None:
    low, high = min(0.9, *ratios) * 0.85, max(2.0, *ratios) * 1.2
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.axvline(1, color="black", linewidth=1)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("time of the fastest peer / time of fastlstm (log scale)")


def _title(report: dict) -> str:
    peers = {name for row in report["rows"] for name in row["medians"]} - {"fastlstm"}
    threads = report["threads"]
    lines = (
        f"fastlstm against the fastest of {', '.join(sorted(peers))}: higher is better",
        f"{report['machine']['processor']}, {threads} thread{'s' * (threads > 1)}; "
        f"{report['protocol']['name']} turns; cases are T, B, I, H",
    )
    return "\n".join(textwrap.fill(line, MOST_LETTERS) for line in lines)
