"""What a comparison found: rows, their summary, and how they came to be."""

import json
import statistics
from dataclasses import asdict
from pathlib import Path

from bench import origin
from bench.cases import Case
from bench.cells import VARIANTS
from bench.turns import Protocol, protocol

OURS = "fastlstm"
PLAIN = "plain"  # the way that a variant is timed beside


def new_report(
    threads: int,
    seconds: float,
    versions: dict[str, str],
    missing: dict[str, str],
    limits: dict,
    how: Protocol,
) -> dict:
    """A report without rows; `missing` holds the reason for each peer that is not installed.

    `limits` is from `Probes.limits`, or holds under "missing" why there are none.
    """
    return {
        **origin.origin(versions),
        "threads": threads,
        "seconds": seconds,
        "protocol": how._asdict(),
        "missing": missing,
        "limits": limits,
        "rows": [],
    }


def add_row(
    report: dict,
    case: Case,
    mode: str,
    medians: dict[str, float],
    left_out: dict[str, str],
    beside: dict[str, float],
    bound: float | None,
) -> dict:
    """Append what one case took, and return the row.

    Parameters
    ----------
    medians : seconds a call of each engine
    left_out : the reason for each peer that was not timed
    beside : seconds a step of fastlstm in other ways
    bound : the least seconds that the hardware allows a call, where that is known
    """
    row = {
        "label": case.label,
        "case": asdict(case),
        "mode": mode,
        "medians": medians,
        "left_out": left_out,
        "beside": beside,
        "bound": bound,
    }
    report["rows"].append(row)
    return row


def ratio(row: dict) -> float | None:
    """The fastest peer's time in units of fastlstm's; None where there is no peer."""
    peers = [median for name, median in row["medians"].items() if name != OURS]
    return min(peers) / row["medians"][OURS] if peers else None


def of_limit(row: dict) -> float | None:
    """The part of the hardware's speed that fastlstm reaches; None where it is not known."""
    return row["bound"] / row["medians"][OURS] if row.get("bound") else None


def beside(row: dict) -> dict[str, float]:
    """A step's time of fastlstm in other ways, in units of its time in the row's own way."""
    step = row["medians"][OURS] / row["case"]["T"]
    ways = row.get("beside", {}).items()
    return {name: seconds / step for name, seconds in ways if name != PLAIN}


def times_plain(row: dict) -> float | None:
    """A variant's time in units of the plain LSTM's of the same shape; None if it is none."""
    plain = row.get("beside", {}).get(PLAIN)
    return row["medians"][OURS] / row["case"]["T"] / plain if plain else None


def summary(report: dict) -> dict:
    """For each group and mode with peers: geometric mean and worst ratio, and whose it is."""
    found: dict[str, dict] = {}
    for row in report["rows"]:
        if ratio(row) is not None:
            found.setdefault(f"{row['case']['group']} {row['mode']}", []).append(row)
    return {
        name: {
            "cases": len(rows),
            "geometric_mean": statistics.geometric_mean(map(ratio, rows)),
            "worst": min(map(ratio, rows)),
            "worst_case": min(rows, key=ratio)["label"],
        }
        for name, rows in found.items()
    }


def opening(report: dict) -> str:
    """Where the figures come from, and the peers that are not installed, in lines."""
    return "\n".join(
        [
            origin.opening(report, report["threads"]),
            *(f"left out: {name}: {reason}" for name, reason in report["missing"].items()),
            _limits(report.get("limits", {"missing": "the report is older than the probes"})),
            Protocol(**report["protocol"]).describe(),
            "No engine is given a state in inference; each is in inference-state and training.",
            "Medians in µs. Ratio: fastest peer / fastlstm. "
            "Of limit: matrix products alone, at these limits / fastlstm.",
            "Behind a colon: a step of fastlstm in that way / in the row's own.",
        ]
    )


def heading(names: list[str]) -> str:
    """The table's first line; columns for the engines `names`."""
    columns = "".join(f"{name:>{_width(name)}}" for name in names)
    return f"{'T, B, I, H':<44}{columns}{'ratio':>8}{'of limit':>10}"


def line(row: dict, names: list[str]) -> str:
    """One case: µs a call of each engine, ratio, share of the limit, and what its group adds."""
    found, quotient, share = row["medians"], ratio(row), of_limit(row)
    text = f"{row['label']:<44}"
    for name in names:
        text += f"{f'{found[name] * 1e6:.1f}' if name in found else '–':>{_width(name)}}"
    text += f"{'–' if quotient is None else f'{quotient:.2f}':>8}"
    text += f"{'–' if share is None else f'{share:.0%}':>10}"
    if row["case"]["group"] in ("curves", "steps"):
        text += f"   {found[OURS] * 1e6 / row['case']['T']:.2f} a step"
    times = times_plain(row)
    if times is not None:
        text += f"   {times:.2f} times the plain LSTM"
        text += _wanted(row["case"]["variant"], row["mode"])
    return text + "".join(f"   {name}: {times:.2f}" for name, times in beside(row).items())


def closing(report: dict) -> str:
    """The summary, and who was left out and why, in lines."""
    lines = [
        f"{name}: geometric mean {found['geometric_mean']:.2f}, worst {found['worst']:.2f} "
        f"({found['worst_case']}), {found['cases']} cases"
        for name, found in summary(report).items()
    ]
    lines += _variants(report) + _ways(report)
    reasons: dict[str, list[str]] = {}
    for row in report["rows"]:
        for name, reason in row["left_out"].items():
            where = f" ({row['mode']} {row['label']})" if "DIFFERS" in reason else ""
            names = reasons.setdefault(reason + where, [])
            names += [name] * (name not in names)
    lines += [f"left out: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    return "\n".join(lines)


def save(report: dict, path: Path) -> None:
    """Write the report and its summary as JSON."""
    origin.write({**report, "summary": summary(report)}, path)


def load(path: Path) -> dict:
    """What `save` wrote.

    Reports without a protocol are older: their turns were cold, and inference had a state.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    if "protocol" not in report:
        report["protocol"] = protocol(cold=True, threads=report["threads"])._asdict()
        for row in report["rows"]:
            row["mode"] = row["mode"].replace("inference", "inference-state")
    return report


def _limits(limits: dict) -> str:
    if "missing" in limits:
        return f"limits: not measured: {limits['missing']}"
    flops = ", ".join(
        f"{value / 1e9:.1f} GF/s in {name}" for name, value in limits["flops_per_second"].items()
    )
    reading = "".join(
        f", {found['bytes_per_second'] / 1e9:.0f} GB/s from {level} ({found['size'] // 1024} KB)"
        for level, found in limits["reading"].items()
    )
    return f"limits of one core: {flops}{reading}"


def _variants(report: dict) -> list[str]:
    """How many times the plain LSTM's time each variant takes, and is to take at most."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in report["rows"]:
        times = times_plain(row)
        if times is not None:
            found.setdefault((row["mode"], row["case"]["variant"]), {})[row["label"]] = times
    lines = []
    for (mode, variant), values in found.items():
        most = max(values, key=values.__getitem__)
        lines.append(
            f"{mode}, {variant} / plain LSTM: geometric mean "
            f"{statistics.geometric_mean(values.values()):.2f}, most {values[most]:.2f} ({most}), "
            f"{len(values)} cases{_wanted(variant, mode)}"
        )
    return lines


def _wanted(variant: str, mode: str) -> str:
    wanted = VARIANTS[variant].wanted.get(mode)
    return f"; wanted: at most {wanted:.2f}" if wanted else ""


def _ways(report: dict) -> list[str]:
    """What became of a step's time in the other ways, and whether it depends on T."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    lines = []
    for row in report["rows"]:
        times = beside(row)
        for name, value in times.items():
            found.setdefault((row["mode"], name), {})[row["label"]] = value
        lengths = [1.0, *(value for name, value in times.items() if name.startswith("T = "))]
        if len(lengths) > 1:
            lines.append(
                f"{row['mode']} {row['label']} and its beginnings: "
                f"longest / shortest time a step {max(lengths) / min(lengths):.2f}"
            )
    for (mode, name), values in found.items():
        if not name.startswith("T = "):
            least = min(values, key=values.__getitem__)
            lines.append(
                f"{mode}, {name} / fastlstm: geometric mean "
                f"{statistics.geometric_mean(values.values()):.2f}, "
                f"least {values[least]:.2f} ({least}), {len(values)} cases"
            )
    return lines


def _width(name: str) -> int:
    return max(12, len(name) + 3)
