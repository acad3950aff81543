"""Training by many ranks of MPI, and what to expect of more: `python -m bench.scaling`.

Measured on this machine, on two ranks of one thread each that `mpiexec` starts: a training step by
model size, on one rank and on both at once; all-reduces by buffer size; and the throughput of a
trainer on two ranks beside one rank with one and with two threads. The rest is computed: what up to
64 machines would reach over networks, by the model of `Network`. Float32.
"""

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench import origin

B, FEW, T, H = 32, 4, 100, 256
SIZES = (64, 128, 256, 512, 1024)
BUFFERS = tuple(2**k for k in range(3, 26))
RANKS = (2, 8, 64)
FULL = {"rounds": 5, "steps": 8, "calls": 1000, "T": T, "B": B, "few": FEW}
QUICK = {"rounds": 1, "steps": 2, "calls": 3, "T": 5, "B": 6, "few": 2}
EXCHANGED = 256  # bytes of each rank in an all-gather before the gradients


@dataclass(frozen=True)
class Network:
    """What lies between ranks.

    Attributes
    ----------
    alpha : float
        Seconds that a message takes, however short.
    beta : float
        Seconds a byte.
    """

    name: str
    alpha: float
    beta: float

    def all_reduce(self, ranks: int, size: float, gamma: float) -> float:
        """Seconds to sum buffers of `size` bytes of all ranks, `gamma` being those to add a byte.

        2 log₂ p · α + (p − 1)/p · n · (2 β + γ): Rabenseifner's algorithm, a reduce-scatter by
        halves, then an all-gather by doubling (Thakur, Rabenseifner & Gropp 2005, "Optimization
        of Collective Communication Operations in MPICH"), with p a power of two.
        """
        messages, moved = 2 * math.log2(ranks), (ranks - 1) / ranks * size
        return messages * self.alpha + moved * (2 * self.beta + gamma)

    def step(self, ranks: int, size: float, gamma: float) -> float:
        """Seconds that ranks spend on one another in a step: an all-gather, and the gradients.

        The all-gather, of the loss and who failed, by doubling: log₂ p · α + (p − 1) · m · β.
        """
        gather = math.log2(ranks) * self.alpha + (ranks - 1) * EXCHANGED * self.beta
        return gather + self.all_reduce(ranks, size, gamma)


NETWORKS = (Network("10 Gb/s", 50e-6, 8 / 10e9), Network("100 Gb/s", 5e-6, 8 / 100e9))


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser("python -m bench.scaling", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--rounds", type=int, default=FULL["rounds"], help="turns of each; default: 5")
    add("--launch", default="mpiexec -n 2", help="what starts two ranks; default: mpiexec -n 2")
    add("--quick", action="store_true", help="tiny sizes, to see that it runs")
    add("--write", type=Path, metavar="FILE", help="write the tables as Markdown, too")
    options = parser.parse_args()
    sizes = (8, 16) if options.quick else SIZES
    asked = QUICK if options.quick else FULL | {"rounds": options.rounds}
    asked |= {"sizes": sizes, "H": 8 if options.quick else H}
    asked["buffers"] = BUFFERS[::5] if options.quick else BUFFERS
    found = measure(shlex.split(options.launch), asked)
    text = report(asked, found)
    print(text)
    if options.write:
        options.write.write_text(text + "\n", encoding="utf-8")
    return 0


def measure(launch: list[str], asked: dict) -> dict:
    """What `bench.scaling_worker` finds on two ranks."""
    command = [*launch, sys.executable, "-m", "mpi4py", "-m", "bench.scaling_worker"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment["PATH"] = os.pathsep.join(folders)  # mpiexec of this environment, if it has one
    try:
        done = subprocess.run(
            [*command, json.dumps(asked)], env=environment, stdout=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        raise SystemExit(f'{launch[0]} is not here: pip install "fastlstm[mpi]" mpich') from None
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(done.stdout)


def fit(points: list[tuple[float, float]], gamma: float) -> Network:
    """α and β of the machine's own memory, from (bytes, seconds) of all-reduces on two ranks.

    The relative errors' squares are least.
    """
    # seconds = 2 α + n (β + γ / 2), each equation divided by its seconds.
    a = [1 / seconds for _, seconds in points]
    b = [size / seconds for size, seconds in points]
    aa, ab, bb = (sum(map(math.prod, zip(u, v, strict=True))) for u, v in ((a, a), (a, b), (b, b)))
    determinant = aa * bb - ab * ab
    constant = (sum(a) * bb - sum(b) * ab) / determinant
    slope = (sum(b) * aa - sum(a) * ab) / determinant
    return Network("shared memory", max(constant / 2, 0.0), max(slope - gamma / 2, 0.0))


def report(asked: dict, found: dict) -> str:
    """All tables, as Markdown."""
    times, gamma = found["times"], found["add"]
    sizes = {int(size): 4 * count for size, count in found["parameters"].items()}
    points = [(size, times[f"reduce {size}"]) for size in asked["buffers"]]
    memory = fit(points, gamma)
    apart = [memory.all_reduce(2, size, gamma) / seconds for size, seconds in points]
    packages = {name: version(name) for name in ("numpy", "mpi4py")}
    return "\n".join(
        [
            *(f"{line}  " for line in origin.opening(origin.origin(packages), 1).splitlines()),
            f"Median of {asked['rounds']} turns; ranks of one thread, B = {asked['B']} rows each, "
            f"T = {asked['T']} steps, I = H.",
            "",
            *throughput(asked, times),
            "",
            *by_size(sizes, times),
            "",
            f"Of shared memory, α = {1e6 * memory.alpha:.2g} µs and β = {1e9 * memory.beta:.2g} ns "
            f"a byte, fitted to buffers of {points[0][0]} B to {points[-1][0] / 2**20:g} MiB; the "
            f"model's time is {min(apart):.2g} to {max(apart):.2g} of the measured. Adding takes "
            f"γ = {1e9 * gamma:.2g} ns a byte.",
            "",
            *extrapolation(sizes, times, gamma, asked),
        ]
    )


def throughput(asked: dict, times: dict[str, float]) -> list[str]:
    """The trainer's steps on one and on two ranks."""
    rows = asked["B"]
    base = times["1 rank"] / rows
    cases = (("1 rank", rows), ("1 rank, 2 threads", rows), ("2 ranks, one batch", rows))
    lines = []
    for name, count in (*cases, ("2 ranks, two batches", 2 * rows)):
        each = times[name] / count
        lines.append(
            f"| {name} | {count} | {ms(times[name])} | {1 / each:.4g} | {base / each:.2f} |"
        )
    return [
        f"| H = {asked['H']} | rows of a step | ms | sequences/s | times one rank |",
        "|---|---|---|---|---|",
        *lines,
    ]


def by_size(sizes: dict[int, int], times: dict[str, float]) -> list[str]:
    """Steps and reductions by the model's size."""
    lines = []
    for size, nbytes in sizes.items():
        alone, both, reduction = (
            times[name] for name in (f"alone {size}", f"both {size}", f"reduce {nbytes}")
        )
        shown = f"{nbytes / 1e6:.3g} | {ms(alone)} | {ms(both)} | {ms(reduction)}"
        lines.append(f"| {size} | {shown} | {reduction / (both + reduction):.1%} |")
    return [
        "| H | gradients, MB | step, ms | on two ranks at once | all-reduce | of both |",
        "|---|---|---|---|---|---|",
        *lines,
    ]


def extrapolation(
    sizes: dict[int, int], times: dict[str, float], gamma: float, asked: dict
) -> list[str]:
    """What so many machines would reach: the part of p times one rank's throughput."""
    heads = []
    for network in NETWORKS:
        heads += [f"{network.name}, {ranks}" for ranks in RANKS]
        heads.append(f"sequences/s of {RANKS[-1]}")
    lines = []
    for name, rows in (("alone", asked["B"]), ("few", asked["few"])):
        for size, nbytes in sizes.items():
            step, cells = times[f"{name} {size}"], []
            for network in NETWORKS:
                parts = [step / (step + network.step(p, nbytes, gamma)) for p in RANKS]
                cells += [f"{part:.0%}" for part in parts]
                cells.append(f"{RANKS[-1] * rows * parts[-1] / step:,.0f}")
            lines.append(f"| {size} | {rows} | {' | '.join(cells)} |")
    heads = ["H", "rows of a rank", *heads]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *lines]


def ms(seconds: float) -> str:
    """Milliseconds, three digits or more."""
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


if __name__ == "__main__":
    sys.exit(main())
