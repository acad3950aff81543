"""Ways to call fastlstm for one step: `python -m bench.forms` from the project's root.

T = B = I = 1, 40 hidden units, float32, one core. Each form is timed in units of `lstm(x, state)`
and, where ONNX Runtime has the same model, beside its `run`: in hot turns, all forms turn about.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.limits import limit
from bench.turns import Protocol, medians, protocol

if TYPE_CHECKING:
    from bench.one_step import Form

RIVAL = "onnxruntime"


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.forms", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--seconds", type=float, default=30.0, help="for all rounds together; default: 30")
    add("--rounds", type=int, default=15, help="at least; default: 15")
    add("--json", type=Path, metavar="FILE", help="write the report")
    options = parser.parse_args()
    limit(1)
    # Only now that this process is held to its core: these import NumPy and ONNX Runtime.
    from bench import origin
    from bench.one_step import forms
    from bench.peers import PEERS, FastLSTM

    missing = PEERS[RIVAL].available()
    versions = FastLSTM.versions() | ({} if missing else PEERS[RIVAL].versions())
    how = protocol(cold=False)
    report = origin.origin(versions) | {"seconds": options.seconds, "protocol": how._asdict()}
    print(origin.opening(report, threads=1), how.describe(), sep="\n")
    if missing:
        print(f"left out: {RIVAL}: {missing}")
    report["rows"] = measure(forms(), how, options.seconds, options.rounds)
    print(table(report["rows"]))
    if options.json:
        origin.write(report, options.json)
    return 0


def measure(
    forms: "list[Form]", how: Protocol, seconds: float, fewest_rounds: int
) -> list[dict[str, Any]]:
    """A row for each form; the first one is the plain one."""
    runs = {form.name: form.call for form in forms}
    beside = {f"{RIVAL}: {form.name}": form.beside for form in forms if form.beside}
    found = medians(runs | beside, how, seconds, fewest_rounds)
    return [
        {
            "form": form.name,
            "seconds": found[form.name],
            "times_plain": found[form.name] / found[forms[0].name],
            "most": form.most,
            RIVAL: found.get(f"{RIVAL}: {form.name}"),
        }
        for form in forms
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in lines, and how many forms take no more than they are to."""
    lines = [f"{'form':<43}{'µs':>8}{'/ plain':>9}{'at most':>9}{RIVAL:>13}{'ratio':>8}"]
    for row in rows:
        ours, most, theirs = row["seconds"], row["most"], row[RIVAL]
        text = f"{row['form']:<43}{ours * 1e6:>8.2f}{row['times_plain']:>9.2f}"
        text += f"{'–':>9}" if most is None else f"{most:>9.2f}"
        text += f"{'–':>13}{'–':>8}" if theirs is None else f"{theirs * 1e6:>13.2f}"
        text += "" if theirs is None else f"{theirs / ours:>8.2f}"
        lines.append(text + "   over" * _is_over(row))
    asked = [row for row in rows if row["most"] is not None]
    within = len(asked) - sum(map(_is_over, asked))
    lines.append(f"Within what they are to take: {within} of {len(asked)} forms.")
    return "\n".join([*lines, f"Ratio: {RIVAL} / fastlstm."])


def _is_over(row: dict[str, Any]) -> bool:
    return row["most"] is not None and row["times_plain"] > row["most"]


if __name__ == "__main__":
    sys.exit(main())
