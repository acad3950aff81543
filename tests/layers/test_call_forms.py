"""However a call gives its arguments: the same bits as plain arrays give, and the same errors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from compare import assert_gradients_close, assert_same_bits, assert_same_result
from random_layers import each, example, parts

import fastlstm as fl

LAYERS = {
    "LSTM": {},
    "LSTM, projected, no bias": {"proj_size": 3, "bias": False},
    "LSTM, peepholes, layer norm": {"peepholes": True, "layer_norm": True},
    "GRU": {"kind": "GRU"},
    "GRU, reset first": {"kind": "GRU", "linear_before_reset": False},
    "RNN": {"kind": "RNN"},
}
STACKS = [  # T, B, I, H, options
    (1, 1, 3, 5, {}),
    (1, 4, 2, 17, {}),
    (9, 1, 5, 40, {"bidirectional": True}),
    (6, 3, 20, 33, {}),
    (6, 3, 5, 19, {"num_layers": 3}),
    (5, 2, 3, 17, {"num_layers": 2, "bidirectional": True}),
]


def same(a):
    return a


@dataclass
class Form:
    """How arguments stand in a call, and results, which plainly are [T, B, ...]."""

    to: Callable[[Any], Any] = same  # x and dy, from plain arrays
    back: Callable[[Any], Any] = same  # y and dx, into plain arrays
    state_to: Callable[[Any], Any] = same  # an array of the state
    state_back: Callable[[Any], Any] = same
    layer: dict[str, Any] = field(default_factory=dict)  # options of the layer
    call: Callable[[np.ndarray], dict[str, Any]] = lambda x: {}  # other arguments, by the plain x


def of_arrays(function):
    """All arrays given as what `function` makes of them."""
    return Form(to=function, state_to=function)


def swapped(a):
    return a.swapaxes(0, 1)


def finer(a):
    return a.astype(np.float64 if a.itemsize == 4 else np.longdouble)


def backwards(a):
    turned = (slice(None, None, -1),) * a.ndim
    return a[turned].copy()[turned]


def every_other(a):
    wide = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    some = (slice(1, None, 2),) * a.ndim
    wide[some] = a
    return wide[some]


def with_gaps(a):
    """Contiguous along the last axis alone."""
    wide = np.full([n + 3 for n in a.shape], np.nan, a.dtype)
    some = tuple(slice(2, n + 2) for n in a.shape)
    wide[some] = a
    return wide[some]


def unaligned(a):
    result = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    result[...] = a
    return result


def full_lengths(x):
    return {"lengths": np.full(x.shape[1], len(x))}


def no_resets(x):
    return {"resets": np.zeros(x.shape[:2], np.bool_)}


FORMS = {
    "a list of equal sequences": Form(lambda a: list(swapped(a)), lambda a: np.stack(a, 1)),
    "batch first": Form(swapped, swapped, layer={"batch_first": True}),
    "batch first, contiguous": Form(
        lambda a: np.ascontiguousarray(swapped(a)), swapped, layer={"batch_first": True}
    ),
    "one sequence": Form(
        lambda a: a[:, 0], lambda a: a[:, None], lambda a: a[:, 0], lambda a: a[:, None]
    ),
    "one thread": Form(call=lambda x: {"threads": 1}),
    "three threads": Form(call=lambda x: {"threads": 3}),
    "all lengths T": Form(call=full_lengths),
    "lengths in a list": Form(call=lambda x: {"lengths": full_lengths(x)["lengths"].tolist()}),
    "no resets": Form(call=no_resets),
    "lengths and no resets": Form(call=lambda x: full_lengths(x) | no_resets(x)),
    "a finer float": of_arrays(finer),
    "bytes in another order": of_arrays(lambda a: a.astype(a.dtype.newbyteorder())),
    "Fortran's order": of_arrays(np.asfortranarray),
    "backwards": of_arrays(backwards),
    "every other": of_arrays(every_other),
    "with gaps": of_arrays(with_gaps),
    "unaligned": of_arrays(unaligned),
    "a state of lists": Form(state_to=lambda a: a.tolist()),
}


@dataclass
class Given:
    """A layer with all that calls take, in plain arrays."""

    layer: Any
    x: np.ndarray
    state: Any
    dy: np.ndarray
    dstate: Any
    sizes: tuple[int, int]  # of the layer
    options: dict[str, Any]  # of the layer
    check: Callable[..., None]  # that two arrays are the same

    def forms(self):
        for name, form in FORMS.items():
            if name != "one sequence" or self.x.shape[1] == 1:
                layer = self.layer
                if form.layer:
                    layer = type(layer)(*self.sizes, **self.options, **form.layer)
                    layer.load_state_dict(self.layer.state_dict())
                yield name, form, layer

    def arguments(self, form):
        return {
            "x": form.to(self.x),
            "state": each(form.state_to, self.state),
            **form.call(self.x),
        }

    def assert_same(self, actual, expected, name):
        """Results y, state and what else there may be, flat."""
        for k, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert a.shape == b.shape, name
            self.check(a, b, f"{name}, {k}")


def train(layer, x, state, dy, dstate, **options):
    """y, its state, and all gradients, flat."""
    (y, final), tape = layer.forward(x, state, **options)
    threads = {"threads": options["threads"]} if "threads" in options else {}
    grads = layer.backward(tape, dy, dstate, **threads)
    assert list(grads.params) == list(layer.parameters())
    return [y, *parts(final), grads.x, *parts(grads.state), *grads.params.values()]


@pytest.fixture
def check(kernels, dtype):
    """The reference multiplies with BLAS, where other strides are other bits."""
    if kernels != "reference":
        return assert_same_bits
    return lambda a, b, what: assert_gradients_close(a, b, dtype, what)


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def options(request):
    return request.param


@pytest.fixture(params=STACKS, ids=str)
def given(request, check, rng, dtype, options):
    T, B, I, H, of_stack = request.param
    case = example(rng, T, B, I, H, dtype=dtype, **options, **of_stack)
    named = {name: value for name, value in options.items() if name != "kind"}
    dy = rng.standard_normal(case()[0].shape).astype(dtype)
    dstate = each(lambda part: rng.standard_normal(part.shape).astype(dtype), case.state)
    of_layer = {"dtype": dtype} | named | of_stack
    return Given(case.layer, case.x, case.state, dy, dstate, (I, H), of_layer, check)


@pytest.mark.usefixtures("share_all_work")
def test_inference(given):
    y, final = given.layer(given.x, given.state)
    expected = [y, *parts(final)]
    for name, form, layer in given.forms():
        y, final = layer(**given.arguments(form))
        actual = [form.back(y), *map(form.state_back, parts(final))]
        given.assert_same(actual, expected, name)


@pytest.mark.usefixtures("share_all_work")
def test_training(given):
    expected = train(given.layer, given.x, given.state, given.dy, given.dstate)
    count = len(parts(given.state))
    for name, form, layer in given.forms():
        gradients = form.to(given.dy), each(form.state_to, given.dstate)
        arguments = given.arguments(form)
        x, state = arguments.pop("x"), arguments.pop("state")
        actual = train(layer, x, state, *gradients, **arguments)
        for place in (0, count + 1):
            actual[place] = form.back(actual[place])
            states = slice(place + 1, place + 1 + count)
            actual[states] = map(form.state_back, actual[states])
        given.assert_same(actual, expected, name)


def test_none_is_zeros(given):
    zeros = each(np.zeros_like, given.state)
    y, final = given.layer(given.x, zeros)
    actual, state = given.layer(given.x)
    given.assert_same([actual, *parts(state)], [y, *parts(final)], "inference")
    nothing = np.zeros_like(given.dy)
    expected = train(given.layer, given.x, zeros, nothing, given.dstate)
    given.assert_same(
        train(given.layer, given.x, None, None, given.dstate), expected, "no state, no dy"
    )
    expected = train(given.layer, given.x, zeros, given.dy, zeros)
    given.assert_same(train(given.layer, given.x, None, given.dy, None), expected, "no dstate")


def test_out(given):
    """Wherever the result is to be, even over the input or the state."""
    expected, final = given.layer(given.x, given.state)
    T, B, N = expected.shape
    dtype = expected.dtype

    def assert_right(x, state, out, name, **options):
        y, last = given.layer(x, state, out=out, **options)
        assert y is out, name
        given.assert_same([out, *parts(last)], [expected, *parts(final)], name)

    places = {
        "new": np.full((T, B, N), np.nan, dtype),
        "batch first": np.full((B, T, N), np.nan, dtype).swapaxes(0, 1),
        "columns": np.full((T, B, 3 * N), np.nan, dtype)[:, :, N : 2 * N],
        "every other": np.full((2 * T, 2 * B, 2 * N), np.nan, dtype)[::2, 1::2, ::2],
        "backwards": np.full((T, B, N), np.nan, dtype)[::-1, ::-1, ::-1],
        "Fortran's order": np.full((T, B, N), np.nan, dtype, order="F"),
        "unaligned": unaligned(np.full((T, B, N), np.nan, dtype)),
    }
    for name, out in places.items():
        assert_right(given.x, given.state, out, name)
        out[...] = np.nan
        assert_right(given.x, given.state, out, name, **full_lengths(given.x), threads=1)
    beside = places["columns"].base
    assert np.isnan(beside[:, :, :N]).all()
    assert np.isnan(beside[:, :, 2 * N :]).all()
    for start in (0, 1, given.x.size // 2, given.x.size - 1):
        memory = np.zeros(start + given.x.size + expected.size, dtype)
        x = memory[start : start + given.x.size].reshape(given.x.shape)
        for end in (0, start):
            x[...] = given.x
            out = memory[end : end + expected.size].reshape(expected.shape)
            assert_right(x, given.state, out, f"x from {start}, out from {end}")
    for k, part in enumerate(parts(given.state)):
        memory = np.zeros(part.size + expected.size, dtype)
        own = memory[: part.size].reshape(part.shape)
        own[...] = part
        state = list(parts(given.state))
        state[k] = own
        out = memory[part.size - 1 : -1].reshape(expected.shape)
        assert_right(given.x, tuple(state) if len(state) > 1 else own, out, f"state {k}")


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_out_with_a_state_and_resets_of_lists(kernels, rng, options):
    case = example(rng, 6, 3, 20, 33, resets=True, **options)
    expected, final = case()
    state, resets = each(lambda a: a.tolist(), case.state), case.options["resets"].tolist()
    for form in (state, list(state)):
        out = np.full_like(expected, np.nan)
        y, last = case.layer(case.x, form, resets=resets, out=out)
        assert y is out
        for a, b in zip((out, *parts(last)), (expected, *parts(final)), strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)], ids=str)
def test_out_without_elements(kernels, rng, options, shape):
    case = example(rng, *shape, **options)
    y, state = case()
    out = np.empty_like(y)
    result = case(out=out)
    assert result[0] is out
    assert_same_result(result, (y, state))


def test_out_whose_axes_interleave(kernels, rng):
    """No element has the memory of another, though the strides suggest it."""
    case = example(rng, 3, 2, 3, 1)
    memory = np.full(3 * 2 + 4, np.nan, np.float32)
    out = np.lib.stride_tricks.as_strided(memory, (3, 2, 1), (8, 12, 4))
    y, _ = case(out=out)
    assert y is out
    assert_same_bits(np.ascontiguousarray(out), case()[0])


@pytest.mark.parametrize("name", ["lengths", "resets"])
def test_out_in_the_memory_of_lengths_or_resets(kernels, rng, name):
    case = example(rng, lengths=True, resets=True)
    expected, memory = case()[0], np.zeros(7 * 5 * 4, np.float32)
    own = memory.view(case.options[name].dtype)[: case.options[name].size]
    own = own.reshape(case.options[name].shape)
    own[...] = case.options[name]
    case.options[name] = own
    with pytest.raises(ValueError, match=f"out: expected memory of its own, got that of {name}"):
        case(out=memory.reshape(7, 5, 4))
    assert_same_bits(case()[0], expected)


CELLS = {
    "LSTM": {},
    "LSTM, no bias": {"bias": False},
    "LSTM, peepholes, layer norm": {"peepholes": True, "layer_norm": True},
    **{name: options for name, options in LAYERS.items() if "kind" in options},
}


@pytest.mark.parametrize("options", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("sizes", [(1, 3, 5), (4, 3, 21), (3, 20, 33)], ids=str)
def test_a_cell_is_a_layer_of_one_step(kernels, check, rng, dtype, options, sizes):
    """In every form that arrays have."""
    B, I, H = sizes
    case = example(rng, 1, B, I, H, dtype=dtype, **options)
    named = {name: value for name, value in options.items() if name != "kind"}
    cell = getattr(fl, options.get("kind", "LSTM") + "Cell")(I, H, dtype=dtype, **named)
    own = {name.removesuffix("_l0"): array for name, array in case.layer.state_dict().items()}
    cell.load_state_dict(own)
    x, state = case.x[0], each(lambda part: part[0], case.state)
    dstate = each(lambda part: rng.standard_normal(part.shape).astype(dtype), state)
    _, *expected = train(case.layer, case.x, case.state, None, each(lambda a: a[None], dstate))
    count = len(parts(state))
    expected[: 2 * count + 1] = [array[0] for array in expected[: 2 * count + 1]]

    def assert_same(x, state, dstate, name, lead=same):
        wanted = [*map(lead, expected[: 2 * count + 1]), *expected[2 * count + 1 :]]
        called = cell(x, state)
        kept, tape = cell.forward(x, state)
        grads = cell.backward(tape, dstate)
        assert list(grads.params) == list(own)
        actual = [*parts(kept), grads.x, *parts(grads.state), *grads.params.values()]
        actual, wanted = [*parts(called), *actual], wanted[:count] + wanted
        for k, (a, b) in enumerate(zip(actual, wanted, strict=True)):
            assert a.shape == b.shape, name
            check(a, b, f"{name}, {k}")

    assert_same(x, state, dstate, "plain")
    for name, form in FORMS.items():
        if form.to is form.state_to:
            assert_same(form.to(x), each(form.to, state), each(form.to, dstate), name)
    if B == 1:
        one = (each(lambda a: a[0], array) for array in (x, state, dstate))
        assert_same(*one, "one row", lead=lambda a: a[0])
    zeros = each(np.zeros_like, state)
    check(parts(cell(x))[0], parts(cell(x, zeros))[0], "no state")


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_as_the_reference(compiled, rng, dtype, options):
    case = example(rng, 6, 3, 20, 33, num_layers=2, bidirectional=True, dtype=dtype, **options)
    dy = rng.standard_normal(case()[0].shape)
    arguments = case.layer, case.x, case.state, dy, case.state
    actual = train(*arguments)
    with fl.use_backend("reference"):
        expected = train(*arguments)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    tolerance *= 10 if "layer_norm" in options else 1  # which enlarges rounding errors
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("name", ["x", "state", "dy", "dstate"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_bad_input_is_named(kernels, rng, dtype, kind, name):
    case = example(rng, 6, 3, 20, 33, kind=kind, dtype=dtype)
    dy = rng.standard_normal((6, 3, 33)).astype(dtype)
    values = {"x": case.x, "state": case.state, "dy": dy, "dstate": case.state}
    for bad in (object(), dy[:, :, :-1], (dy, dy)):
        given = values | {name: bad}
        with pytest.raises((ValueError, TypeError), match=name):
            train(case.layer, *given.values())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_the_result_is_the_callers_own(compiled, share_all_work, rng, dtype, options, threads):
    case = example(rng, 1, 2, 3, 5, dtype=dtype, **options)
    y, state = case.layer(case.x, case.state, threads=threads)
    arrays = [y, *parts(state)]
    kept = [array.copy() for array in arrays]
    for array in arrays:
        assert array.flags.owndata or threads == 2
        assert array.ctypes.data % 64 == 0 or threads == 1, "threads share the lines of its rows"
        assert array.flags.writeable
    case.layer(-case.x, each(lambda a: -a, state), threads=threads)
    for array, before in zip(arrays, kept, strict=True):
        assert_same_bits(array, before)


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_what_a_tape_holds_is_read_only(kernels, rng, dtype, options):
    case = example(rng, 3, 2, 3, 5, dtype=dtype, **options)
    (y, state), _ = case.forward()
    with pytest.raises(ValueError, match="read-only"):
        y[0, 0, 0] = 1
    for part in parts(state):
        assert part.flags.writeable


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
def test_subnormals_do_not_stay_flushed(compiled, rng, dtype, options):
    case = example(rng, 1, 2, 3, 5, dtype=dtype, **options)
    (y, _), tape = case.forward()
    case.layer.backward(tape, y)
    assert np.finfo(dtype).smallest_subnormal / dtype.type(1) > 0
