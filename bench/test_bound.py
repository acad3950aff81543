"""The hardware's limit: its probes, and the arithmetic of the bound."""

import pytest

from bench.bound import least_seconds
from bench.cases import Case
from bench.probes import NoProbesError, Probes
from bench.problem import make_problem


class OneOfEach:
    """A machine that does one flop and reads one byte a second; large matrices at twice that."""

    def flops(self, dtype):
        return 1.0

    def reading(self, size):
        return 2.0 if size > 1000 else 1.0


# By hand, each product: flops, 2 a weight, row and step; or bytes, where they take longer.
CASES = {
    "at batch 1, R is read every step": (
        Case("", 3, 1, 2, 5),  # W 40 weights, R 100
        2 * 40 * 3 + 3 * 400,
        3 * (2 * 40 * 3) + 2 * (3 * 400) + 2 * 100 * 3,
    ),
    "in a batch, flops": (
        Case("", 3, 7, 2, 5),
        2 * (40 + 100) * 21,
        3 * (2 * (40 + 100) * 21),
    ),
    "one step reads W too": (Case("", 1, 1, 3, 5), 4 * 60 + 4 * 100, 3 * (4 * 60 + 4 * 100)),
    "twice as fast": (Case("", 3, 1, 2, 10), 2 * 80 * 3 + 3 * 1600 / 2, None),  # R 400
    "float64, projection": (
        Case("", 3, 1, 2, 5, proj_size=4, dtype="float64"),  # R 80, projection 20
        8 * 40 + 3 * 640 + 3 * 160,
        None,
    ),
    "two layers, both directions": (
        Case("", 3, 7, 2, 5, layers=2, bidirectional=True),  # the second's W 200
        2 * 2 * (40 + 100 + 200 + 100) * 21,
        None,
    ),
    "three gates": (
        Case("", 3, 7, 2, 5, cell="GRU"),
        2 * (30 + 75) * 21,
        3 * (2 * (30 + 75) * 21),
    ),
    "no gates": (Case("", 3, 1, 2, 5, cell="RNN"), 2 * 10 * 3 + 3 * 100, None),
    "one gate from another": (
        Case("", 3, 7, 2, 5, variant="peepholes, coupled"),
        2 * (30 + 75) * 21,
        None,
    ),
}


@pytest.mark.parametrize(("case", "inference", "training"), CASES.values(), ids=CASES)
def test_products(case, inference, training):
    problem = make_problem(case)
    assert least_seconds(problem, "inference", OneOfEach()) == inference
    if training is not None:
        assert least_seconds(problem, "training", OneOfEach()) == training


def test_a_ragged_batch_computes_its_rows_steps():
    problem = make_problem(Case("", 30, 7, 2, 5, lengths="uniform"))
    live = int(problem.lengths.sum())
    assert live < 30 * 7
    assert least_seconds(problem, "inference", OneOfEach()) == 2 * 140 * live


def test_probes():
    try:
        probes = Probes()
    except NoProbesError as reason:
        pytest.skip(str(reason))
    limits = probes.limits()
    float32, float64 = limits["flops_per_second"].values()
    assert 1e8 < float64 < float32 < 1e13
    assert 1e8 < probes.reading(1) < 1e13
    assert all(1e8 < found["bytes_per_second"] < 1e13 for found in limits["reading"].values())


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler"])
def test_without_a_compiler(compiler, monkeypatch):
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(NoProbesError, match=compiler):
        Probes()
