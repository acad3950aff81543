"""fastlstm beside its peers: `python -m bench.compare` from the project's root.

Every engine gets the same weights, arrays and threads, is checked against fastlstm, and is then
timed turn about with the others in one process: hot, many calls in a row, or with `--cold` so few
that the others have pushed its data out of the caches. Prints medians, ratios and, on one core, the
part of the hardware's limit that fastlstm reaches; writes them as JSON and as a picture. Exits with
1 when a peer's result differs.
"""

import argparse
import sys
from pathlib import Path

from bench.arguments import groups, modes, names
from bench.cases import MODES, NAMES, select
from bench.limits import limit, quiet
from bench.turns import protocol

DEFAULT = ("inference", "training")


def main() -> int:
    """Measure, or draw what was measured; returns the exit status."""
    parser = _parser()
    options = parser.parse_args()
    try:
        if options.from_json:
            return _draw_again(options.from_json, options.picture)
        cases = select(options.cases, options.only)
        if not cases:
            raise ValueError(f"only: no case's label contains {options.only!r}")
        limit(options.threads)
        quiet()
        from bench.peers import installed  # now, since peers import NumPy

        peers, missing = installed(options.peers)
    except ValueError as error:
        parser.error(str(error))
    return _compare(options, cases, peers, missing)


def _compare(
    options: argparse.Namespace, cases: list, peers: list[str], missing: dict[str, str]
) -> int:
    # Only now that this process is held to its cores: these import NumPy and the peers.
    from bench import report as reports
    from bench.bound import least_seconds
    from bench.peers import PEERS, FastLSTM, others
    from bench.picture import draw
    from bench.problem import make_problem
    from bench.timing import build, medians

    versions = FastLSTM.versions()
    for name in peers:
        versions |= PEERS[name].versions()
    probes, limits = _limits()
    how = protocol(cold=options.cold, threads=options.threads)
    report = reports.new_report(options.threads, options.seconds, versions, missing, limits, how)
    print(reports.opening(report), end="\n\n")
    columns = [FastLSTM.name, *peers]
    for mode in options.modes:
        print(f"{mode}\n{reports.heading(columns)}")
        for case in cases:
            problem = make_problem(case, with_state=mode != "inference")
            engines, left_out = build(problem, mode, options.threads, peers)
            ways = others(problem, options.threads)
            one_core = probes if options.threads == 1 else None
            bound = least_seconds(problem, mode, one_core) if one_core else None
            found = medians(engines | ways, mode, options.seconds, how)
            beside = {name: found.pop(name) / way.steps for name, way in ways.items()}
            del engines, ways, problem
            row = reports.add_row(report, case, mode, found, left_out, beside, bound)
            print(reports.line(row, columns), flush=True)
            if options.json:
                reports.save(report, options.json)  # now, since the next case may take long
        print()
    print(reports.closing(report))
    if options.picture and any(len(row["medians"]) > 1 for row in report["rows"]):
        draw(report, options.picture)
    differs = any("DIFFERS" in text for row in report["rows"] for text in row["left_out"].values())
    return 1 if differs else 0


def _limits() -> tuple:
    """The probes, or None, and what the report says of the limits."""
    from bench.probes import NoProbesError, Probes

    try:
        probes = Probes()
    except NoProbesError as reason:
        return None, {"missing": str(reason)}
    return probes, probes.limits()


def _draw_again(source: Path, picture: Path | None) -> int:
    from bench.picture import draw
    from bench.report import closing, load, opening

    if picture is None:
        raise ValueError("from-json: needs --picture")
    report = load(source)
    print(opening(report), closing(report), sep="\n\n")
    draw(report, picture)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.compare", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--threads", type=int, default=1, help="for every engine; also its number of cores")
    add("--peers", type=names, help="with commas between; default: those installed")
    add("--cases", type=groups, default=["grid"], help=f"of {', '.join(NAMES)}; default: grid")
    add("--only", default="", metavar="TEXT", help="only cases whose label contains it")
    add(
        "--modes",
        type=modes,
        default=list(DEFAULT),
        help=f"of {', '.join(MODES)}; default: {','.join(DEFAULT)}",
    )
    add(
        "--cold", action="store_true", help="turns so short that each engine's data is out of cache"
    )
    add("--seconds", type=float, default=5.0, help="for one case in one mode; default: 5")
    add("--json", type=Path, metavar="FILE", help="write the report")
    add("--picture", type=_picture, metavar="FILE", help="draw the ratios, as .png or .svg")
    add("--from-json", type=Path, metavar="FILE", help="draw this report, measure nothing")
    return parser


def _picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in (".png", ".svg"):
        raise argparse.ArgumentTypeError(f"expected a name in .png or .svg, got {text!r}")
    return path


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
