"""What has no meaning raises, naming the argument; what has some works, however odd."""

import numpy as np
import pytest
from compare import assert_same_bits
from hypothesis import assume, given
from hypothesis import strategies as st
from random_layers import example

import fastlstm as fl

T, B, I, H = 7, 5, 3, 4
NUMBERS_OF_NO_KIND = ["3", None, 2.5, 3 + 0j, [3], True, np.nan, np.array([3, 4])]

BAD_OPTIONS = {
    "input_size": [0, -1, 2**31, 2**70, *NUMBERS_OF_NO_KIND],
    "hidden_size": [
        *(0, -1, 2**31, 2**70, *(n for n in NUMBERS_OF_NO_KIND if not isinstance(n, list))),
        *([], [0], [4, "5"], [4, True], (3, 2.5), [[3]]),
    ],
    "num_layers": [0, -1, 2**31, 2**70, *NUMBERS_OF_NO_KIND],
    "bias": [0, 1, "yes", None, [True]],
    "batch_first": [0, 1, "yes", None],
    "dropout": [-0.1, 1.1, np.nan, np.inf, "0.5", None, [0.5], 0.5j, True],
    "bidirectional": [0, 2, "both", None],
    "proj_size": [-1, H, H + 1, *NUMBERS_OF_NO_KIND],
    "peepholes": [0, 1, "yes", None, [True]],
    "coupled": [0, 1, "yes", None],
    "layer_norm": [0, 1, "yes", None],
    "learn_initial_state": [0, 1, "yes", None],
    "activations": [
        *("tanh", None, 3, (), ("sigmoid", "tanh"), ("sigmoid", "tanh", "tanh", "tanh")),
        *(("sigmoid", "tanh", wrong) for wrong in ("Tanh", "swish", None, 3, (), ["tanh"] * 2)),
        *((("tanh", 1.0), "tanh", "tanh"), (("elu", 1.0, 2.0), "tanh", "tanh")),
        *((("elu", "1"), "tanh", "tanh"), (("affine", 1.0, np.nan), "tanh", "tanh")),
    ],
    "clip": [0, 0.0, -1, np.nan, np.inf, "1", [1.0], True],
    "recurrent_dropout": [-0.1, 1.1, np.nan, "0.5", None, True],
    "zoneout": [0.1, None, (0.1,), (0.1, 0.1, 0.1), (0.1, 1.1), (-0.1, 0), ("0", 0), (0, None)],
    "init": ["xavier", None, 3],
    "t_max": [3, 100.0],
    "forget_bias": [np.nan, np.inf, "one", [1.0], 1j, True],
    "dtype": [np.float16, np.longdouble, int, complex, "nonsense", None, object],
    "rng": ["seed", -1, 2.5, {}],
}

BAD_CALLS = {
    "x": {
        "number": 3.0,
        "nothing": None,
        "one axis": np.zeros(I),
        "four axes": np.zeros((T, B, I, 1)),
        "features": np.zeros((T, B, I + 1)),
        "no features": np.zeros((T, B, 0)),
        "complex": np.zeros((T, B, I), complex),
        "object": np.zeros((T, B, I), object),
        "text": np.full((T, B, I), "0"),
        "bytes": np.full((T, B, I), b"0"),
        "dates": np.zeros((T, B, I), "M8[s]"),
        "records": np.zeros((T, B), [("a", "f4", 3)]),
        "masked": np.ma.zeros((T, B, I)),
        "string": "sequence",
        "dict": {0: np.zeros((T, I))},
        "generator": (np.zeros((T, I)) for _ in range(B)),
        "list of numbers": [1.0] * B,
        "list of features": [np.zeros((T, I))] * 4 + [np.zeros((T, I + 1))],
        "list of complex": [np.zeros((T, I), complex)] * B,
        "list of nothing": [None] * B,
    },
    "state": {
        "number": 0.0,
        "one": (np.zeros((1, B, H)),),
        "three": (np.zeros((1, B, H)),) * 3,
        "array": np.zeros((2, 1, B, H)),
        "text": "hc",
        "batch": (np.zeros((1, B, H)), np.zeros((1, B + 1, H))),
        "layers": (np.zeros((2, B, H)), np.zeros((1, B, H))),
        "features": (np.zeros((1, B, H + 1)), np.zeros((1, B, H))),
        "no layers": (np.zeros((B, H)), np.zeros((B, H))),
        "broadcast": (np.zeros((1, 1, H)), np.zeros((1, 1, H))),
        "complex": (np.zeros((1, B, H), complex), np.zeros((1, B, H))),
        "object": (np.zeros((1, B, H)), np.zeros((1, B, H), object)),
        "nothing inside": (None, None),
    },
    "lengths": {
        "number": 3,
        "text": "33333",
        "short": [3] * (B - 1),
        "long": [3] * (B + 1),
        "two axes": [[3] * B],
        "floats": [3.0] * B,
        "bools": [True] * B,
        "none inside": [3, 3, None, 3, 3],
        "negative": [3, 3, -1, 3, 3],
        "too large": [3, 3, T + 1, 3, 3],
        "huge": np.full(B, 2**64 - 1, np.uint64),
        "most negative": np.full(B, np.iinfo(np.int64).min),
    },
    "resets": {
        "flag": True,
        "twos": np.full((T, B), 2),
        "halves": np.full((T, B), 0.5),
        "nothing but NaN": np.full((T, B), np.nan),
        "complex": np.zeros((T, B), complex),
        "text": "no",
        "one axis": np.zeros(T, bool),
        "other way": np.zeros((B, T), bool),
        "features": np.zeros((T, B, I), bool),
    },
    "mask": {
        "flag": True,
        "twos": np.full((T, B), 2),
        "halves": np.full((T, B), 0.5),
        "text": "no",
        "one axis": np.ones(T, bool),
        "other way": np.ones((B, T), bool),
        "features": np.ones((T, B, I), bool),
        "masked": np.ma.ones((T, B), bool),
        "list of rows": [np.ones(T, bool)] * B,
    },
    "masked_output": {"nothing": None, "flag": True, "text": "last", "empty": ""},
    "out": {
        "list": [],
        "flag": True,
        "dtype": np.zeros((T, B, H)),
        "byte order": np.zeros((T, B, H), ">f4"),
        "shape": np.zeros((T, B, H + 1), np.float32),
        "broadcast": np.zeros((1, B, H), np.float32),
        "read-only": np.broadcast_to(np.float32(0), (T, B, H)),
        "rows that overlap": np.lib.stride_tricks.as_strided(
            np.zeros((T, B + 1, H), np.float32), (T, B, H), (4 * H * (B + 1), 4 * H - 4, 4)
        ),
        "a window for each step": np.lib.stride_tricks.sliding_window_view(
            np.zeros((T + B - 1, H), np.float32), B, 0, writeable=True
        ).swapaxes(1, 2),
        "one row for all": np.lib.stride_tricks.as_strided(
            np.zeros((T, 1, H), np.float32), (T, B, H), (4 * H, 0, 4)
        ),
    },
    "threads": {"zero": 0, "negative": -1, "half": 1.5, "text": "2", "flag": True},
}

BAD_GRADIENTS = {
    "dy": {
        "number": 1.0,
        "features": np.zeros((T, B, H + 1)),
        "steps": np.zeros((T + 1, B, H)),
        "axes": np.zeros((T, H)),
        "broadcast": np.zeros((T, 1, H)),
        "complex": np.zeros((T, B, H), complex),
        "text": "dy",
        "list": [np.zeros((T, H))],
    },
    "dstate": BAD_CALLS["state"],
    "tape": {"nothing": None, "text": "tape", "tuple": (), "number": 3},
}


ENGINES_OPTIONS = [
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "learn_initial_state",
    "dtype",
    "rng",
]
BAD_VARIANTS = [  # layer, argument, value
    ("GRU", "linear_before_reset", 1),
    ("GRU", "linear_before_reset", None),
    ("GRU", "init", "chrono"),
    ("GRU", "init", None),
    ("GRU", "activations", "sigmoid"),
    ("GRU", "activations", ("sigmoid", "tanh", "tanh")),
    ("GRU", "activations", ("sigmoid", "nonsense")),
    ("GRU", "activations", ("sigmoid", ("tanh", 0.5))),
    ("GRU", "activations", (("hard_sigmoid", np.nan), "tanh")),
    ("GRU", "activations", None),
    ("GRU", "proj_size", 2),
    ("RNN", "nonlinearity", "nonsense"),
    ("RNN", "nonlinearity", None),
    ("RNN", "nonlinearity", 3),
    ("RNN", "nonlinearity", ("relu", 0.5)),
    ("RNN", "nonlinearity", ("elu", "one")),
    ("RNN", "nonlinearity", True),
    ("RNN", "activations", ("tanh",)),
    *(
        (layer, "clip", value)
        for layer in ("GRU", "RNN")
        for value in (0, -1, np.nan, np.inf, "1", [1], 1j, True)
    ),
]


def rows(table):
    """Each (argument, bad value) of a table as one test."""
    return [
        pytest.param(argument, value, id=f"{argument}-{name}")
        for argument, values in table.items()
        for name, value in (
            values.items()
            if isinstance(values, dict)
            else ((repr(value), value) for value in values)
        )
    ]


def raises(argument):
    return pytest.raises((ValueError, TypeError), match=rf"\b{argument}\b")


@pytest.fixture
def case(kernels, rng):
    """A layer that must compute the same after the test as before it."""
    case = example(rng, T, B, I, H)
    before, expected = case.lstm.state_dict(), case()[0]
    yield case
    for name, array in case.lstm.state_dict().items():
        assert_same_bits(array, before[name], name)
    assert_same_bits(case.lstm(case.x, case.state)[0], expected)


@pytest.mark.parametrize(("argument", "value"), rows(BAD_OPTIONS))
def test_options(argument, value):
    with raises(argument):
        fl.LSTM(**{"input_size": I, "hidden_size": H} | {argument: value})


@pytest.mark.parametrize("layer", [fl.GRU, fl.RNN])
@pytest.mark.parametrize(
    ("argument", "value"), rows({name: BAD_OPTIONS[name] for name in ENGINES_OPTIONS})
)
def test_options_of_other_layers(layer, argument, value):
    with raises(argument):
        layer(**{"input_size": I, "hidden_size": H} | {argument: value})


@pytest.mark.parametrize(("layer", "argument", "value"), BAD_VARIANTS)
@pytest.mark.parametrize("suffix", ["", "Cell"])
def test_variants(layer, argument, value, suffix):
    with raises(argument):
        getattr(fl, layer + suffix)(I, H, **{argument: value})


@pytest.mark.parametrize(("argument", "value"), rows(BAD_CALLS))
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_calls_of_other_layers(kernels, rng, kind, argument, value):
    case = example(rng, T, B, I, H, kind=kind)
    expected, _ = case()
    arguments = {"x": case.x, "state": case.state} | {argument: value}
    with raises(argument):
        case.layer(**arguments)
    if argument != "out":
        with raises(argument):
            case.layer.forward(**arguments)
    assert_same_bits(case()[0], expected)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("num_layers", {"hidden_size": [4, 5], "num_layers": 3}),
        ("proj_size", {"hidden_size": [4, 3], "proj_size": 3}),
        ("t_max", {"init": "chrono"}),
        ("t_max", {"init": "chrono", "t_max": 1.5}),
        ("t_max", {"init": "chrono", "t_max": "10"}),
        ("t_max", {"init": "keras", "t_max": 10}),
        ("init", {"init": "chrono", "t_max": 10, "bias": False}),
        ("forget_bias", {"init": "chrono", "t_max": 10, "forget_bias": 1.0}),
        ("forget_bias", {"bias": False, "forget_bias": 1.0}),
        ("forget_bias", {"coupled": True, "forget_bias": 1.0}),
    ],
)
def test_options_that_exclude_each_other(argument, options):
    with raises(argument):
        fl.LSTM(**{"input_size": I, "hidden_size": H} | options)


@pytest.mark.parametrize(
    "part",
    [
        np.zeros((2, B, 4)),
        [np.zeros((1, B, 4))],
        [np.zeros((1, B, 4))] * 2,
        [np.zeros((1, B, 5)), np.zeros((1, B, 4))],
        [np.zeros((B, 4)), np.zeros((B, 5))],
        [np.zeros((1, B, 4)), np.zeros((1, B, 5), complex)],
        [np.zeros((1, B, 4)), None],
        None,
        3,
    ],
    ids=["array", "one", "same", "order", "axis", "complex", "nothing inside", "nothing", "number"],
)
def test_state_of_layers_that_differ(kernels, part):
    lstm = fl.LSTM(I, [4, 5])
    good = [np.zeros((1, B, 4)), np.zeros((1, B, 5))]
    x = np.zeros((T, B, I))
    with raises("state"):
        lstm(x, (good, part))
    (y, _), tape = lstm.forward(x, (good, good))
    with raises("dstate"):
        lstm.backward(tape, y, (part, good))


Z = np.zeros((2, 2))
STREAMS = {  # states of two streams, each (h, c); joined, their arrays have the shape of a state
    "list": [(Z, Z), (Z, Z)],
    "tuple": ((Z, Z), (Z, Z)),
    "lists": [[Z, Z], [Z, Z]],
    "of numbers": [(Z.tolist(), Z.tolist())] * 2,
}


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
def test_states_of_streams_are_not_a_state(kernels, streams):
    lstm, x = fl.LSTM(3, 2, num_layers=2), np.ones((4, 2, 3))
    with pytest.raises(ValueError, match=r"^state: .*one array .*got a (tuple|list) of 2"):
        lstm(x, streams)
    _, tape = lstm.forward(x)
    with pytest.raises(ValueError, match=r"^dstate: .*one array .*got a (tuple|list) of 2"):
        lstm.backward(tape, None, streams)


@pytest.mark.parametrize("streams", STREAMS.values(), ids=STREAMS)
def test_states_of_streams_are_not_a_state_of_a_cell(kernels, streams):
    cell, x = fl.LSTMCell(3, 2), np.ones((2, 3))
    streams = [type(pair)(np.asarray(part)[0] for part in pair) for pair in streams]
    with pytest.raises(ValueError, match=r"^state: .*one array .*got a (tuple|list) of 2"):
        cell(x, streams)
    _, tape = cell.forward(x)
    with pytest.raises(ValueError, match=r"^dstate: .*one array .*got a (tuple|list) of 2"):
        cell.backward(tape, streams)


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_several_arrays_are_not_a_state(kernels, kind):
    """Two layers of two rows: nobody but the caller knows which is which."""
    layer = getattr(fl, kind)(3, 2, num_layers=2)
    with pytest.raises(ValueError, match=r"^state: h: .*\(2, 2, 2\), got a list of 2 arrays"):
        layer(np.ones((4, 2, 3)), [Z, Z])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_cell_names_the_shapes_it_was_given(kernels, kind):
    cell, x = getattr(fl, f"{kind}Cell")(3, 8), np.ones((20, 3))
    h = np.ones((1, 20, 8), np.float32)
    state = (h, h) if kind == "LSTM" else h
    with pytest.raises(ValueError, match=r"^state: h: .*\(20, 8\), got \(1, 20, 8\)$"):
        cell(x, state)
    with pytest.raises(ValueError, match=r"^state: h: .*\(20, 8\), got \(1, 20, 8\)$"):
        cell.forward(x, state)
    with pytest.raises(ValueError, match=r"^dstate: h: .*\(20, 8\), got \(1, 20, 8\)$"):
        cell.backward(cell.forward(x)[1], state)


@pytest.mark.parametrize(("argument", "value"), rows(BAD_CALLS))
def test_calls(case, argument, value):
    arguments = {"x": case.x, "state": case.state} | {argument: value}
    with raises(argument):
        case.lstm(**arguments)
    if argument != "out":
        with raises(argument):
            case.lstm.forward(**arguments)


@pytest.mark.parametrize(("argument", "value"), rows(BAD_GRADIENTS))
def test_gradients(case, argument, value):
    (y, _), tape = case.forward()
    with raises(argument):
        case.lstm.backward(**{"tape": tape, "dy": y} | {argument: value})


def test_tape_of_another_layer(case, rng):
    (y, _), tape = example(rng, T, B, I, H).forward()
    with raises("tape"):
        case.lstm.backward(tape, y)


shapes = st.lists(st.integers(0, 8), max_size=5).map(tuple)


@given(shape=shapes)
def test_any_shape_of_x(kernels, shape):
    lstm = fl.LSTM(I, H)
    if len(shape) in (2, 3) and shape[-1] == I:
        y, (h, c) = lstm(np.ones(shape))
        assert y.shape == (*shape[:-1], H)
        assert h.shape == c.shape == (1, *shape[1:-1], H)
    else:
        with raises("x"):
            lstm(np.ones(shape))


@given(h=shapes, c=shapes)
def test_any_shape_of_state(kernels, h, c):
    lstm = fl.LSTM(I, H, num_layers=2)
    assume(not h == c == (2, B, H))
    with raises("state"):
        lstm(np.ones((T, B, I)), (np.ones(h), np.ones(c)))


def lists(elements, sizes):
    return sizes.flatmap(lambda size: st.lists(elements, min_size=size, max_size=size))


@given(lengths=lists(st.integers(-1, T + 1), st.sampled_from([B, B, B, 0, 1, B - 1, B + 1])))
def test_any_lengths(kernels, lengths):
    lstm = fl.LSTM(I, H)
    x = np.ones((T, B, I))
    if len(lengths) == B and all(0 <= length <= T for length in lengths):
        y, _ = lstm(x, lengths=lengths)
        np.testing.assert_array_equal((y != 0).any(2).sum(0), lengths)
    else:
        with raises("lengths"):
            lstm(x, lengths=lengths)


@given(shape=shapes)
def test_any_shape_of_resets(kernels, shape):
    lstm = fl.LSTM(I, H)
    assume(shape != (T, B))
    with raises("resets"):
        lstm(np.ones((T, B, I)), resets=np.zeros(shape, bool))


@pytest.mark.parametrize("argument", ["lengths", "resets"])
def test_lengths_and_batch_resets_need_a_batch(case, argument):
    values = {"lengths": [3], "resets": np.zeros((T, 1), bool)}
    with raises(argument):
        case.lstm(case.x[:, 0], **{argument: values[argument]})


def test_a_list_has_lengths_of_its_own(case):
    with raises("lengths"):
        case.lstm([np.zeros((3, I))], lengths=[2])


def test_flags_of_a_list(case):
    x = [np.zeros((3, I)), np.zeros((2, I))]
    for name in ("mask", "resets"):
        for bad in (np.ones((3, 2), bool), [np.ones(3, bool)], [np.ones(3, bool)] * 2):
            with raises(name):
                case.lstm(x, **{name: bad})
        with pytest.raises(ValueError, match=rf"^{name}\[1\]: .*\(2,\), got \(3,\)"):
            case.lstm(x, **{name: [np.ones(3, bool)] * 2})


def test_out_of_a_list(case):
    with raises("out"):
        case.lstm([np.zeros((3, I))], out=np.zeros((3, 1, H), np.float32))


@pytest.mark.parametrize("n", [0, -1, *NUMBERS_OF_NO_KIND], ids=repr)
def test_set_num_threads(n):
    before = fl.get_num_threads()
    with raises("n"):
        fl.set_num_threads(n)
    assert fl.get_num_threads() == before


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("x", (np.zeros((T, B, I)),)),
        ("x", (np.zeros((B, I + 1)),)),
        ("x", (np.zeros((B, I), complex),)),
        ("state", (np.zeros((B, I)), (np.zeros((B, H)), np.zeros((B + 1, H))))),
        ("state", (np.zeros(I), (np.zeros((1, H)), np.zeros((1, H))))),
        ("state", (np.zeros(I), np.zeros((2, H)))),
    ],
)
def test_cell(kernels, argument, arguments):
    with raises(argument):
        fl.LSTMCell(I, H)(*arguments)
