"""Backwards, Masking and Merge: what stands around recurrent layers."""

import copy

import numpy as np
import pytest
from compare import assert_same_bits
from slopes import assert_slope

import fastlstm as fl

I, H, B, T = 3, 4, 5, 7
KINDS = {"LSTM": fl.LSTM, "GRU": fl.GRU, "RNN": fl.RNN}


def lstm(rng, inputs=I, batch_first=True, **options):
    return fl.LSTM(inputs, H, batch_first=batch_first, dtype=np.float64, rng=rng, **options)


def marked(rng, value=0.0, batch_first=True):
    """A batch whose rows have marked steps at the beginning, within, at the end, nowhere, all."""
    x = rng.standard_normal((B, T, I))
    kept = np.ones((B, T), bool)
    kept[0, :2] = kept[1, [2, 4]] = kept[2, 5:] = kept[4] = False
    x[~kept] = value
    return (x, kept) if batch_first else (x.swapaxes(0, 1), kept.T)


def assert_gradients(model, call, rng):
    """Every gradient of `call(model)`, which returns result, gradients of it, and arrays of x."""
    result, backward, x = call(model)
    weights = rng.standard_normal(result.shape)
    grads = backward(weights)

    def loss():
        return (call(model)[0] * weights).sum()

    if grads.x is not None:
        assert_slope(grads.x, loss, x, "x")
    for name, array in model.parameters().items():
        own = array.copy()

        def changed(own=own, name=name):
            model.assign({**model.parameters(), name: own.copy()})
            return loss()

        assert_slope(grads.params[name], changed, own, name)
        model.assign({**model.parameters(), name: own})


# Merge.


@pytest.mark.parametrize("kind", ["sum", "mul", "ave"])
def test_merge(kind, rng, dtype):
    x = rng.standard_normal((T, B, 2 * H)).astype(dtype)
    a, b = x[..., :H], x[..., H:]
    expected = {"sum": a + b, "mul": a * b, "ave": (a + b) / 2}[kind]
    merge = fl.Merge(kind)
    assert_same_bits(merge(x), expected.astype(dtype))
    x = x.astype(np.float64)

    def call(merge):
        y, tape = merge.forward(x)
        return y, lambda dy: merge.backward(tape, dy), x

    x = x[:2, :2]
    assert_gradients(merge, call, rng)


def test_merge_in_a_model(rng):
    layer = lstm(rng, bidirectional=True)
    model = fl.Sequential(layer, fl.Merge("sum"), fl.Last(), fl.Linear(H, 2, dtype=np.float64))
    x = rng.standard_normal((B, T, I))
    y = layer(x)[0]
    expected = model[3]((y[..., :H] + y[..., H:])[:, -1])  # after it, one direction
    np.testing.assert_allclose(model(x)[0], expected)
    rows = model([x[0, :3], x[1]])[0]
    y = layer(x[:1, :3])[0]
    np.testing.assert_allclose(rows[0], model[3]((y[..., :H] + y[..., H:])[0, -1]))


def test_what_merge_refuses():
    with pytest.raises(ValueError, match="kind: expected"):
        fl.Merge("concat")
    with pytest.raises(ValueError, match="x: expected an even number of features"):
        fl.Merge("sum")(np.ones((2, 3)))


# Backwards.


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_backwards_reads_from_the_end(kind, batch_first, rng):
    layer = KINDS[kind](I, H, batch_first=batch_first, rng=rng)
    x = rng.standard_normal((B, T, I) if batch_first else (T, B, I))
    turned = x[:, ::-1] if batch_first else x[::-1]
    state = layer.zero_state(B)
    for ours, theirs in zip(fl.Backwards(layer)(x, state), layer(turned, state), strict=True):
        for a, b in zip(np.atleast_1d(ours), np.atleast_1d(theirs), strict=True):
            assert_same_bits(np.asarray(a), np.asarray(b))
    y, _ = fl.Backwards(layer)(x[0] if batch_first else x[:, 0])  # one sequence
    assert_same_bits(y, layer(turned)[0][0] if batch_first else layer(turned)[0][:, 0])


def test_backwards_leaves_errors_to_the_layer():
    for x in ([1.0, 2.0], [np.ones((2, 4))], np.ones(3), np.ones((2, 3, 4, 5))):
        layer = fl.GRU(3, 4)
        with pytest.raises(ValueError, match="x") as expected:
            layer(x)
        with pytest.raises(ValueError, match="x") as found:
            fl.Backwards(layer)(x)
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("batch_first", [True, False])
def test_backwards_on_ragged_rows(batch_first, rng):
    """Each row is turned round within its length, as the sequence by itself."""
    layer = lstm(rng, batch_first=batch_first)
    backwards, lengths = fl.Backwards(layer), np.array([4, 7, 1, 0, 6])
    rows = [rng.standard_normal((length, I)) for length in lengths]
    expected = [layer(row[::-1])[0] for row in rows]
    padded = np.full((B, T, I), np.nan)
    for row, part in zip(padded, rows, strict=True):
        row[: len(part)] = part
    x = padded if batch_first else padded.swapaxes(0, 1)
    y = backwards(x, lengths=lengths)[0]
    models = backwards, fl.Sequential(backwards), fl.Sequential(fl.Dropout(0.5), backwards)
    for model in models:
        for a, b in zip(model(rows)[0], expected, strict=True):
            assert_same_bits(a, b)
        y = model(x, lengths=lengths)[0]
        for a, b in zip(y if batch_first else y.swapaxes(0, 1), expected, strict=True):
            assert_same_bits(a[: len(b)], b)
            assert not a[len(b) :].any()
    ends = fl.Sequential(backwards, fl.Last())(rows)[0]
    np.testing.assert_array_equal(ends[:3], [part[-1] for part in expected[:3]])


def test_backwards_with_a_mask_turns_it_too(rng):
    layer, (x, kept) = lstm(rng), marked(rng)
    ours = fl.Backwards(layer)(x, mask=kept, masked_output="repeat")
    theirs = layer(x[:, ::-1], mask=kept[:, ::-1], masked_output="repeat")
    assert_same_bits(ours[0], theirs[0])
    assert_same_bits(ours[1][1], theirs[1][1])


@pytest.mark.parametrize("form", ["array", "lengths", "mask"])
def test_gradients_of_backwards(form, rng):
    x, kept = marked(rng)
    options = {
        "array": {},
        "lengths": {"lengths": [4, 7, 1, 0, 6]},
        "mask": {"mask": kept, "masked_output": "repeat"},
    }[form]

    def call(model):
        (y, _), tape = model.forward(x, **options)
        return y, lambda dy: model.backward(tape, dy), x

    assert_gradients(fl.Backwards(lstm(rng)), call, rng)


def test_gradients_of_backwards_on_a_list(rng):
    layer = lstm(rng)
    model, rows = fl.Backwards(layer), [rng.standard_normal((t, I)) for t in (4, 1)]
    (ys, _), tape = model.forward(rows)
    dys = [rng.standard_normal(y.shape) for y in ys]
    grads = model.backward(tape, dys)
    for row, dy, dx in zip(rows, dys, grads.x, strict=True):
        _, own = layer.forward(row[::-1])
        np.testing.assert_allclose(dx, layer.backward(own, dy).x[::-1], atol=1e-12)


def test_what_backwards_refuses(rng):
    with pytest.raises(TypeError, match="layer: expected a recurrent layer, got Linear"):
        fl.Backwards(fl.Linear(2, 3))
    with pytest.raises(TypeError, match="layer: expected a recurrent layer, got LSTMCell"):
        fl.Backwards(fl.LSTMCell(2, 3))
    model, x = fl.Backwards(lstm(rng)), rng.standard_normal((B, T, I))
    with pytest.raises(ValueError, match="resets: expected None"):
        model(x, resets=np.zeros((B, T), bool))
    with pytest.raises(ValueError, match="reads forward"):
        model.step(x[:, 0], model.zero_state(B))
    with pytest.raises(ValueError, match=r"mask: expected shape \(5, 7\)"):
        model(x, mask=np.ones((T, B), bool))
    with pytest.raises(ValueError, match="lengths: expected 0 to 7"):
        model(x, lengths=[8] * B)
    _, tape = model.forward(x)
    with pytest.raises(ValueError, match="dy: expected shape"):
        model.backward(tape, x)
    model.backward(tape, np.ones((B, T, H)))  # the tape was not used
    with pytest.raises(ValueError, match="not used yet"):
        model.backward(tape, np.ones((B, T, H)))


# Masking.


@pytest.mark.parametrize("value", [0.0, -1.5])
@pytest.mark.parametrize("batch_first", [True, False])
def test_masking_skips_marked_steps(value, batch_first, rng):
    x, kept = marked(rng, value, batch_first)
    layer = lstm(rng, batch_first=batch_first, bidirectional=True)
    for output in ("repeat", "zero"):
        model = fl.Masking(layer, value=value, masked_output=output)
        for a, b in zip(model(x), layer(x, mask=kept, masked_output=output), strict=True):
            a, b = (a, b) if isinstance(a, np.ndarray) else (a[0][0], b[0])
            assert_same_bits(a, b)


def test_layers_that_are_not_recurrent_act_on_marked_steps(rng):
    """As in Keras: a Dense layer gives its bias where the LSTM before it has not yet begun."""
    (x, kept), layer = marked(rng, 0.25), lstm(rng)
    first, last = fl.Linear(I, I, dtype=np.float64), fl.Linear(H, 2, dtype=np.float64)
    y = fl.Masking(first, layer, last, value=0.25)(x)[0]
    cleared = np.where(kept[..., None], x, 0)
    inner = layer(first(cleared), mask=kept, masked_output="repeat")[0]
    np.testing.assert_allclose(y, last(inner), atol=1e-14)
    np.testing.assert_array_equal(y[0, 0], last.bias)


def test_marked_steps_count_as_zeros(rng):
    x, kept = marked(rng, 0.25)
    layer = fl.Linear(I, 2, dtype=np.float64, rng=rng)
    model = fl.Masking(layer, value=0.25)
    np.testing.assert_array_equal(model(x), layer(np.where(kept[..., None], x, 0)))
    y, tape = model.forward(x)
    dx = model.backward(tape, np.ones_like(y)).x
    np.testing.assert_array_equal((dx != 0).all(axis=-1), kept)
    assert not dx[~kept].any()


def test_the_value_is_compared_in_the_dtype_of_the_layers(rng):
    x, kept = marked(rng)
    layer = fl.LSTM(I, H, batch_first=True, rng=rng)
    model = fl.Masking(fl.Dropout(0.5), layer, value=0.3)
    for value in (0.3, float(np.float32(0.3))):
        x[~kept] = value
        assert_same_bits(model(x)[0], layer(x, mask=kept, masked_output="repeat")[0])


def test_masking_of_indices(rng):
    words, layer = fl.Embedding(9, I, dtype=np.float64, rng=rng), lstm(rng)
    x = np.array([[1, 2, 0, 8], [0, 0, 3, 4], [0, 0, 0, 0]])
    y = fl.Masking(words, layer)(x)[0]
    assert_same_bits(y, layer(words(x), mask=x != 0, masked_output="repeat")[0])
    rows = fl.Masking(words, layer)([x[0], x[1, 2:]])[0]
    assert_same_bits(rows[0], y[0])
    assert_same_bits(rows[1], y[1, 2:])


@pytest.mark.parametrize("output", ["repeat", "zero"])
def test_ends_of_marked_rows(output, rng):
    x, kept = marked(rng)
    layer = lstm(rng, bidirectional=True)
    h = layer(x, mask=kept)[1][0]
    ends = fl.Masking(layer, fl.Last(), masked_output=output)(x)[0]
    np.testing.assert_array_equal(ends, np.concatenate([h[0], h[1]], axis=1))
    mean = fl.Masking(layer, fl.Pool("mean", batch_first=True))(x)[0]
    np.testing.assert_array_equal(
        mean, fl.Pool("mean", batch_first=True)(layer(x, mask=kept)[0], mask=kept)
    )


def test_masking_within_a_ragged_batch(rng):
    """Marked steps within rows of their own lengths, and within another model."""
    x, _ = marked(rng)
    inner = fl.Masking(lstm(rng), fl.Linear(H, 2, dtype=np.float64))
    lengths = np.array([4, 7, 6, 0, 5])
    rows = [row[:length] for row, length in zip(x, lengths, strict=True)]
    expected = [inner(row[None])[0][0] for row in rows]
    dirty = x.copy()
    for row, length in zip(dirty, lengths, strict=True):
        row[length:] = np.nan
    for model in (inner, fl.Sequential(inner), fl.Sequential(fl.Dropout(0.1), inner)):
        y = model(dirty, lengths=lengths)[0]
        ys = model(rows)[0]
        for padded, own, wanted in zip(y, ys, expected, strict=True):
            np.testing.assert_allclose(padded[: len(wanted)], wanted, atol=1e-14)
            np.testing.assert_allclose(own, wanted, atol=1e-14)
            assert not padded[len(wanted) :].any()


@pytest.mark.parametrize("output", ["repeat", ["zero", "repeat"]])
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients_of_masking(output, ragged, rng):
    x, _ = marked(rng, 0.5)
    options = {"lengths": [7, 6, 6, 0, 7]} if ragged else {}
    model = fl.Masking(
        fl.Linear(I, 2, dtype=np.float64, rng=rng),
        lstm(rng, 2, bidirectional=True),
        fl.Merge("mul"),
        fl.Backwards(fl.GRU(H, 2, batch_first=True, dtype=np.float64, rng=rng)),
        value=0.5,
        masked_output=output,
    )
    step = np.zeros_like(x)  # so that no difference of x makes a marked step one that is not

    def call(model):
        moved = np.where((x != 0.5).any(axis=-1, keepdims=True), x + step, x)
        (y, _), tape = model.forward(moved, **options)
        return y, lambda dy: model.backward(tape, dy), step

    assert_gradients(model, call, rng)


def test_masking_needs_whole_sequences(rng):
    model = fl.Masking(lstm(rng))
    before = fl.Linear(I, I, dtype=np.float64), fl.Dropout(0.1)
    for outer in (model, fl.Sequential(model), fl.Sequential(*before, model)):
        with pytest.raises(ValueError, match="expected no Masking, for one step"):
            outer.step(np.ones((B, I)), outer.zero_state(B))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"value": "0"}, TypeError, "value: expected a"),
        ({"masked_output": "none"}, ValueError, 'masked_output: expected "zero" or "repeat"'),
        ({"masked_output": ["zero"] * 2}, ValueError, "masked_output: .* a list of 1"),
        ({"masked_output": 1}, ValueError, "masked_output: expected"),
    ],
)
def test_what_masking_refuses(options, error, text):
    with pytest.raises(error, match=text):
        fl.Masking(fl.LSTM(2, 3), **options)


def test_a_part_of_masking_masks(rng):
    """Its first layers are a Masking as well; others would look for marks in what these return."""
    outputs = ["zero", "repeat"]
    layers = lstm(rng), fl.Dropout(0.1), lstm(rng, H), fl.Linear(H, 2, dtype=np.float64, rng=rng)
    model = fl.Masking(*layers, value=2.0, masked_output=outputs)
    x, _ = marked(rng, 2.0)
    for part in (model[:3], model[:-1], model[0:-1]):
        assert_same_bits(
            part(x)[0], fl.Masking(*layers[:3], value=2.0, masked_output=outputs)(x)[0]
        )
    assert_same_bits(model[:2](x)[0], fl.Masking(layers[0], value=2.0, masked_output="zero")(x)[0])
    assert_same_bits(
        fl.Masking(*layers, value=2.0)[:1](x)[0], fl.Masking(layers[0], value=2.0)(x)[0]
    )
    assert model[1] is layers[1]
    assert model[-1] is layers[-1]
    for index in (slice(1, None), slice(None, None, 2), slice(-2, None), slice(None, None, -1)):
        with pytest.raises(ValueError, match=r"^index: expected a slice \[:n\] of a Masking"):
            model[index]


def test_the_repr_of_masking_has_its_options():
    model = fl.Masking(fl.LSTM(3, 5), fl.Merge("ave"), value=2.0, masked_output=["zero"])
    assert repr(model) == (
        "Masking(\n  (0): LSTM(3, 5)\n  (1): Merge('ave')\n  value=2.0\n  masked_output=['zero']\n)"
    )


def test_they_are_saved_and_copied(rng, tmp_path):
    model = fl.Sequential(
        fl.Masking(
            lstm(rng, bidirectional=True),
            fl.Merge("ave"),
            fl.Backwards(lstm(rng, H)),
            value=2.0,
            masked_output=["zero", "repeat"],
        ),
        fl.Last(),
    )
    x, _ = marked(rng, 2.0)
    y = model(x)[0]
    fl.save(tmp_path / "model", model)
    for again in (fl.load(tmp_path / "model"), copy.deepcopy(model)):
        assert_same_bits(again(x)[0], y)
        assert repr(again) == repr(model)
