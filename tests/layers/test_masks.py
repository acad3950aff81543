"""`mask`: a row's result is that of its kept steps alone, whatever stands at the others."""

import numpy as np
import pytest
from compare import assert_gradients_close, assert_same_bits
from random_layers import each, example, parts

import fastlstm as fl

T, B, I, H = 9, 5, 3, 4
LAYERS = {
    "LSTM": {},
    "LSTM, two layers, both ways": {"num_layers": 2, "bidirectional": True, "proj_size": 2},
    "LSTM, every variant": {"peepholes": True, "layer_norm": True, "bidirectional": True},
    "LSTM of several widths": {"H": [4, 6], "bidirectional": True},
    "GRU": {"kind": "GRU", "bidirectional": True},
    "GRU, reset first": {"kind": "GRU", "linear_before_reset": False, "num_layers": 2},
    "RNN": {"kind": "RNN", "bidirectional": True, "num_layers": 2},
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


@pytest.fixture
def same(kernels, dtype):
    """The reference multiplies with BLAS, where other batches are other bits."""

    def check(actual, expected, what=""):
        if kernels == "reference":
            assert_gradients_close(actual, expected, dtype, what, slack=10)
        else:
            assert_same_bits(actual, expected, what)

    return check


def patterns(rng):
    """A mask [T, B] with each pattern in a row of its own."""
    mask = np.ones((T, B), bool)
    mask[:4, 0] = False  # padding on the left
    mask[[1, 2, 5, 8], 1] = False  # holes
    mask[:, 2] = False
    mask[6:, 3] = False  # padding on the right
    mask[:, 4] = rng.random(T) < 0.5
    return mask


def options_of(rng, extra):
    options = {"lengths": np.array([9, 8, 5, 7, 6])} if "lengths" in extra else {}
    return options | ({"resets": rng.random((T, B)) < 0.3} if "resets" in extra else {})


def begins_of(kept, resets):
    """For each kept step, whether a reset lies after the kept step before it, or there."""
    begins, last = [], -1
    for step in kept:
        begins.append(any(resets[last + 1 : step + 1]))
        last = step
    return np.array(begins, bool)


def alone(case, dy, dstate, row, kept, resets, threads):
    """y, state and gradients of the kept steps of one row, as a batch of its own."""
    options = {} if resets is None else {"resets": begins_of(kept, resets[:, row])[:, None]}
    state = each(lambda part: cut(part, row), case.state)
    (y, final), tape = case.layer.forward(
        case.x[kept, row][:, None], state, threads=threads, **options
    )
    dfinal = each(lambda part: cut(part, row), dstate)
    return y, final, case.layer.backward(tape, dy[kept, row][:, None], dfinal, threads=threads)


def cut(part, row):
    """A row of a part of a state, which is a list if layers differ in width."""
    if isinstance(part, list):
        return [cut(array, row) for array in part]
    return part[:, row : row + 1]


def arrays(state):
    return [a for part in parts(state) for a in (part if isinstance(part, list) else [part])]


@every_layer
@pytest.mark.usefixtures("share_all_work")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("extra", ["", "lengths", "resets", "lengths, resets"])
def test_kept_steps_are_computed_as_if_alone(kernels, rng, dtype, same, layer, extra, threads):
    case = example(rng, T, B, I, dtype=dtype, **{"H": H} | layer)
    mask, options = patterns(rng), options_of(rng, extra)
    kept = mask & (np.arange(T)[:, None] < options.get("lengths", np.full(B, T)))
    dy = rng.standard_normal(case()[0].shape).astype(dtype)
    dstate = each(
        lambda part: [2 * a for a in part] if isinstance(part, list) else 2 * part, case.state
    )
    x, dy_seen = case.x.copy(), dy.copy()
    x[~kept], dy_seen[~kept] = np.nan, np.inf
    called, called_final = case.layer(x, case.state, mask=mask, threads=threads, **options)
    (y, final), tape = case.layer.forward(x, case.state, mask=mask, threads=threads, **options)
    same(called, y)
    for a, b in zip(arrays(called_final), arrays(final), strict=True):
        same(a, b)
    grads = case.layer.backward(tape, dy_seen, dstate, threads=threads)
    assert y.shape == dy.shape
    assert grads.x.shape == x.shape
    assert not y[~kept].any()
    assert not grads.x[~kept].any()
    sums = {name: np.zeros_like(array) for name, array in grads.params.items()}
    for row in range(B):
        steps = np.nonzero(kept[:, row])[0]
        resets = options.get("resets")
        y_alone, final_alone, grads_alone = alone(case, dy, dstate, row, steps, resets, threads)
        same(y[steps, row], y_alone[:, 0], f"y {row}")
        same(grads.x[steps, row], grads_alone.x[:, 0], f"dx {row}")
        for whole, own in ((final, final_alone), (grads.state, grads_alone.state)):
            for a, b in zip(arrays(whole), arrays(own), strict=True):
                same(a[:, row : row + 1], b, f"state {row}")
        for name, array in grads_alone.params.items():
            sums[name] += array
    for name, array in grads.params.items():
        assert_gradients_close(array, sums[name], dtype, name, slack=10)


@every_layer
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_bits_of_the_compacted_batch(kernels, rng, dtype, layer, batch_first):
    """Gradients of the parameters, too, and with what training draws."""
    turn = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    drawn = {} if "kind" in layer else {"recurrent_dropout": 0.4, "zoneout": (0.3, 0.2)}
    drawn |= {"dropout": 0.5} if "num_layers" in layer else {}
    results = []
    for is_masked in (True, False):
        rng = np.random.default_rng(3)
        options = {"H": H} | layer | drawn | {"batch_first": batch_first, "dtype": dtype}
        case = example(rng, T, B, I, **options)
        mask = patterns(rng)
        dy = rng.standard_normal((T, B, case.layer._form.outputs)).astype(dtype)
        x, lengths = case.x, mask.sum(axis=0)
        if is_masked:
            arguments = {"mask": turn(mask)}
        else:
            arguments = {"lengths": lengths}
            x, dy = compacted(x, mask), compacted(dy, mask)
        (y, final), tape = case.layer.forward(turn(x), case.state, **arguments)
        grads = case.layer.backward(tape, turn(dy), case.state)
        y, dx = turn(y), turn(grads.x)
        if is_masked:
            y, dx = compacted(y, mask), compacted(dx, mask)
        results.append([y, *arrays(final), dx, *arrays(grads.state), *grads.params.values()])
    for a, b in zip(*results, strict=True):
        assert_same_bits(a, b)


def compacted(array, mask):
    result = np.zeros((mask.sum(axis=0).max(), *array.shape[1:]), array.dtype)
    for row in range(array.shape[1]):
        own = array[mask[:, row], row]
        result[: len(own), row] = own
    return result


@every_layer
@pytest.mark.parametrize("with_lengths", [False, True])
def test_repeated_outputs(kernels, rng, dtype, layer, with_lengths):
    case = example(rng, T, B, I, dtype=dtype, **{"H": H} | layer)
    mask = patterns(rng)
    options = {"lengths": np.array([9, 8, 5, 7, 6])} if with_lengths else {}
    ends = options.get("lengths", np.full(B, T))
    kept = mask & (np.arange(T)[:, None] < ends)
    zeros, expected_final = case.layer(case.x, case.state, mask=mask, **options)
    (y, final), tape = case.layer.forward(
        case.x, case.state, mask=mask, masked_output="repeat", **options
    )
    for a, b in zip(arrays(final), arrays(expected_final), strict=True):
        assert_same_bits(a, b)
    dy = rng.standard_normal(y.shape).astype(dtype)
    expected, folded = np.zeros_like(y), np.zeros_like(dy)
    N = y.shape[-1] // len(case.layer.cells.reverse)
    for row in range(B):
        for direction, is_reverse in enumerate(case.layer.cells.reverse):
            own = slice(direction * N, (direction + 1) * N)
            last = None
            for t in range(ends[row])[:: -1 if is_reverse else 1]:
                last = t if kept[t, row] else last
                if last is not None:
                    expected[t, row, own] = zeros[last, row, own]
                    folded[last, row, own] += dy[t, row, own]
    assert_same_bits(y, expected)
    called, _ = case.layer(case.x, case.state, mask=mask, masked_output="repeat", **options)
    assert_same_bits(called, expected)
    grads = case.layer.backward(tape, dy, case.state)
    _, tape = case.layer.forward(case.x, case.state, mask=mask, **options)
    expected = case.layer.backward(tape, folded, case.state)
    assert_gradients_close(grads.x, expected.x, dtype, "x")
    for name, array in grads.params.items():
        assert_gradients_close(array, expected.params[name], dtype, name)


def test_numbers_of_keras(kernels):
    """`layers.GRU(2, reset_after=True)` with constant weights, in keras' own test of masks."""
    gru = fl.GRU(3, 2, batch_first=True)  # linear_before_reset is reset_after
    values = {"weight_ih_l0": 0.01, "weight_hh_l0": 0.02, "bias_ih_l0": 0.03, "bias_hh_l0": 0.03}
    gru.load_state_dict({k: np.full_like(a, values[k]) for k, a in gru.state_dict().items()})
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)
    y, h = gru(x, mask=mask)
    expected = [[0.19393763] * 2, [0.30818558] * 2]
    np.testing.assert_allclose(y[:, -1], expected, rtol=1e-6)
    np.testing.assert_allclose(h[0], expected, rtol=1e-6)


def test_forms(kernels, rng, dtype, same):
    """One sequence, a list, another layout, and a result of the caller's."""
    case = example(rng, T, B, I, H, bidirectional=True, dtype=dtype)
    mask, state = patterns(rng), case.state
    for how in ("zero", "repeat"):
        expected, final = case.layer(case.x, state, mask=mask, masked_output=how)
        ys, finals = case.layer(
            list(case.x.swapaxes(0, 1)), state, mask=list(mask.T), masked_output=how
        )
        same(np.stack(ys, axis=1), expected)
        same(finals[0], final[0])
        for row in range(B):
            one = each(lambda part, row=row: part[:, row], state)
            y, _ = case.layer(case.x[:, row], one, mask=mask[:, row], masked_output=how)
            same(y, expected[:, row])
        for out in (np.full_like(expected, np.nan), np.full_like(expected, np.nan, order="F")):
            y, _ = case.layer(case.x, state, mask=mask, masked_output=how, out=out)
            assert y is out
            same(out, expected)
        memory = np.zeros((T, B, 2 * H), dtype)
        memory[..., :I] = case.x
        case.layer(memory[..., :I], state, mask=mask, masked_output=how, out=memory)
        same(memory, expected)


def test_gradients_of_forms(kernels, rng, dtype):
    case = example(rng, T, B, I, H, bidirectional=True, dtype=dtype)
    mask, dy = patterns(rng), rng.standard_normal((T, B, 2 * H)).astype(dtype)
    for how in ("zero", "repeat"):
        options = {"masked_output": how}
        expected = case.layer.backward(
            case.layer.forward(case.x, case.state, mask=mask, **options)[1], dy
        )
        xs, dys = list(case.x.swapaxes(0, 1)), list(dy.swapaxes(0, 1))
        _, tape = case.layer.forward(xs, case.state, mask=list(mask.T), **options)
        grads = case.layer.backward(tape, dys)
        assert_gradients_close(np.stack(grads.x, axis=1), expected.x, dtype, "x")
        for row in range(B):
            one = each(lambda part, row=row: part[:, row], case.state)
            _, tape = case.layer.forward(case.x[:, row], one, mask=mask[:, row], **options)
            grads = case.layer.backward(tape, dy[:, row])
            assert_gradients_close(grads.x, expected.x[:, row], dtype, "x")


@pytest.mark.parametrize("how", ["zero", "repeat"])
def test_a_tape_holds_its_mask(rng, how):
    case = example(rng, T, B, I, H)
    mask = patterns(rng)
    (y, _), tape = case.layer.forward(case.x, case.state, mask=mask, masked_output=how)
    expected = case.layer.backward(tape, y)
    _, tape = case.layer.forward(case.x, case.state, mask=mask, masked_output=how)
    mask[...] = ~mask
    grads = case.layer.backward(tape, y)
    assert_same_bits(grads.x, expected.x)


@pytest.mark.parametrize("mask", [np.ones((T, B), bool), np.zeros((T, B), bool)], ids=["all", "no"])
def test_all_and_nothing(kernels, rng, mask):
    case = example(rng, T, B, I, H, num_layers=2)
    y, final = case.layer(case.x, case.state, mask=mask)
    expected, expected_final = case()
    if not mask.any():
        expected, expected_final = np.zeros_like(expected), case.state
    assert_same_bits(y, expected)
    for a, b in zip(final, expected_final, strict=True):
        assert_same_bits(a, b)


def test_what_is_left_out_is_not_cast(kernels, rng):
    """Beyond float32 it would be inf, or an error."""
    case = example(rng, T, B, I, H)
    x, mask = case.x.astype(np.float64), patterns(rng)
    expected, _ = case.layer(case.x, mask=mask)
    x[~mask] = 1e300
    assert_same_bits(case.layer(x, mask=mask)[0], expected)
    x[mask], lengths = case.x[mask], np.array([9, 3, 0, 6, 2])
    x[np.arange(T)[:, None] >= lengths] = 1e300
    case.x[~mask] = 0
    x[~mask & (np.arange(T)[:, None] < lengths)] = 0
    assert_same_bits(case.layer(x, lengths=lengths)[0], case.layer(case.x, lengths=lengths)[0])


@pytest.mark.parametrize("kind", [int, np.uint8, np.float32, list])
@pytest.mark.parametrize("make", ["LSTM", "Backwards", "Sequential", "Pool"])
def test_0_and_1_stand_for_bools(rng, make, kind):
    lstm = fl.LSTM(I, H, rng=rng)
    layer = {
        "LSTM": lstm,
        "Backwards": fl.Backwards(lstm),
        "Sequential": fl.Sequential(fl.Linear(I, I, rng=rng), lstm, fl.Last()),
        "Pool": fl.Pool("mean"),
    }[make]
    x, mask = rng.standard_normal((T, B, I)), patterns(rng)
    numbers = mask.astype(int).tolist() if kind is list else mask.astype(kind)
    np.testing.assert_equal(layer(x, mask=numbers), layer(x, mask=mask))
    rows = list(x.swapaxes(0, 1))
    of_list = [row.astype(int).tolist() if kind is list else row.astype(kind) for row in mask.T]
    np.testing.assert_equal(layer(rows, mask=of_list), layer(rows, mask=list(mask.T)))


@pytest.mark.parametrize("value", [2, -1, 0.5, np.nan])
def test_other_numbers_are_refused(rng, value):
    layer, x = fl.LSTM(I, H, rng=rng), np.ones((T, B, I))
    mask = np.ones((T, B))
    mask[2, 1] = value
    for model in (layer, fl.Backwards(layer), fl.Sequential(layer), fl.Pool("max")):
        with pytest.raises(ValueError, match=f"^mask: expected only 0 and 1, got {value}"):
            model(x, mask=mask)
        with pytest.raises(ValueError, match=rf"^mask\[1\]: expected only 0 and 1, got {value}"):
            model(list(x.swapaxes(0, 1)), mask=list(mask.T))
        with pytest.raises(TypeError, match=r"^mask: expected bools, or numbers 0 and 1, "):
            model(x, mask=np.ones((T, B), "U1"))
