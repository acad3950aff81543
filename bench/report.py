"""What a comparison found: rows, their summary, and the machine they come from."""

import json
import os
import platform
import statistics
import subprocess
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from bench.cases import Case

OURS = "fastlstm"
ROOT = Path(__file__).parents[1]


def new_report(threads: int, seconds: float, versions: dict[str, str], missing: dict) -> dict:
    """A report without rows; `missing` holds the reason for each peer that is not installed."""
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": versions,
        "commit": _commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "threads": threads,
        "seconds": seconds,
        "missing": missing,
        "rows": [],
    }


def add_row(report: dict, case: Case, mode: str, medians: dict, left_out: dict) -> dict:
    """Append what one case took, in seconds a call, and return the row."""
    row = {
        "label": case.label,
        "case": asdict(case),
        "mode": mode,
        "medians": medians,
        "left_out": left_out,
    }
    report["rows"].append(row)
    return row


def ratio(row: dict) -> float | None:
    """The fastest peer's time in units of fastlstm's; None where there is no peer."""
    peers = [median for name, median in row["medians"].items() if name != OURS]
    return min(peers) / row["medians"][OURS] if peers else None


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
    threads = report["threads"]
    return "\n".join(
        [
            f"{report['machine']['processor']}, {threads} thread{'s' * (threads > 1)}; "
            f"commit {report['commit']}, {report['date']}",
            ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
            *(f"left out: {name}: {reason}" for name, reason in report["missing"].items()),
            "Medians in µs; ratio: fastest peer / fastlstm.",
        ]
    )


def heading(names: list[str]) -> str:
    """The table's first line; columns for the engines `names`."""
    return f"{'T, B, I, H':<44}" + "".join(f"{name:>{_width(name)}}" for name in names) + "   ratio"


def line(row: dict, names: list[str]) -> str:
    """One case: µs a call of each engine, and the ratio; for curves µs a step too."""
    found, quotient = row["medians"], ratio(row)
    text = f"{row['label']:<44}"
    for name in names:
        text += f"{f'{found[name] * 1e6:.1f}' if name in found else '–':>{_width(name)}}"
    text += f"{'–' if quotient is None else f'{quotient:.2f}':>8}"
    if row["case"]["group"] == "curves":
        text += f"   {found[OURS] * 1e6 / row['case']['T']:.2f} a step"
    return text


def closing(report: dict) -> str:
    """The summary, and who was left out and why, in lines."""
    lines = [
        f"{name}: geometric mean {found['geometric_mean']:.2f}, worst {found['worst']:.2f} "
        f"({found['worst_case']}), {found['cases']} cases"
        for name, found in summary(report).items()
    ]
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
    text = json.dumps({**report, "summary": summary(report)}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> dict:
    """What `save` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def _width(name: str) -> int:
    return max(12, len(name) + 3)


def _processor() -> str:
    try:
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of these files, with a plus if tracked ones were changed since."""
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        commit = _output([*git, "rev-parse", "--short", "HEAD"])
        return commit + "+" * bool(_output([*git, "status", "--porcelain", "-uno"]))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
