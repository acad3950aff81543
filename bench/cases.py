"""What is measured: shapes, and what each is beside one plain LSTM layer."""

from dataclasses import dataclass
from typing import Any

from bench.cells import VARIANTS


@dataclass(frozen=True)
class Case:
    """One layer, or a stack, and one batch for it.

    Attributes
    ----------
    group : str
        The name in `GROUPS` that it belongs to.
    T, B, I, H : int
        Steps, batch, features of the input, features of the cell state.
    layers : int
    bidirectional : bool
    proj_size : int
        0 for none.
    dtype : "float32" or "float64"
    lengths : "", "uniform" or "geometric"
        How the rows' lengths are distributed; "" for all of them T.
    resets : float
        The share of steps at which a row's state starts anew.
    cell : "LSTM", "GRU" or "RNN"
    variant : str
        A name in `VARIANTS`, or "" for the plain cell.
    """

    group: str
    T: int
    B: int
    I: int
    H: int
    layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    dtype: str = "float32"
    lengths: str = ""
    resets: float = 0.0
    cell: str = "LSTM"
    variant: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for a layer, torch's or fastlstm's, beside its sizes and dtype."""
        projection = {"proj_size": self.proj_size} if self.proj_size else {}  # of LSTMs alone
        return {"bidirectional": self.bidirectional} | projection

    @property
    def variant_options(self) -> dict[str, Any]:
        """Arguments for fastlstm's layer alone."""
        return VARIANTS[self.variant].options if self.variant else {}

    @property
    def label(self) -> str:
        """The shape, and what it is beside one plain LSTM layer in float32."""
        parts = [f"{self.T}, {self.B}, {self.I}, {self.H}"]
        parts += [self.cell] * (self.cell != "LSTM")
        parts += [self.variant] * bool(self.variant)
        parts += [f"{self.layers} layers"] * (self.layers > 1)
        parts += ["both directions"] * self.bidirectional
        parts += [f"projection {self.proj_size}"] * (self.proj_size > 0)
        parts += [self.dtype] * (self.dtype != "float32")
        parts += [f"{self.lengths} lengths"] * bool(self.lengths)
        parts += [f"{self.resets:.0%} resets"] * (self.resets > 0)
        return "; ".join(parts)


GRID = (
    (1, 1, 1, 40),
    (1, 1, 128, 128),
    (512, 1, 1, 40),
    (100, 1, 128, 128),
    (100, 1, 64, 256),
    (50, 1, 512, 512),
    (20, 1, 1024, 1024),
    (100, 8, 64, 128),
    (100, 16, 32, 64),
    (100, 32, 64, 128),
    (50, 32, 256, 256),
    (50, 64, 512, 512),
    (100, 256, 16, 64),
    (10, 128, 1024, 1024),
)
FLOAT64 = (
    (100, 1, 128, 128),
    (100, 8, 64, 128),
    (100, 32, 64, 128),
    (50, 32, 256, 256),
    (100, 256, 16, 64),
)
FAMILY = ((100, 1, 128, 128), (100, 8, 64, 128), (100, 32, 64, 128))
# A case of so many steps is timed turn about with its beginnings: is a step's time the same?
MANY_STEPS, FEWER_STEPS = 10_000, (100, 1000)

# No engine is given a state in "inference"; each is given one in the other two.
MODES = ("inference", "inference-state", "training")

GROUPS: dict[str, list[Case]] = {
    "grid": [
        *(Case("grid", *shape) for shape in GRID),
        Case("grid", 100, 8, 64, 128, layers=2),
        Case("grid", 100, 8, 64, 128, layers=2, bidirectional=True),
    ],
    "ragged": [
        Case("ragged", T, 32, 64, 128, lengths=lengths)
        for T in (100, 1000)
        for lengths in ("uniform", "geometric")
    ],
    "float64": [Case("float64", *shape, dtype="float64") for shape in FLOAT64],
    "small": [
        Case("small", 1, 1, 1, 40),
        Case("small", 1, 1, 40, 40),
        Case("small", 1, 1, 128, 128),
        *(Case("small", 512, 1, 1, H) for H in (8, 16, 32, 64)),
    ],
    "steps": [Case("steps", 4096, 1, 1, H) for H in (8, 16, 32, 40, 64, 128)],
    "projection": [
        Case("projection", 100, 8, 64, 128, proj_size=32),
        Case("projection", 50, 32, 256, 512, proj_size=128),
    ],
    "resets": [
        Case("resets", *shape, resets=0.03) for shape in ((1000, 1, 64, 128), (100, 32, 64, 128))
    ],
    "gru": [Case("gru", *shape, cell="GRU") for shape in FAMILY],
    "rnn": [Case("rnn", *shape, cell="RNN") for shape in FAMILY],
    "threads": [
        Case("threads", *shape, cell=cell)
        for cell in ("GRU", "RNN")
        for shape in ((100, 1, 64, 256), (50, 32, 256, 256))
    ],
    "variants": [
        Case("variants", *shape, variant=variant) for variant in VARIANTS for shape in FAMILY
    ],
    "curves": [
        *(Case("curves", 100, 2**k, 64, 128) for k in range(10)),
        *(Case("curves", 50, 1, 2**k, 2**k) for k in range(3, 11)),
        *(Case("curves", 50, 16, 2**k, 2**k) for k in range(3, 11)),
        *(Case("curves", T, 8, 64, 128) for T in (1, 10, 100, 1000, MANY_STEPS)),
        Case("curves", MANY_STEPS, 1, 64, 128),
    ],
}
# For the test of these programs; pairwise different sizes show a transposed array.
TINY = [
    Case("tiny", 3, 2, 4, 5),
    Case("tiny", 6, 1, 3, 4, layers=2, bidirectional=True),
    Case("tiny", MANY_STEPS, 1, 2, 3),
    Case("tiny", 5, 3, 2, 4, layers=2, bidirectional=True),
    Case("tiny", 7, 3, 2, 4, lengths="uniform"),
    Case("tiny", 7, 3, 2, 5, bidirectional=True, lengths="geometric"),
    Case("tiny", 5, 3, 2, 6, dtype="float64", proj_size=4),
    Case("tiny", 9, 3, 2, 6, resets=0.3),
    Case("tiny", 5, 3, 2, 4, layers=2, bidirectional=True, cell="GRU"),
    Case("tiny", 7, 3, 2, 4, lengths="uniform", cell="GRU"),
    Case("tiny", 5, 3, 2, 4, layers=2, bidirectional=True, cell="RNN"),
    Case("tiny", 7, 3, 2, 4, lengths="uniform", cell="RNN"),
    Case("tiny", 4, 3, 2, 5, variant="zoneout 0.1"),
]
NAMES = (*GROUPS, "tiny", "all")


def select(groups: list[str], only: str = "") -> list[Case]:
    """The cases of `groups` whose label contains `only`; "all" is every group but "tiny"."""
    names = list(GROUPS) if "all" in groups else groups
    cases = [case for name in names for case in {**GROUPS, "tiny": TINY}[name]]
    return [case for case in dict.fromkeys(cases) if only in case.label]
