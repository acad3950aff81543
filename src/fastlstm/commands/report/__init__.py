"""The demo's report: one HTML file that needs nothing else, not even a network."""

import base64
import contextlib
import hashlib
import html
import io
import json
import math
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import fastlstm as fl
from fastlstm.commands.character_model import CharacterModel
from fastlstm.commands.character_training import ROWS, STEPS, LossCurve
from fastlstm.commands.compressors import Compression
from fastlstm.commands.corpus import Corpus
from fastlstm.commands.report import gradients
from fastlstm.commands.report.charts import Axis, Line, bars, line_chart, power_of_ten
from fastlstm.commands.report.gradients import Beginning, Fall
from fastlstm.commands.report.reading import Reading, half_lives, read

BLANK = '<p class="soft">Nothing but white space, this time.</p>'
LOWEST = -16  # exponent of ten to which a gradient's fall is drawn


@dataclass(frozen=True)
class Demo:
    """What the demo did.

    Attributes
    ----------
    data : Corpus
    model : CharacterModel
        Trained.
    seed : int
    curve : LossCurve
    beginning : Beginning
    seconds : float
        Of training.
    characters : int
        How many were read in training.
    held_out : float
        Bits per character of the held-out text.
    rivals : list of Compression
    samples : dict of float to str
        What the model wrote, by temperature.
    step_seconds : dict of str to float, or None
        Of a training step by backend; None without a compiled one.
    """

    data: Corpus
    model: CharacterModel
    seed: int
    curve: LossCurve
    beginning: Beginning
    seconds: float
    characters: int
    held_out: float
    rivals: list[Compression]
    samples: dict[float, str]
    step_seconds: dict[str, float] | None


def write(path: Path, demo: Demo) -> None:
    """Measure what is still to be measured, and write the page."""
    reading = read(demo.model, demo.data.held_out)
    updates = demo.characters // (ROWS * STEPS)
    falls = gradients.compare(demo.model, updates, demo.beginning, demo.data, demo.seed)
    x, _ = gradients.pieces(demo.model, demo.data.held_out)
    diagnosis = fl.inspection.diagnose(demo.model.layers, x)
    path.write_text(_page(demo, reading, falls, diagnosis), encoding="utf-8")


def _page(
    demo: Demo, reading: Reading, falls: list[Fall], diagnosis: fl.inspection.Diagnosis
) -> str:
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    assert script is not None
    digest = hashlib.sha256(script[1].encode()).digest()
    pieces = {
        "script_hash": base64.b64encode(digest).decode("ascii"),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": _machine(),
        "data": json.dumps(reading.data).replace("<", "\\u003c"),
        **_head(demo),
        **_learning(demo),
        **_units(demo.model, reading),
        **_memory(diagnosis),
        **_gradient(falls),
        **_speed(demo.step_seconds),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: pieces[match[1]], template)


def _head(demo: Demo) -> dict[str, str]:
    facts = {
        "parameters": f"{demo.model.layers.num_parameters():,}",
        "characters read": f"{demo.characters:,}",
        "characters a second": f"{demo.characters / demo.seconds:,.0f}",
        "bits per character": f"{demo.held_out:.2f}",
    }
    return {
        "headline": f"An LSTM that read for {_seconds(demo.seconds)}",
        "description": html.escape(demo.data.description),
        "model": str(demo.model),
        "facts": "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items()),
        "samples": "".join(
            f"<h3>Temperature {temperature}</h3>"
            + (f'<pre class="sample">{html.escape(text)}</pre>' if text.strip() else BLANK)
            for temperature, text in demo.samples.items()
        ),
    }


def _learning(demo: Demo) -> dict[str, str]:
    seconds, bits = demo.curve.points()
    top = max(4.0, 1.2 * bits.min())
    lines = [
        Line("text being learned", "main", seconds, bits),
        Line(f"held-out text, {demo.held_out:.2f}", "main", seconds[-1:], [demo.held_out]),
    ]
    for number, rival in enumerate(demo.rivals):
        lines.append(Line(rival.label, f"level{number}", None, [rival.best]))
    description = (
        f"Bits per character over {seconds[-1]:.0f} seconds of training, from {bits[0]:.2f} to "
        f"{bits[-1]:.2f}; {demo.held_out:.2f} on held-out text"
    )
    x_axis = Axis("seconds", 0, float(max(seconds[-1], demo.seconds)))
    ahead = [rival.name for rival in demo.rivals if rival.best < demo.held_out]
    told = f"It ended at {demo.held_out:.2f} on text that it never saw."
    if ahead:
        told += (
            f" {_listed(ahead)} {'needs' if len(ahead) == 1 else 'need'} fewer: they can quote "
            f"whole phrases of what they have seen."
        )
    return {
        "learning": told,
        "loss_chart": line_chart(description, lines, x_axis, Axis("bits per character", 0, top)),
    }


def _units(model: CharacterModel, reading: Reading) -> dict[str, str]:
    units = len(reading.data["units"])
    buttons = "".join(
        f'<button type="button" data-unit="{f.unit}" aria-pressed="false">Unit {f.unit}: '
        f"{f.what}, r&nbsp;=&nbsp;{_signed(f.correlation)}</button>"
        for f in reading.followers
    )
    followers = (
        " Nobody told it to, but the memory of some units follows what a reader could count. "
        "r is the correlation, on text on which they were not chosen: 1 would be in step, "
        "−1 against it."
    )
    fewer = f" Only the {units} most active units are in it."
    return {
        "units": str(model.hidden_size),
        "presets": buttons,
        "followers": followers if buttons else "",
        "shown_units": fewer if units < model.hidden_size else "",
    }


def _memory(diagnosis: fl.inspection.Diagnosis) -> dict[str, str]:
    constants = diagnosis.layers[0].time_constants
    assert constants is not None
    longest = int(constants.argmax())
    life = f"{constants[longest] * math.log(2):.3g}"
    counted = [(name, float(count), str(count)) for name, count in half_lives(constants)]
    found = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in diagnosis.findings)
    return {
        "half_lives": bars("Characters until half is forgotten, and number of units", counted),
        "half_life": f"In {counted[0][2]} of {len(constants)} units it takes one character or "
        f"less. Unit {longest} holds on longest: {life} characters.",
        "findings": f"<ul>{found}</ul>" if found else "<p>It finds nothing wrong.</p>",
    }


def _gradient(falls: list[Fall]) -> dict[str, str]:
    styles = ["main", "early", "rnn"] if len(falls) == 3 else ["main", "rnn"]
    back = np.arange(len(falls[0].norms))
    lines = [
        Line(f"{fall.name} after {fall.updates:,} updates", style, back, fall.norms)
        for fall, style in zip(falls, styles, strict=True)
    ]
    known = np.concatenate([fall.norms for fall in falls])
    known = np.log10(known[np.isfinite(known) & (known > 0)])
    low = max(LOWEST, math.floor(known.min()) if known.size else -1)
    high = max(0, math.ceil(known.max()) if known.size else 0)
    far = min(100, len(back) - 1)
    told = "; ".join(
        f"{line.label}: {_share(fall.norms[far])}" for line, fall in zip(lines, falls, strict=True)
    )
    as_many = falls[-1].updates == falls[0].updates
    return {
        "gradient_chart": line_chart(
            f"What is left of the gradient by the number of characters back. {told}",
            lines,
            Axis("characters back", 0, len(back) - 1),
            Axis("what is left of the gradient", low, min(high, 16), is_log=True),
        ),
        "gradient": f"What is left {far} characters back. {told}.",
        "gradient_how": (
            "Measured on held-out text, as the norm of ∂L/∂h, L being the cross entropy of one "
            "character, over its norm at that character. The RNN has the LSTM's place in the same "
            "model, began with the same embedding, and learned from the same characters at the "
            f"same learning rates, for {falls[-1].updates:,} updates"
            + (
                ", as the LSTM."
                if as_many
                else ": those of the LSTM's first seconds, so that the dashed line is the one to "
                "compare it with. This run did not train it any longer."
            )
        ),
    }


def _speed(step_seconds: dict[str, float] | None) -> dict[str, str]:
    if step_seconds is None:
        told = "This installation has no compiled kernels: everything ran in the NumPy reference."
        return {"speed": told, "speed_bars": ""}
    (ours, fast), (_, slow) = step_seconds.items()
    rows = [
        (name, value * 1e3, f"{value * 1e3:.1f} ms")
        for name, value in ((f"compiled, {ours}", fast), ("NumPy reference", slow))
    ]
    return {
        "speed": "The same step of training, on one thread: the reference, which is written in "
        f"NumPy, takes {slow / fast:.1f} times as long as the compiled kernels.",
        "speed_bars": bars(f"A training step of {ROWS} × {STEPS} characters", rows),
    }


def _machine() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        fl.show_config()
    return html.escape(printed.getvalue())


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} seconds" if seconds < 10 else f"{seconds:.0f} seconds"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _share(value: float) -> str:
    if not np.isfinite(value):
        return "not finite"
    if value >= 1e-3 or value == 0:
        return f"{value:.1%}"
    exponent = math.floor(math.log10(value))
    return f"{value / 10.0**exponent:.0f} × {power_of_ten(exponent)}"
