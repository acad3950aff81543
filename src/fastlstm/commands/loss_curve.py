"""The loss curve of the demo, compared with the compressors."""

from pathlib import Path

from fastlstm.commands.character_training import LossCurve
from fastlstm.commands.compressors import Compression

INK, GREY, BLUE = "#222222", "#888888", "#1f6fb4"


def save_loss_curve(
    path: Path, curve: LossCurve, held_out: float, rivals: list[Compression]
) -> None:
    """Draw bits per character against seconds, as a PNG."""
    from matplotlib.figure import Figure

    seconds, bits = curve.points()
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(seconds, bits, color=BLUE, linewidth=1.5, label="text being learned")
    axes.plot(
        seconds[-1:], [held_out], "o", color=BLUE, label=f"held-out text, {held_out:.2f}", zorder=3
    )
    for rival, style in zip(rivals, (":", "--", "-."), strict=True):
        axes.axhline(
            rival.best, color=GREY, linewidth=1, linestyle=style, label=rival.label, zorder=1
        )
    axes.set_ylim(top=max(4.0, 1.2 * bits.min()))  # without it, the first steps fill half the plot
    axes.set_xlabel("seconds", color=INK)
    axes.set_ylabel("bits per character", color=INK)
    axes.set_title("fastlstm demo", color=INK, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
