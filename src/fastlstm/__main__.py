"""The command `fastlstm`, also `python -m fastlstm`: info, bench, demo."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import fastlstm as fl
from fastlstm.checks import LARGEST
from fastlstm.commands import CommandError

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, and return the exit status."""
    arguments = build_parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except CommandError as error:
        print(f"fastlstm: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("fastlstm: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="fastlstm", description="An LSTM for NumPy.")
    parser.add_argument("--version", action="version", version=f"fastlstm {fl.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    info = commands.add_parser("info", help="print all that a bug report needs")
    info.set_defaults(run=run_info)

    bench = commands.add_parser("bench", help="time the builds against the reference, in a minute")
    bench.set_defaults(run=run_bench)

    demo = commands.add_parser(
        "demo",
        help="train a character model on real text, then let it write",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.set_defaults(run=run_demo)
    demo.add_argument(
        "--text",
        type=Path,
        metavar="PATH",
        help="the text to learn (without it: the source of Python's standard library)",
        default=argparse.SUPPRESS,
    )
    demo.add_argument(
        "--seconds", type=positive_seconds, default=60.0, help="time to train, by the clock"
    )
    demo.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("fastlstm-demo"),
        help="where the model, the loss curve and the report go",
    )
    demo.add_argument("--hidden", type=whole_number(1), default=256, help="units of the LSTM")
    demo.add_argument("--seed", type=whole_number(0), default=0, help="of parameters and sampling")
    demo.add_argument(
        "--threads",
        type=whole_number(1),
        metavar="N",
        help="threads to compute with (without it: the library's choice)",
        default=argparse.SUPPRESS,
    )
    return parser


def whole_number(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if not minimum <= number <= LARGEST:
            raise argparse.ArgumentTypeError(f"expected {minimum} to {LARGEST}, got {number}")
        return number

    return parse


def positive_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got {text!r}") from None
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"expected more than 0 seconds, got {text!r}")
    return seconds


def run_info(arguments: argparse.Namespace) -> int:
    fl.show_config()
    return 0


def run_bench(arguments: argparse.Namespace) -> int:
    from fastlstm.commands import bench

    return bench.run()


def run_demo(arguments: argparse.Namespace) -> int:
    from fastlstm.commands import demo

    if "threads" in arguments:
        fl.set_num_threads(arguments.threads)
    demo.run(
        text=getattr(arguments, "text", None),
        seconds=arguments.seconds,
        output=arguments.output,
        hidden_size=arguments.hidden,
        seed=arguments.seed,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
