"""This build beside an older one: `python -m bench.old_new OLD_SRC` from the project's root.

OLD_SRC is the folder of another checkout that holds its built package, its `src`. Each build has a
process of its own on the same core, and they take turns: while one is timed, the other waits for
its next command. Both make the same problems from the same seed. Prints the median of new / old
over pairs of neighboring turns: below 1, this build is the faster one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import origin
from bench.arguments import groups, modes
from bench.cases import MODES, NAMES, Case, select
from bench.limits import limit
from bench.turns import MOST_ROUNDS, Protocol, protocol

FEWEST_PAIRS = 5
SAME = 1e-3  # by what part the sums of both results may differ


class Worker:
    """A process with one build; see `bench.turn_worker`.

    Parameters
    ----------
    how : Protocol
    source : Path, optional
        The folder that fastlstm is imported from; by default where this process would.

    Raises
    ------
    RuntimeError
        It ended; what it said is on this process's stderr.
    """

    def __init__(self, how: Protocol, source: Path | None = None):
        folders = [source, os.environ.get("PYTHONPATH"), origin.ROOT]
        path = os.pathsep.join(str(folder) for folder in folders if folder)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.turn_worker", json.dumps(how._asdict())],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.build = self._answer()

    def ask(self, command: Any) -> Any:
        """The answer to one command."""
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # without commands it ends

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended with status {self._process.wait()}")
        return json.loads(line)


def main() -> int:
    """Measure and print; returns the exit status: 1 where results differ."""
    parser = _parser()
    options = parser.parse_args()
    cases = select(options.cases, options.only)
    if not cases:
        parser.error(f"only: no case's label contains {options.only!r}")
    limit(1)  # the workers inherit it
    how = protocol(cold=options.cold)
    with Worker(how) as new, Worker(how, options.old_src.resolve()) as old:
        if new.build["file"] == old.build["file"]:
            parser.error(f"old_src: both builds are {new.build['file']}")
        if new.build["backend"] != old.build["backend"]:
            parser.error(
                f"old_src: expected a build that runs on {new.build['backend']}, as this one, "
                f"got {old.build['backend']}; is it built in place?"
            )
        return _compare(options, cases, how, new, old)


def _compare(
    options: argparse.Namespace, cases: list[Case], how: Protocol, new: Worker, old: Worker
) -> int:
    builds = {"new": new.build, "old": old.build}
    versions = {f"{name} fastlstm": build["version"] for name, build in builds.items()}
    report = origin.origin(versions) | {"builds": builds, "protocol": how._asdict(), "rows": []}
    print(origin.opening(report, threads=1), how.describe(), sep="\n")
    for name, build in builds.items():
        print(f"{name}: {build['file']}, {build['backend']}")
    print()
    for mode in options.modes:
        print(f"{mode}\n{'T, B, I, H':<44}{'new µs':>12}{'old µs':>12}{'new / old':>12}")
        rows = [_row(case, mode, options.seconds, new, old) for case in cases]
        print(f"geometric mean {_mean(rows):.3f}\n")
        report["rows"] += rows
        if options.json:
            origin.write(report, options.json)
    return 1 if any(row["differs"] for row in report["rows"]) else 0


def _row(case: Case, mode: str, seconds: float, new: Worker, old: Worker) -> dict[str, Any]:
    """Time one case in one mode, and print it."""
    sums = [worker.ask({"case": asdict(case), "mode": mode}) for worker in (new, old)]
    pairs = _pairs(new, old, seconds)
    ratios = [ours / theirs for ours, theirs in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    row = {
        "label": case.label,
        "case": asdict(case),
        "mode": mode,
        "pairs": len(pairs),
        "new": statistics.median(ours for ours, _ in pairs),
        "old": statistics.median(theirs for _, theirs in pairs),
        "ratio": ratio,
        "quartiles": [low, high],
        "differs": abs(sums[0] - sums[1]) > SAME * sums[1],
    }
    print(
        f"{case.label:<44}{row['new'] * 1e6:>12.2f}{row['old'] * 1e6:>12.2f}{ratio:>12.3f}"
        f"   half of {len(pairs)} pairs: {low:.3f} to {high:.3f}"
        + "   RESULTS DIFFER"
        * row["differs"],
        flush=True,
    )
    return row


def _pairs(new: Worker, old: Worker, seconds: float) -> list[tuple[float, float]]:
    """Seconds a call of both, in turns next to each other; each is first in every other pair."""
    pairs: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while len(pairs) < MOST_ROUNDS:
        if len(pairs) >= FEWEST_PAIRS and time.perf_counter() > end:
            break
        order = (new, old) if len(pairs) % 2 == 0 else (old, new)
        took = {worker: worker.ask("turn") for worker in order}
        pairs.append((took[new], took[old]))
    return pairs


def _mean(rows: list[dict[str, Any]]) -> float:
    return statistics.geometric_mean(row["ratio"] for row in rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.old_new", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("old_src", type=Path, help="the other checkout's src, with its extensions built in place")
    add("--cases", type=groups, default=["grid", "steps"], help=f"of {', '.join(NAMES)}")
    add("--only", default="", metavar="TEXT", help="only cases whose label contains it")
    add("--modes", type=modes, default=list(MODES), help=f"default: {','.join(MODES)}")
    add("--seconds", type=float, default=2.0, help="for one case in one mode; default: 2")
    add("--cold", action="store_true", help="turns of 0.5 ms")
    add("--json", type=Path, metavar="FILE", help="write the report")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
