"""A text whose characters are colored by what a unit did while it read them."""

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm.checks import import_pyplot, read_index
from fastlstm.inspection import pictures
from fastlstm.inspection.trace import trace
from fastlstm.layers.embedding import Embedding
from fastlstm.layers.sequential import Sequential
from fastlstm.module import Module

# Colors lie behind the text, the stronger the larger the value; a bar under the character tells
# negative values from positive ones without color.
STYLE = """<style>
.fastlstm-text{--up:214 128 20;--down:31 111 180;--most:.75}
.fastlstm-text{font-family:ui-monospace,monospace;line-height:1.7}
.fastlstm-text pre{font:inherit;margin:.5em 0;white-space:pre-wrap;overflow-wrap:anywhere}
.fastlstm-text i{font-style:normal;padding:.1em 0;
background:rgb(var(--up)/calc(var(--v)*var(--most)))}
.fastlstm-text .n{background:rgb(var(--down)/calc(var(--v)*.6));
box-shadow:inset 0 -.15em rgb(var(--down)/var(--v))}
.fastlstm-text .b::before{content:"↵";opacity:.5}
@media (prefers-color-scheme:dark){.fastlstm-text{--up:240 150 40;--down:80 160 235;--most:.55}}
</style>
"""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{caption}</title>
<style>:root{{color-scheme:light dark}}body{{max-width:80ch;margin:2em auto;padding:0 1em}}</style>
</head>
<body>
{body}</body>
</html>
"""
PAPER = "#1f6fb4", "#ffffff", "#e08a1e"  # from -1 to 1, behind black text


@dataclass(frozen=True, slots=True, eq=False)
class TextTrace:
    """A text, and what a unit did at each of its characters. A notebook shows it in color.

    Attributes
    ----------
    text : str
    values : array (len(text),)
        From -1 to 1: tanh of the cell state, or the hidden state or candidate as it is. A gate is
        from 0 to 1.
    what : str
        The array's name, as in `LayerTrace`.
    unit : int
    layer : str
        The name of the layer.
    """

    text: str
    values: np.ndarray
    what: str
    unit: int
    layer: str

    @property
    def caption(self) -> str:
        """What the colors show, in a line."""
        shown = (
            "tanh of the cell state"
            if self.what == "cell"
            else pictures.LABELS.get(self.what, self.what)
        )
        return f"{shown}, unit {self.unit} of layer {self.layer}"

    @property
    def html(self) -> str:
        """HTML with its style and without a script: an element ``<i>`` for every character."""
        pieces = []
        for character, value in zip(self.text, self.values, strict=True):
            names = ("n " if value < 0 else "") + ("b" if character == "\n" else "")
            kind = f' class="{names.strip()}"' if names else ""
            strength = min(abs(value), 1) if np.isfinite(value) else 0
            inner = "&#13;" if character == "\r" else html.escape(character)
            pieces.append(f'<i{kind} style="--v:{strength:.2f}" title="{value:.3f}">{inner}</i>')
        caption = html.escape(self.caption)
        return (
            f'{STYLE}<div class="fastlstm-text"><small>{caption}</small>\n'
            f"<pre>{''.join(pieces)}</pre></div>\n"
        )

    def _repr_html_(self) -> str:
        return self.html

    def to_html(self, path: Any) -> None:
        """Write a page with the text, readable in light and dark mode and on a phone."""
        page = PAGE.format(caption=html.escape(self.caption), body=self.html)
        Path(path).write_text(page, encoding="utf-8")

    def to_png(self, path: Any) -> None:
        """Write the picture that `plot` draws. It needs matplotlib (extra `plot`)."""
        plt = import_pyplot()
        figure = self.plot().figure
        figure.savefig(path, dpi=150, format="png")
        plt.close(figure)

    def plot(self, ax: Any = None, columns: int = 80) -> Any:
        """Draw the text with matplotlib.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Without it, a new figure as large as the text needs.
        columns : int
            Characters in a line.

        Returns
        -------
        ax : matplotlib Axes
            Its image has a number for every place of a character.

        Raises
        ------
        ImportError
            matplotlib is not installed.
        """
        plt = import_pyplot()
        places = _places(self.text, columns)
        lines = places[-1][0] + 1
        width = max(column for _, column in places) + 1
        if ax is None:
            size = 0.3 + 0.085 * max(width, 50), 0.5 + 0.22 * lines
            ax = plt.subplots(figsize=size, layout="constrained")[1]
        grid = np.full((lines, width), np.nan)
        grid[tuple(zip(*places, strict=True))] = self.values
        colors = pictures.signed_colors("paper", PAPER)
        ax.imshow(grid, cmap=colors, vmin=-1.3, vmax=1.3, aspect="auto", interpolation="nearest")
        glyphs = _glyphs()
        style = {"family": "monospace", "fontsize": 9, "ha": "center", "va": "center"}
        for character, (line, column) in zip(self.text, places, strict=True):
            ax.text(column, line, glyphs(character), parse_math=False, **style)
        y, x = np.nonzero(grid < 0)
        if y.size:
            strength = np.minimum(-grid[y, x], 1)
            look = {"color": PAPER[0], "alpha": strength, "linewidth": 1.5}
            ax.hlines(y + 0.42, x - 0.5, x + 0.5, **look)
        ax.set_title(self.caption, loc="left", fontsize="small", color=pictures.INK)
        ax.set_axis_off()
        return ax


def text_trace(
    model: Module,
    text: str,
    *,
    unit: int | None = None,
    what: str = "cell",
    layer: int = -1,
    encode: Callable[[str], Any] | None = None,
) -> TextTrace:
    """Color each character of a text by what one unit did when the model had read it.

    After Karpathy, Johnson & Fei-Fei (2015), Visualizing and Understanding Recurrent Networks: some
    units count the position in a line, or are on within quotes.

    Parameters
    ----------
    model : Module
        A character model: it reads one step for each character, or for each byte of UTF-8.
    text : str
    unit : int, optional
        Without it, the unit with the largest standard deviation over the text.
    what : str
        An array of the layer: "cell", "hidden", "forget_gate", ... The cell state is shown as
        tanh(cell).
    layer : int
        The place in the layers of `trace`.
    encode : function, optional
        From the text to what the model takes for one sequence, with a step for each character or
        byte. Without it, the bytes of the text in UTF-8, for models that begin with an Embedding
        of 256 or more.

    Returns
    -------
    TextTrace
        A character of several bytes has the value after its last one.

    Raises
    ------
    ValueError
        The text is empty, `unit` or `layer` is out of range, the layer has no such array, or the
        model reads another number of steps than the text has characters or bytes.
    TypeError
        The text is no str.

    Examples
    --------
    >>> import fastlstm as fl
    >>> model = fl.Sequential(fl.Embedding(256, 8, rng=0), fl.LSTM(8, 16, rng=0))
    >>> shown = fl.inspection.text_trace(model, "one line", what="forget_gate")
    >>> shown.values.shape
    (8,)
    >>> shown.to_html("unit.html")  # doctest: +SKIP
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected a str, got {type(text).__name__}")
    if not text:
        raise ValueError("text: expected at least one character, got ''")
    if encode is None:
        _check_reads_bytes(model)
        encode = _bytes_of
    layers = trace(model, encode(text)).layers
    record = layers[read_index("layer", layer, len(layers))]
    if what not in record.arrays:
        raise ValueError(f"what: expected one of {list(record.arrays)}, got {what!r}")
    values = record.arrays[what]
    if values.shape[1] != 1:
        raise ValueError(f"encode: expected one sequence, got {values.shape[1]}")
    values = values[_last_steps(text, len(values)), 0]
    if what == "cell":
        values = np.tanh(values)
    if unit is None:
        unit = int(pictures.by_activity(values)[0])
    unit = read_index("unit", unit, values.shape[1])
    return TextTrace(text, values[:, unit].copy(), what, unit, record.name)


def _bytes_of(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _check_reads_bytes(model: Module) -> None:
    """Raise if the first layer is known and does not take the numbers of bytes."""
    first: Any = model
    while isinstance(first, Sequential) and len(first):
        first = first[0]
    takes = isinstance(first, Embedding) and len(first.weight) >= 256
    if not takes and type(first).__module__.startswith("fastlstm."):
        raise ValueError(
            f"encode: expected a function from a text to the model's input, since the model "
            f"begins with {first!r}, not with an Embedding of 256 or more; got None"
        )


def _last_steps(text: str, steps: int) -> np.ndarray:
    """The step at which each character has been read: of its own, or of its last byte."""
    if steps == len(text):
        return np.arange(steps)
    ends: np.ndarray = np.cumsum([len(character.encode()) for character in text])
    if steps != ends[-1]:
        raise ValueError(
            f"encode: expected a step for each of {len(text)} characters or {ends[-1]} bytes, "
            f"got {steps}"
        )
    return ends - 1


def _places(text: str, columns: int) -> list[tuple[int, int]]:
    """The line and column of each character; a newline ends its line."""
    places = []
    line = column = 0
    for character in text:
        if column == columns:
            line, column = line + 1, 0
        places.append((line, column))
        column += 1
        if character == "\n":
            line, column = line + 1, 0
    return places


def _glyphs() -> Callable[[str], str]:
    """What to draw for a character: itself, if the font has it."""
    from matplotlib import font_manager

    font = font_manager.get_font(font_manager.findfont("monospace"))

    def glyph(character: str) -> str:
        if character == "\n":
            return "↵"
        known = character.isprintable() and font.get_char_index(ord(character))
        return character if known else "□"

    return glyph
