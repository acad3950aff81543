"""One call on 1, 2, 4, … cores: `python -m bench.threads` from the project's root.

Each engine is timed with each number of threads, all in turns; its figure is its time with one
thread over its time with so many. A peer's result is compared with fastlstm's first. Float32, hot
turns, without an initial state in inference.
"""

import argparse
import json
import sys
from math import nan
from pathlib import Path

from bench.arguments import names
from bench.cases import Case
from bench.limits import limit, quiet, usable_cores
from bench.turns import protocol

SHAPES = (  # T, B, I, H
    (100, 1, 64, 256),
    (50, 1, 512, 512),
    (20, 1, 1024, 1024),
    (100, 32, 64, 128),
    (50, 32, 256, 256),
    (50, 64, 512, 512),
    (100, 256, 16, 64),
    (10, 128, 1024, 1024),
)
MODES = ("inference", "training")
PEERS = ("torch", "onnxruntime")
FEWEST_ROUNDS = 3


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.threads", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--most", type=int, default=len(usable_cores()), help="threads; default: this machine's")
    add("--peers", type=names, default=list(PEERS), help="default: " + ",".join(PEERS))
    add("--cell", choices=("LSTM", "GRU", "RNN"), default="LSTM")
    add("--seconds", type=float, default=5.0, help="for one shape in one mode; default: 5")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    limit(options.most)
    quiet()
    counts = [2**k for k in range(options.most.bit_length())]
    print(protocol(cold=False, threads=options.most).describe())
    from bench.peers import installed  # now, since peers import NumPy

    try:
        peers, missing = installed(options.peers)
    except ValueError as error:
        parser.error(str(error))
    for name, reason in missing.items():
        print(f"without {name}: {reason}")
    print(f"{'':<36}{'ms':>9}" + "".join(f"{f'{count} threads':>12}" for count in counts[1:]))
    rows = []
    for mode in MODES:
        for shape in SHAPES:
            case = Case("threads", *shape, cell=options.cell)
            for name, times in measure(case, mode, counts, peers, options.seconds).items():
                print(line(f"{mode} {case.label} {name}", times), flush=True)
                seconds = dict(zip(map(str, counts), times, strict=True))
                rows.append({"mode": mode, "case": case.label, "engine": name, "seconds": seconds})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


def measure(
    case: Case, mode: str, counts: list[int], peers: list[str], seconds: float
) -> dict[str, list[float]]:
    """Median seconds of a call of each engine, by number of threads."""
    # Only now that this process is held to its cores: these import NumPy and the peers.
    from bench import turns
    from bench.problem import make_problem
    from bench.timing import build

    problem = make_problem(case, with_state=mode != "inference")
    engines = {}
    for count in counts:
        built, left_out = build(problem, mode, count, peers)
        engines |= {(name, count): engine for name, engine in built.items()}
        for name, reason in left_out.items():
            if "DIFFERS" in reason:
                print(f"{mode} {case.label} {name}, {count} threads: {reason}")
    runs = {f"{name} {count}": engine.call(mode) for (name, count), engine in engines.items()}
    found = turns.medians(
        runs,
        protocol(cold=False, threads=counts[-1]),
        seconds,
        FEWEST_ROUNDS,
        prepare=lambda key: engines[key.split()[0], int(key.split()[1])].prepare(),
    )
    return {
        name: [found.get(f"{name} {count}", nan) for count in counts]
        for name in dict.fromkeys(name for name, _ in engines)
    }


def line(label: str, times: list[float]) -> str:
    """Milliseconds with one thread, and how many times as fast it is with more."""
    faster = "".join(f"{times[0] / seconds:>12.2f}" for seconds in times[1:])
    return f"{label:<36}{1e3 * times[0]:>9.3f}{faster}"


if __name__ == "__main__":
    sys.exit(main())
