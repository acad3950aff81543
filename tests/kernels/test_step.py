"""The kernels' `step`: which arguments it takes as they are, and what it leaves as it was."""

import numpy as np
import pytest
from cells import CELLS
from compare import assert_close, assert_same_bits
from kernel_case import Case, in_form

from fastlstm.kernels import reference

B, I, H, LAYERS = 6, 5, 4, 2
ROWS = np.array([4, 0, 3], np.intp)
UNTOUCHED = 7.0


class Asked:
    """A step whose arguments are ready, to be changed one by one."""

    def __init__(self, rng, dtype, cell, variant="plain", bidirectional=False):
        options = {"layers": LAYERS, "bidirectional": bidirectional}
        self.case = Case(rng, dtype, cell, variant, (1, B, I, H), **options)
        self.x = self.case.x[0, :3].copy()
        self.state = tuple(part.copy() for part in self.case.state)
        self.out = np.full((3, self.case.sizes[0]), UNTOUCHED, dtype)

    def step(self, module, **changed):
        state = changed.pop("state", in_form(self.state))
        arguments = {"x": self.x, "rows": ROWS, "out": self.out} | changed
        return module.step(self.case.stack(module), state=state, **arguments)

    def refuses(self, module, **changed):
        before = [part.copy() for part in self.state]
        result = self.step(module, **changed)
        for part, expected in zip(self.state, before, strict=True):
            assert_same_bits(part, expected)
        assert (self.out == UNTOUCHED).all()
        return result is NotImplemented


@pytest.fixture
def asked(rng, dtype):
    return Asked(rng, dtype, "LSTM")


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def broadcast(a):
    return np.lib.stride_tricks.as_strided(a, a.shape, (0, *a.strides[1:]))


ALL = [(cell, variant) for cell, kind in CELLS.items() for variant in kind.variants]


@pytest.mark.parametrize(("cell", "variant"), ALL)
@pytest.mark.parametrize("rows", [ROWS, ROWS.tolist(), np.sort(ROWS), ROWS[::-1]], ids=str)
def test_twins(build, rng, dtype, cell, variant, rows):
    asked = Asked(rng, dtype, cell, variant)
    results = []
    for module in (build, reference):
        state, out = tuple(part.copy() for part in asked.state), asked.out.copy()
        assert asked.step(module, state=in_form(state), rows=rows, out=out) is out
        results.append((out, *state))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, dtype)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        ROWS[:2],
        np.array([0, 1, 0], np.intp),
        np.array([0, 1, B], np.intp),
        np.array([0, 1, -1], np.intp),
        ROWS.astype(np.int8),
        ROWS.astype(ROWS.dtype.newbyteorder()),
        ROWS[None],
        [0, 1],
        [0, 1, 0],
        [0, 1, B],
        [0, 1, -1],
        [0, 1, 2**70],
        [0, True, 2],
        [0, 1.0, 2],
        (4, 0, 3),
    ],
    ids=str,
)
def test_rows_that_are_not_ready(module, asked, rows):
    assert asked.refuses(module, rows=rows)


NOT_READY = {
    "None": lambda h, c: None,
    "one array": lambda h, c: h,
    "a list": lambda h, c: [h, c],
    "too many": lambda h, c: (h, c, c),
    "read-only": lambda h, c: (h, read_only(c)),
    "broadcast": lambda h, c: (broadcast(h), c),
    "the same": lambda h, c: (h, h),
    "backwards": lambda h, c: (h[..., ::-1], c),
    "another float": lambda h, c: (h.astype(np.longdouble), c),
    "other rows": lambda h, c: (h, c[:, 1:]),
    "other layers": lambda h, c: (h[:1], c[:1]),
    "no layers": lambda h, c: (h[0], c[0]),
    "no rows": lambda h, c: (h[0, 0], c[0, 0]),
    "other sizes": lambda h, c: (h[..., 1:], c),
}


@pytest.mark.parametrize("change", NOT_READY.values(), ids=NOT_READY)
def test_states_that_are_not_ready(module, asked, change):
    assert asked.refuses(module, state=change(*asked.state))


def test_x_and_out_that_are_not_ready(module, asked):
    for x in (asked.x[None], asked.x[0], asked.x[:, 1:], asked.x[:, ::-1], asked.x.tolist()):
        assert asked.refuses(module, x=x)
    h = asked.state[0]
    for out in (
        *(asked.out[None], asked.out[:2], asked.out[:, 1:], asked.out[:, ::-1]),
        *(read_only(asked.out), broadcast(asked.out), asked.out.tolist(), h[0, :3], h[1, ::2]),
    ):
        assert asked.refuses(module, out=out)
    wide = np.zeros((3, H + I), asked.x.dtype)
    assert asked.refuses(module, x=wide[:, :I], out=wide[:, 1 : H + 1])


def test_arrays_side_by_side_are_ready(module, asked):
    h, c = asked.state
    both = np.concatenate([h, c], axis=-1)
    wide = np.concatenate([asked.x, asked.out], axis=-1)
    x, out = wide[:, :I], wide[:, I:]
    expected = asked.step(module)
    assert asked.step(module, x=x, state=(both[..., :H], both[..., H:]), out=out) is out
    assert_same_bits(out.copy(), expected)
    for actual, part in zip((both[..., :H], both[..., H:]), asked.state, strict=True):
        assert_same_bits(actual.copy(), part)


def test_two_directions_are_refused(module, rng, dtype):
    asked = Asked(rng, dtype, "GRU", bidirectional=True)
    assert asked.refuses(module, out=None)
    asked = Asked(rng, dtype, "GRU")
    asked.case.reverse = [True]
    assert asked.refuses(module)
