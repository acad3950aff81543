"""Where figures come from: the machine, the commit, the date; and reports as files."""

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parents[1]


def origin(versions: dict[str, str]) -> dict:
    """How each report begins; `versions` are the packages'."""
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
    }


def opening(report: dict, threads: int) -> str:
    """The same in two lines."""
    return (
        f"{report['machine']['processor']}, {threads} thread{'s' * (threads > 1)}; "
        f"commit {report['commit']}, {report['date']}\n"
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    )


def write(report: dict, path: Path) -> None:
    """Write `report` as JSON."""
    text = json.dumps(report, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


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
