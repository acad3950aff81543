"""Pool and Last in a `Sequential`, which tells them where each row and direction ends."""

import copy
import pickle

import numpy as np
import pytest
from compare import assert_close, assert_gradients_close, assert_same_bits
from models import Residual
from slopes import assert_slope_along

import fastlstm as fl
from fastlstm.engine import Stack

T, B, F = 6, 4, 3
F8 = np.dtype(np.float64)
LENGTHS = [3, 0, 6, 1]
every_kind = pytest.mark.parametrize("kind", ["last", "mean", "max"])


def some_mask(rng):
    mask = rng.random((T, B)) < 0.6
    mask[:, -1] = False  # a row without valid steps
    return mask


def layer_of(kind, rng, **options):
    options = {"num_layers": 2, "bidirectional": True, "dtype": F8, "rng": rng, **options}
    return getattr(fl, kind)(F, 5, **options)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_last_is_the_final_state(kernels, rng, kind, batch_first):
    """Of both directions, of each sequence alone; as users of torch take it from h_n."""
    layer = layer_of(kind, rng, batch_first=batch_first)
    model = fl.Sequential(layer, fl.Dropout(0.5), fl.Last())
    alone = layer_of(kind, 0)
    alone.load_state_dict(layer.state_dict())
    x, mask = rng.standard_normal((T, B, F)), some_mask(rng)
    lengths = np.arange(T)[:, None] < LENGTHS

    def hidden(sequence):
        final = alone(sequence)[1]
        h = final[0] if kind == "LSTM" else final
        return np.concatenate([h[-2], h[-1]]) if len(sequence) else np.zeros(10)

    def check(valid, given, **options):
        expected = np.array([hidden(x[valid[:, b], b]) for b in range(B)])
        y, _ = model(given, **options)
        assert_close(y, expected, F8)

    whole = np.ones((T, B), bool)
    arranged = x.swapaxes(0, 1) if batch_first else x
    check(whole, arranged)
    check(lengths, arranged, lengths=LENGTHS)
    check(mask, arranged, mask=mask.T if batch_first else mask)
    check(lengths, [x[:length, b] for b, length in enumerate(LENGTHS)])
    check(mask, list(x.swapaxes(0, 1)), mask=list(mask.T))
    assert_close(model(x[:, 0])[0], hidden(x[:, 0]), F8)


@pytest.mark.parametrize("batch_first", [False, True])
def test_a_classifier_as_torch(rng, batch_first):
    """A packed batch, h_n of both directions, and a Linear; the padding is skipped."""
    torch = pytest.importorskip("torch")
    rnn = torch.nn.utils.rnn
    lstm = torch.nn.LSTM(F, 5, 2, bidirectional=True, batch_first=batch_first).double()
    head = torch.nn.Linear(10, 2).double()
    model = fl.Sequential(
        layer_of("LSTM", rng, batch_first=batch_first), fl.Last(), fl.Linear(10, 2, dtype=F8)
    )
    theirs = torch.nn.Sequential(lstm, torch.nn.Identity(), head)
    model.load_state_dict(theirs.state_dict())
    x, lengths, dy = rng.standard_normal((B, T, F)), [3, 2, 6, 1], rng.standard_normal((B, 2))
    x = x if batch_first else x.swapaxes(0, 1)
    their_x = torch.tensor(x, requires_grad=True)
    packed = rnn.pack_padded_sequence(their_x, lengths, batch_first, enforce_sorted=False)
    h = lstm(packed)[1][0]
    their_y = head(torch.cat([h[-2], h[-1]], dim=-1))
    their_y.backward(torch.tensor(dy))
    (y, _), tape = model.forward(x, lengths=lengths)
    assert_close(y, their_y.detach().numpy(), F8)
    grads = model.backward(tape, dy)
    np.testing.assert_allclose(grads.x, their_x.grad.numpy(), 1e-10, 1e-12)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(grads.params[name], parameter.grad.numpy(), 1e-10, 1e-12)


def test_linear_mixes_the_directions(kernels, rng):
    """So `Last` takes the last valid step, if it is not told otherwise."""
    layer, linear = layer_of("GRU", rng), fl.Linear(10, 4, dtype=F8, rng=rng)
    x = rng.standard_normal((T, B, F))
    y = linear(layer(x)[0])
    for bidirectional in (None, False):
        model = fl.Sequential(layer, linear, fl.Last(bidirectional=bidirectional))
        assert_same_bits(model(x)[0], y[-1])
        ended = model(x, lengths=[T, 2, T, T])[0]
        assert_close(ended[1], linear(layer(x[:2, 1])[0])[-1], F8)
    halves, _ = fl.Sequential(layer, linear, fl.Last(bidirectional=True))(x)
    assert_same_bits(halves, np.concatenate([y[-1, :, :2], y[0, :, 2:]], axis=-1))


def test_a_layer_that_reads_backward_ends_at_the_first_step(rng):
    layer = fl.GRU(F, 5, dtype=F8, rng=rng)
    reverse = Stack(
        layer.cells.by_layer, reverse=(True,), dtype=F8, parameters=dict(layer.parameters())
    )
    y, h = fl.Sequential(reverse, fl.Last())(rng.standard_normal((T, B, F)), lengths=LENGTHS)
    assert_same_bits(y, h[0][0])


def many_layers(rng, pool, **layout):
    return fl.Sequential(
        fl.Embedding(9, F, dtype=F8, rng=rng),
        fl.LSTM(F, 5, bidirectional=True, dtype=F8, rng=rng, **layout),
        fl.Linear(10, 4, dtype=F8, rng=rng),
        fl.GRU(4, 3, bidirectional=True, dtype=F8, rng=rng, **layout),
        fl.Dropout(0.0),
        pool,
        fl.Linear(6, 2, dtype=F8, rng=rng),
        fl.Dropout(0.0),
    )


def nested(rng, pool, **layout):
    layers = list(many_layers(rng, pool, **layout))
    head = fl.Sequential(fl.Sequential(layers[4], layers[5]), *layers[6:])
    return fl.Sequential(layers[0], fl.Sequential(*layers[1:3]), layers[3], head)


def inner_pool(rng, pool, **layout):
    layers = list(many_layers(rng, pool, **layout))
    return fl.Sequential(layers[0], fl.Sequential(*layers[1:6]), *layers[6:])


@every_kind
@pytest.mark.parametrize(
    ("make", "batch_first"),
    [(many_layers, False), (nested, True), (inner_pool, True)],
    ids=["flat", "pool within", "steps within"],
)
def test_every_row_is_that_of_its_sequence_alone(kernels, rng, kind, make, batch_first):
    """Results, and the sum of all gradients; for a list, lengths, and a mask."""
    model = make(rng, fl.Pool(kind), batch_first=batch_first)
    one = many_layers(rng, fl.Pool(kind))
    one.load_state_dict(dict(zip(one.parameters(), model.parameters().values(), strict=True)))
    ids, mask, dy = rng.integers(0, 9, (T, B)), some_mask(rng), rng.standard_normal((B, 2))
    lengths = np.arange(T)[:, None] < LENGTHS

    def check(valid, given, **options):
        (y, _), tape = model.forward(given, **options)
        assert_same_bits(model(given, **options)[0], y)
        grads = model.backward(tape, dy)
        assert grads.x is None
        sums = {name: np.zeros_like(array) for name, array in one.parameters().items()}
        for b in range(B):
            (expected, _), tape = one.forward(ids[valid[:, b], b])
            assert_gradients_close(y[b], expected, F8, f"row {b}", slack=100)
            for name, array in one.backward(tape, dy[b]).params.items():
                sums[name] += array
        for (name, actual), expected in zip(grads.params.items(), sums.values(), strict=True):
            assert_gradients_close(actual, expected, F8, name, slack=100)

    check(lengths, [ids[:length, b] for b, length in enumerate(LENGTHS)])
    for valid, options in ((lengths, {"lengths": LENGTHS}), (mask, {"mask": mask})):
        given = np.where(valid, ids, -1)
        if batch_first:
            given = given.T
            options = {name: np.transpose(value) for name, value in options.items()}
        check(valid, given, **options)


@every_kind
def test_finite_differences_of_a_model(kernels, rng, kind):
    model = fl.Sequential(
        layer_of("LSTM", rng), fl.Dropout(0.0), fl.Pool(kind), fl.Linear(10, 2, dtype=F8, rng=rng)
    )
    x, mask = rng.standard_normal((T, B, F)), some_mask(rng)
    resets = rng.random((T, B)) < 0.3
    state = (tuple(rng.uniform(-1, 1, (2, 4, B, 5))),)
    dy, dstate = rng.standard_normal((B, 2)), (tuple(rng.standard_normal((2, 4, B, 5))),)
    options = {"mask": mask, "resets": resets}
    _, tape = model.forward(x, state, **options)
    grads = model.backward(tape, dy, dstate)

    def loss():
        y, final = model(x, state, **options)
        return np.vdot(dy, y) + sum(map(np.vdot, dstate[0], final[0]))

    assert_slope_along(grads.x, loss, x, rng, "x")
    assert not grads.x[~mask].any()
    for part, dpart in zip(state[0], grads.state[0], strict=True):
        assert_slope_along(dpart, loss, part, rng, "state")


def test_state_is_passed_on(kernels, rng):
    layer = fl.LSTM(F, 5, dtype=F8, rng=rng)
    model = fl.Sequential(layer, fl.Last())
    x = rng.standard_normal((T, B, F))
    whole, final = model(x)
    _, state = model(x[:2])
    y, state = model(x[2:], state)
    assert_close(y, whole, F8)
    np.testing.assert_allclose(state[0][1], final[0][1])


def test_without_a_recurrent_layer(rng):
    """A bag of words: pooled vectors, of lists, lengths and masks; no state."""
    words = fl.Embedding(9, F, dtype=F8, rng=rng)
    model = fl.Sequential(words, fl.Pool("mean"), fl.Linear(F, 2, dtype=F8, rng=rng))
    ids = rng.integers(0, 9, (T, B))
    valid = np.arange(T)[:, None] < LENGTHS
    sums = [words(ids[valid[:, b], b]).sum(axis=0) for b in range(B)]
    expected = model[2](np.array(sums) / np.maximum(LENGTHS, 1)[:, None])
    ids[~valid] = -1
    assert_close(model(ids, lengths=LENGTHS), expected, F8)
    assert_close(model(ids, mask=valid), expected, F8)
    assert_close(model([ids[:length, b] for b, length in enumerate(LENGTHS)]), expected, F8)
    rows_first = fl.Sequential(words, fl.Pool("mean", batch_first=True), model[2])
    assert_close(rows_first(ids.T, lengths=LENGTHS), expected, F8)


class Attention(fl.Module):
    """A weighted mean of the valid steps; a pooling of one's own."""

    pools_steps = True

    def __init__(self):
        self.define(query=np.array([0.5, -1.0, 2.0]))

    def __call__(self, x, *, lengths=None):
        return self.forward(x, lengths=lengths)[0]

    def forward(self, x, *, lengths=None):
        ends = np.full(x.shape[1], len(x)) if lengths is None else lengths
        weights = np.exp(x @ self.query) * (np.arange(len(x))[:, None] < ends)
        weights /= weights.sum(axis=0)
        return np.einsum("tb,tbf->bf", weights, x), weights

    def backward(self, tape, dresult):
        return self.collect(x=tape[..., None] * dresult, query=np.zeros(3))


class Repeat(fl.Module):
    """Steps made anew of one vector a row, as many as there are rows."""

    def __call__(self, x):
        return np.repeat(x[None], len(x), axis=0)

    def forward(self, x):
        return self(x), None

    def backward(self, tape, dresult):
        return self.collect(x=dresult.sum(axis=0))


def test_a_pooling_of_ones_own(rng):
    model = fl.Sequential(fl.GRU(F, 3, dtype=F8, rng=rng), Attention())
    xs = [rng.standard_normal((length, F)) for length in (3, 2, 6)]
    (y, _), tape = model.forward(xs)
    for row, x in zip(y, xs, strict=True):
        assert_close(row, model(x[:, None])[0][0], F8)
    assert [dx.shape for dx in model.backward(tape, y).x] == [x.shape for x in xs]


@pytest.mark.parametrize("decoder", ["RNN", "GRU"])
def test_lengths_end_at_the_pool(kernels, rng, decoder):
    """Layers after it that make steps anew do not see those of x; not even of as many rows."""
    decoder = getattr(fl, decoder)(5, 3, bidirectional=True, dtype=F8, rng=rng)
    model = fl.Sequential(
        fl.GRU(F, 5, dtype=F8, rng=rng), fl.Last(), Repeat(), decoder, fl.Linear(6, 2, dtype=F8)
    )
    x, lengths = rng.standard_normal((B, B, F)), [3, 0, 4, 1]
    (y, _), tape = model.forward(x, lengths=lengths)
    codes, _ = fl.Sequential(model[0], fl.Last())(x, lengths=lengths)
    assert_same_bits(y, model[4](decoder(np.repeat(codes[None], B, axis=0))[0]))
    assert model.backward(tape, y).x.shape == x.shape
    ys, _ = model([x[:length, b] for b, length in enumerate(lengths)])
    assert_same_bits(ys, y)
    nested = fl.Sequential(model[:3], *model[3:])
    (same, _), nested_tape = nested.forward(x, lengths=lengths)
    assert_same_bits(same, y)
    expected = model.backward(model.forward(x, lengths=lengths)[1], y)
    assert_same_bits(nested.backward(nested_tape, y).x, expected.x)


def test_in_a_module_of_ones_own_after_two_layouts(rng):
    """The module is as it was given, alone and within a model; the layers before say the layout."""
    inner = fl.Sequential(layer_of("GRU", rng, num_layers=1, batch_first=True), fl.Last())

    class Own(fl.Module):
        def __init__(self):
            self.inner = inner

        def __call__(self, x):
            return self.inner(x)[0]

    x = rng.standard_normal((B, T, F))
    assert_same_bits(fl.Sequential(Own(), fl.Dropout())(x), inner(x)[0])
    last = fl.Last()
    models = [
        fl.Sequential(layer_of("GRU", rng, batch_first=first), last) for first in (0 > 1, True)
    ]
    for model, rows_first in zip(models, (False, True), strict=True):
        y, h = model(x.swapaxes(0, 1) if not rows_first else x)
        assert_same_bits(y, np.concatenate([h[0][-2], h[0][-1]], axis=-1))
    assert last.batch_first is last.bidirectional is None
    own_layout = fl.Sequential(Residual(F, rng=rng), fl.Pool("max"))
    assert own_layout(x.swapaxes(0, 1)).shape == (B, F)


def test_copies(rng):
    model = fl.Sequential(layer_of("LSTM", rng, batch_first=True), fl.Last())
    x = rng.standard_normal((B, T, F))
    y, _ = model(x)
    for twin in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_bits(twin(x)[0], y)
        assert repr(twin[1]) == "Last()"
    assert repr(fl.Pool("max", batch_first=True)) == "Pool('max', batch_first=True)"


X = np.ones((T, B, F))
MODEL = fl.Sequential(fl.LSTM(F, 5, bidirectional=True), fl.Last(), fl.Linear(10, 2))
ROWS_FIRST = fl.LSTM(F, 5, batch_first=True)
FORWARD = fl.Sequential(fl.LSTM(F, 5), fl.Sequential(fl.Pool("max")))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: MODEL(X, lengths=[T + 1] * B), ValueError, "lengths: "),
        (
            lambda: FORWARD.step(X[0], FORWARD.zero_state(B)),
            ValueError,
            r"modules: .*for one step, got Pool\('max'\)",
        ),
        (lambda: fl.Sequential(*MODEL, fl.LSTM(2, 3)), ValueError, "modules: .*Last, got LSTM"),
        (lambda: fl.Sequential(MODEL, fl.Pool("max")), ValueError, "modules: .*Last, got Pool"),
        (
            lambda: fl.Sequential(ROWS_FIRST, fl.Last(batch_first=False)),
            ValueError,
            r"modules: .*True in modules\[0\], LSTM, and False in modules\[1\], Last",
        ),
        (lambda: fl.Sequential(fl.Linear(3, 2), fl.Last())(X, resets=X > 0), ValueError, "resets"),
        (lambda: fl.Sequential(fl.Last())(X, threads=1), ValueError, "threads: no layer"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
