"""Threads that share one call: the same bits as one thread alone."""

import pytest
from compare import assert_same_bits
from kernel_case import Case
from walks import walk

from fastlstm import threads as pool
from fastlstm.kernels.arguments import Thresholds

_pool = pytest.importorskip("fastlstm.kernels._pool", reason="no compiled kernels")

ONE_CORE = pool.get_num_threads() == 1  # where nobody is called, whatever a kernel may use
TRIES = 500  # a machine may be busy
# Long enough for others to come; units in several panels of every build, the last not full.
SIZES = T, B, I, H = 120, 3, 5, 150
# However little the work is, threads share the units of every step, or the rows.
ALWAYS = {"parallel_work": 0, "step_work": 0, "row_weights": 10**9, "lanes": 0}
UNITS, ROWS = Thresholds(few_rows=10**6, **ALWAYS), Thresholds(few_rows=0, **ALWAYS)
VARIANTS = [
    ("LSTM", "plain"),
    ("LSTM", "projected, plain"),
    ("LSTM", "peepholes, coupled"),
    ("LSTM", "layer norm"),
    ("LSTM", "projected, everything"),  # zoneout and recurrent dropout, too
    ("GRU", "plain"),
    ("GRU", "published"),
    ("RNN", "tanh"),
]


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert_same_bits(actual[name], array, name)


def assert_same_on(module, case, *numbers, **sharing):
    """Forward and backward give what one thread gives, and somebody comes to help in both."""
    alone = case.stack(module)
    forward, saved = case.forward(module, alone)
    backward = case.backward(module, alone, saved)
    for threads in numbers:
        helped = {"forward": 0, "backward": 0}
        stack = case.stack(module, threads=threads, **sharing)
        for _ in range(TRIES):
            before = _pool.visited()
            actual, saved = case.forward(module, stack)
            helped["forward"] += _pool.visited() - before
            assert_same(actual, forward)
            before = _pool.visited()
            actual = case.backward(module, stack, saved)
            helped["backward"] += _pool.visited() - before
            assert_same(actual, backward)
            if ONE_CORE or all(helped.values()):
                break
        else:
            pytest.fail(f"no thread came to help {threads} in {TRIES} calls: {helped}")


@pytest.mark.parametrize("kind", ["plain", "ragged", "ragged-resets-reverse"])
@pytest.mark.parametrize(("cell", "variant"), VARIANTS)
def test_units(build, rng, dtype, cell, variant, kind):
    case = Case(rng, dtype, cell, variant, SIZES, walk(rng, T, B, kind))
    assert_same_on(build, case, 2, 3, 5, thresholds=UNITS)


@pytest.mark.parametrize("kind", ["plain", "ragged-resets-reverse"])
@pytest.mark.parametrize(("cell", "variant"), VARIANTS)
def test_rows(build, rng, dtype, cell, variant, kind):
    case = Case(rng, dtype, cell, variant, SIZES, walk(rng, T, B, kind))
    assert_same_on(build, case, 2, 20, thresholds=ROWS)


@pytest.mark.parametrize("kind", ["plain", "ragged-resets"])
@pytest.mark.parametrize(("cell", "variant"), VARIANTS)
def test_layers_and_directions(build, rng, dtype, cell, variant, kind):
    sizes = 40, 5, 3, 70
    steps = walk(rng, *sizes[:2], kind)
    case = Case(rng, dtype, cell, variant, sizes, steps, layers=2, bidirectional=True)
    assert_same_on(build, case, 3, thresholds=UNITS)


@pytest.mark.parametrize("number", [0, 3, 6, 7])
def test_members_that_rest(build, rng, dtype, number):
    """Far more threads than cores: members are late, are sent to rest, and come back.

    With so wide an input and so few rows, each has computed the products of x with W for steps
    that it then misses.
    """
    sizes = 80, 2, 64, 256
    steps = walk(rng, *sizes[:2], "plain" if number % 2 else "ragged-resets-reverse")
    case = Case(rng, dtype, *VARIANTS[number], sizes, steps)
    alone = case.stack(build)
    forward, saved = case.forward(build, alone)
    backward = case.backward(build, alone, saved)
    team = case.stack(build, threads=32, thresholds=UNITS)
    for _ in range(2):
        actual, saved = case.forward(build, team)
        assert_same(actual, forward)
        assert_same(case.backward(build, team, saved), backward)


def test_inference(build, rng, dtype):
    """Training has the helpers that are tested above; here the results alone."""
    case = Case(rng, dtype, "LSTM", "plain", SIZES, walk(rng, T, B, "ragged-resets"))
    expected = case.infer(build)
    for thresholds in (UNITS, ROWS):
        for threads in (2, 3, 5):
            stack = case.stack(build, backward=False, threads=threads, thresholds=thresholds)
            assert_same(case.infer(build, stack=stack), expected)


@pytest.mark.parametrize("threads", [0, -1])
def test_bad_threads(build, rng, dtype, threads):
    case = Case(rng, dtype, "LSTM", "plain", (2, 3, 4, 5))
    with pytest.raises(ValueError, match="threads"):
        case.stack(build, threads=threads)
