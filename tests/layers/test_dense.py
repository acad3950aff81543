"""Linear, Embedding and Dropout against plain loops, torch and finite differences."""

import copy
import pickle

import numpy as np
import pytest
from compare import assert_close, assert_same_bits
from slopes import assert_slope

import fastlstm as fl

SHAPES = [(), (2,), (4, 2), (3, 4, 2), (0,), (3, 0, 2)]


def linear_by_loops(x, weight, bias=None):
    y = np.zeros((*x.shape[:-1], len(weight)))
    for index in np.ndindex(y.shape):
        total = 0.0 if bias is None else float(bias[index[-1]])
        for k in range(x.shape[-1]):
            total += float(x[index[:-1]][k]) * float(weight[index[-1], k])
        y[index] = total
    return y


def embedding_gradient_by_loops(x, dy, num):
    gradient = np.zeros((num, dy.shape[-1]))
    for index in np.ndindex(x.shape):
        gradient[x[index]] += dy[index]
    return gradient


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_linear_by_loops(kernels, rng, dtype, shape, bias):
    layer = fl.Linear(5, 7, bias, dtype=dtype, rng=rng)
    x = rng.standard_normal((*shape, 5)).astype(dtype)
    expected = linear_by_loops(x, **layer.state_dict())
    assert_close(layer(x), expected, dtype)
    y, _ = layer.forward(x)
    assert_same_bits(y, layer(x))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_by_finite_differences(kernels, rng, shape, bias):
    layer = fl.Linear(5, 7, bias, dtype=np.float64, rng=rng)
    x = rng.standard_normal((*shape, 5))
    dy = rng.standard_normal((*shape, 7))
    _, tape = layer.forward(x)
    grads = layer.backward(tape, dy)
    parameters = layer.state_dict()

    def loss():
        layer.load_state_dict(parameters)
        return np.vdot(dy, layer(x))

    assert grads.x.shape == x.shape
    assert grads.state is None
    assert list(grads.params) == list(parameters)
    assert_slope(grads.x, loss, x, "x")
    for name, array in parameters.items():
        assert_slope(grads.params[name], loss, array, name)


def test_linear_as_torch(kernels, rng, dtype):
    torch = pytest.importorskip("torch")
    layer = fl.Linear(19, 33, dtype=dtype, rng=rng)
    theirs = torch.nn.Linear(19, 33, dtype=getattr(torch, dtype.name))
    layer.load_state_dict({n: p.detach().numpy() for n, p in theirs.state_dict().items()})
    x = rng.standard_normal((6, 4, 19)).astype(dtype)
    dy = rng.standard_normal((6, 4, 33)).astype(dtype)
    their_x = torch.tensor(x, requires_grad=True)
    their_y = theirs(their_x)
    their_y.backward(torch.tensor(dy))
    y, tape = layer.forward(x)
    grads = layer.backward(tape, dy)
    assert_close(y, their_y.detach().numpy(), dtype)
    assert_close(grads.x, their_x.grad.numpy(), dtype)
    np.testing.assert_allclose(
        grads.params["weight"], theirs.weight.grad.numpy(), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(grads.params["bias"], theirs.bias.grad.numpy(), rtol=1e-5, atol=1e-5)
    assert repr(layer) == repr(theirs)


def test_linear_takes_any_strides(kernels, rng, dtype):
    layer = fl.Linear(5, 7, dtype=dtype, rng=rng)
    x = rng.standard_normal((3, 4, 5)).astype(dtype)
    dy = rng.standard_normal((3, 4, 7)).astype(dtype)
    unaligned = np.frombuffer(b"-" + x.tobytes(), np.uint8)[1:].view(dtype).reshape(x.shape)
    y, tape = layer.forward(x)
    expected = layer.backward(tape, dy)
    for same in (
        x.swapaxes(0, 1).copy().swapaxes(0, 1),
        np.asfortranarray(x),
        np.repeat(x, 2, axis=2)[:, :, ::2],
        x[::-1, :, ::-1].copy()[::-1, :, ::-1],
        unaligned,
        x.astype(x.dtype.newbyteorder()),
        x.tolist(),
    ):
        assert_same_bits(layer(same), y)
        _, tape = layer.forward(same)
        grads = layer.backward(tape, np.asfortranarray(dy))
        assert_same_bits(grads.x, expected.x)
        assert_close(grads.params["weight"], expected.params["weight"], dtype)
        assert_close(grads.params["bias"], expected.params["bias"], dtype)


def test_linear_casts_numbers(kernels, rng, dtype):
    layer = fl.Linear(5, 7, dtype=dtype, rng=rng)
    x = rng.integers(-3, 4, (4, 5))
    assert_same_bits(layer(x), layer(x.astype(dtype)))
    assert_same_bits(layer(x > 0), layer((x > 0).astype(dtype)))


def test_linear_row_does_not_depend_on_the_batch(compiled, rng, dtype):
    layer = fl.Linear(37, 29, dtype=dtype, rng=rng)
    x = rng.standard_normal((13, 11, 37)).astype(dtype)
    y = layer(x)
    for t in range(13):
        assert_same_bits(layer(x[t]), y[t])
    assert_same_bits(layer(x[3, 7]), y[3, 7])


def test_linear_follows_its_parameters(kernels, rng):
    """Packed copies are of the present weights; a tape's are of its own."""
    layer, other = fl.Linear(5, 7, rng=rng), fl.Linear(5, 7, rng=rng)
    x = rng.standard_normal((4, 5))
    y, tape = layer.forward(x)
    expected = layer.backward(tape, y)
    y, tape = layer.forward(x)
    layer.load_state_dict(other.state_dict())
    assert_same_bits(layer(x), other(x))
    assert_same_bits(layer.backward(tape, y).x, expected.x)
    y, tape = layer.forward(x)
    _, other_tape = other.forward(x)
    assert_same_bits(layer.backward(tape, y).x, other.backward(other_tape, y).x)


def test_packed_copies_are_made_once():
    parameters = fl.Linear(5, 7).parameters()
    packed = parameters.derive("packed", object)
    assert parameters.derive("packed", object) is packed
    assert parameters.derive("other", object) is not packed


def test_linear_follows_the_backend(rng):
    layer = fl.Linear(5, 7, rng=rng)
    x = rng.standard_normal((4, 5))
    results = []
    for name in fl.backends():
        with fl.use_backend(name):
            y, tape = layer.forward(x)
            results.append((y, layer.backward(tape, np.ones((4, 7))).x))
    for y, dx in results:
        assert_close(y, results[0][0], np.float32)
        assert_close(dx, results[0][1], np.float32)


def test_linear_starts_uniform(dtype):
    layer = fl.Linear(100, 300, dtype=dtype, rng=1)
    for name, shape in {"weight": (300, 100), "bias": (300,)}.items():
        array = layer.parameters()[name]
        assert (array.shape, array.dtype) == (shape, dtype)
        assert 0.095 < np.abs(array).max() <= np.nextafter(dtype.type(0.1), dtype.type(1))
        assert abs(array.std() - 0.1 / 3**0.5) < 0.004
        assert not array.flags.writeable
    assert layer.num_parameters() == 30300
    np.testing.assert_array_equal(layer.weight, fl.Linear(100, 300, dtype=dtype, rng=1).weight)


def test_linear_without_bias():
    layer = fl.Linear(5, 7, bias=False)
    assert layer.bias is None
    assert list(layer.parameters()) == ["weight"]
    assert repr(layer) == "Linear(in_features=5, out_features=7, bias=False)"


@pytest.mark.parametrize("shape", [(), (4,), (3, 4), (0,), (2, 0)])
@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint64])
def test_embedding_by_loops(rng, dtype, shape, kind):
    layer = fl.Embedding(6, 5, dtype=dtype, rng=rng)
    x = rng.integers(0, 6, shape).astype(kind)
    y, tape = layer.forward(x)
    assert y.dtype == dtype
    assert y.shape == (*shape, 5)
    for index in np.ndindex(shape):
        np.testing.assert_array_equal(y[index], layer.weight[x[index]])
    assert_same_bits(layer(x.tolist()), y)
    dy = rng.standard_normal(y.shape).astype(dtype)
    grads = layer.backward(tape, dy)
    assert grads.x is None
    assert_close(grads.params["weight"], embedding_gradient_by_loops(x, dy, 6), dtype)


def test_embedding_by_finite_differences(rng):
    layer = fl.Embedding(6, 5, dtype=np.float64, rng=rng)
    x = np.array([[4, 1, 4], [0, 4, 1]])
    dy = rng.standard_normal((2, 3, 5))
    parameters = layer.state_dict()
    _, tape = layer.forward(x)
    grads = layer.backward(tape, dy)

    def loss():
        layer.load_state_dict(parameters)
        return np.vdot(dy, layer(x))

    assert_slope(grads.params["weight"], loss, parameters["weight"])


def test_embedding_as_torch(rng):
    torch = pytest.importorskip("torch")
    layer, theirs = fl.Embedding(50, 7, rng=rng), torch.nn.Embedding(50, 7)
    layer.load_state_dict({"weight": theirs.weight.detach().numpy()})
    x = rng.integers(0, 50, (30, 20)).T
    dy = rng.standard_normal((20, 30, 7)).astype(np.float32)
    theirs(torch.tensor(x)).backward(torch.tensor(dy))
    _, tape = layer.forward(x)
    actual = layer.backward(tape, dy.swapaxes(0, 1).copy().swapaxes(0, 1)).params["weight"]
    np.testing.assert_allclose(actual, theirs.weight.grad.numpy(), rtol=1e-5, atol=1e-5)
    assert repr(layer) == repr(theirs)


def test_embedding_starts_normal(dtype):
    weight = fl.Embedding(300, 100, dtype=dtype, rng=1).weight
    assert (weight.shape, weight.dtype) == ((300, 100), dtype)
    assert abs(weight.mean()) < 0.02
    assert abs(weight.std() - 1) < 0.02


def test_embedding_gives_no_view_of_its_table(rng):
    layer = fl.Embedding(6, 5, rng=rng)
    before = layer.state_dict()["weight"]
    layer(3)[:] = 0
    np.testing.assert_array_equal(layer.weight, before)


@pytest.mark.parametrize("padding", [0, 5, 49, -1, -50])
def test_padding_as_torch(rng, dtype, padding):
    """A vector of zeros without a gradient; values from outside are kept."""
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Embedding(50, 7, padding_idx=padding, dtype=getattr(torch, dtype.name))
    layer = fl.Embedding(50, 7, padding, dtype=dtype, rng=rng)
    assert layer.padding_idx == theirs.padding_idx
    assert repr(layer) == repr(theirs)
    zero = ~layer.weight.any(axis=1)
    np.testing.assert_array_equal(zero, ~theirs.weight.detach().numpy().any(axis=1))
    assert list(np.flatnonzero(zero)) == [padding % 50]
    weight = rng.standard_normal((50, 7)).astype(dtype)
    theirs.load_state_dict({"weight": torch.tensor(weight)})
    given = fl.Embedding(50, 7, padding, weight=weight, dtype=dtype)
    layer.load_state_dict({"weight": weight})
    x, dy = rng.integers(0, 50, (30, 20)), rng.standard_normal((30, 20, 7)).astype(dtype)
    dy[x == padding % 50] = np.inf
    theirs(torch.tensor(x)).backward(torch.tensor(dy))
    for own in (layer, given):
        y, tape = own.forward(x)
        assert_same_bits(y, weight[x])
        gradient = own.backward(tape, dy).params["weight"]
        np.testing.assert_allclose(gradient, theirs.weight.grad.numpy(), 1e-5, 1e-5)


def test_embedding_of_given_vectors(rng, dtype):
    weight = rng.standard_normal((6, 5))
    layer = fl.Embedding(6, 5, weight=weight, dtype=dtype)
    before = weight.astype(dtype)
    assert_same_bits(layer.weight, before)
    weight[:] = 0
    assert_same_bits(layer([1, 3]), before[[1, 3]])
    assert_same_bits(fl.Embedding(6, 5, weight=before.tolist(), dtype=dtype).weight, before)
    assert not layer.weight.flags.writeable
    assert layer.padding_idx is None
    sparse = fl.Embedding(6, 5, 2, dtype=dtype, rng=3).weight
    same = np.arange(6) != 2
    assert_same_bits(sparse[same], fl.Embedding(6, 5, dtype=dtype, rng=3).weight[same])


@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_dropout_zeroes_and_scales(rng, dtype, p):
    layer = fl.Dropout(p, rng=1)
    x = rng.uniform(1, 2, (40, 50, 10)).astype(dtype)
    y, tape = layer.forward(x.swapaxes(0, 1))
    y = y.swapaxes(0, 1)
    kept = y != 0
    assert abs(kept.mean() - (1 - p)) < 0.01
    assert y.dtype == dtype
    np.testing.assert_allclose(y[kept], x[kept] / (1 - p if p < 1 else 1), rtol=1e-6)
    dy = rng.uniform(1, 2, (50, 40, 10))
    dx = layer.backward(tape, dy).x.swapaxes(0, 1)
    assert dx.dtype == dtype
    np.testing.assert_allclose(
        dx, np.where(kept, dy.swapaxes(0, 1) / (1 - p if p < 1 else 1), 0), rtol=1e-6
    )
    again, _ = layer.forward(x)
    assert ((again != 0) != kept).any() == (0 < p < 1)


def test_dropout_does_nothing_in_inference(rng, dtype):
    x = rng.standard_normal((3, 4)).astype(dtype)
    assert fl.Dropout(0.9)(x) is x
    assert fl.Dropout(0.9)([1, 2]).dtype == np.float64


def test_dropout_drops_what_is_not_finite(rng):
    x = np.full((100,), np.inf)
    y, tape = fl.Dropout(0.5, rng=1).forward(x)
    assert set(y) == {0, np.inf}
    assert set(tape.layer.backward(tape, np.full(100, np.nan)).x[y == 0]) == {0}


def test_dropout_by_finite_differences(rng):
    layer = fl.Dropout(0.4, rng=1)
    x, dy = rng.standard_normal((2, 3, 4, 5))
    grads = copy.deepcopy(layer)
    _, tape = grads.forward(x)
    actual = grads.backward(tape, dy)
    assert actual.params == {}
    assert_slope(actual.x, lambda: np.vdot(dy, copy.deepcopy(layer).forward(x)[0]), x)


LAYERS = {
    "Linear": (lambda: fl.Linear(5, 7), np.ones((4, 5)), (4, 7)),
    "Embedding": (lambda: fl.Embedding(6, 5), np.ones((4, 3), int), (4, 3, 5)),
    "Dropout": (lambda: fl.Dropout(0.3), np.ones((4, 3)), (4, 3)),
}


@pytest.mark.parametrize(("make", "x", "shape"), LAYERS.values(), ids=LAYERS)
def test_a_tape_serves_its_layer_once(make, x, shape):
    layer, dy = make(), np.ones(shape)
    _, tape = layer.forward(x)
    for other in (make(), fl.Linear(3, 2)):
        with pytest.raises(ValueError, match=r"tape: .* another layer"):
            other.backward(tape, dy)
    with pytest.raises(ValueError, match=r"tape: .* NoneType"):
        layer.backward(None, dy)
    with pytest.raises(ValueError, match=r"dy: expected shape"):
        layer.backward(tape, np.ones((*shape, 1)))
    with pytest.raises(TypeError, match="dy: "):
        layer.backward(tape, None)
    layer.backward(tape, dy)
    with pytest.raises(ValueError, match=r"tape: .* one backward"):
        layer.backward(tape, dy)


@pytest.mark.parametrize(("make", "x", "shape"), LAYERS.values(), ids=LAYERS)
def test_layers_copy_and_pickle(make, x, shape):
    layer = make()
    layer(x)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(twin(x), layer(x))
        np.testing.assert_array_equal(twin.forward(x)[0], copy.deepcopy(layer).forward(x)[0])
        assert all(not array.flags.writeable for array in twin.parameters().values())


RAGGED = [[1.0], [1.0, 2.0]]
MASKED = np.ma.masked_array([[1, 1, 1, 1, 1]], mask=True)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: fl.Linear(0, 7), ValueError, "in_features"),
        (lambda: fl.Linear(5, -1), ValueError, "out_features"),
        (lambda: fl.Linear(5.0, 7), TypeError, "in_features"),
        (lambda: fl.Linear(5, True), TypeError, "out_features"),
        (lambda: fl.Linear(5, 7, 1), TypeError, "bias"),
        (lambda: fl.Linear(5, 7, dtype=np.float16), ValueError, "dtype"),
        (lambda: fl.Linear(5, 7, dtype="text"), TypeError, "dtype"),
        (lambda: fl.Linear(5, 7, rng="seed"), TypeError, "rng"),
        (lambda: fl.Linear(5, 7)(np.ones((5, 4))), ValueError, r"x: .*\(\.\.\., 5\), got \(5, 4\)"),
        (lambda: fl.Linear(5, 7)(np.float32(1)), ValueError, "x: "),
        (lambda: fl.Linear(5, 7)(np.ones(5, complex)), TypeError, "x: .*complex"),
        (lambda: fl.Linear(5, 7)(["a"] * 5), TypeError, "x: "),
        (lambda: fl.Linear(5, 7)(None), TypeError, "x: "),
        (lambda: fl.Linear(5, 7)(RAGGED), ValueError, "x: .*ragged"),
        (lambda: fl.Linear(5, 7).forward(MASKED), TypeError, "x: .*masked"),
        (lambda: fl.Embedding(0, 5), ValueError, "num_embeddings"),
        (lambda: fl.Embedding(6, 5.5), TypeError, "embedding_dim"),
        (lambda: fl.Embedding(6, 5, dtype=int), ValueError, "dtype"),
        (lambda: fl.Embedding(6, 5, rng=-1.5), TypeError, "rng"),
        (lambda: fl.Embedding(6, 5, 6), ValueError, "padding_idx: expected -6 to 5, got 6"),
        (lambda: fl.Embedding(6, 5, -7), ValueError, "padding_idx: expected -6 to 5, got -7"),
        (lambda: fl.Embedding(6, 5, 1.0), TypeError, "padding_idx"),
        (lambda: fl.Embedding(6, 5, True), TypeError, "padding_idx"),
        (
            lambda: fl.Embedding(6, 5, weight=np.ones((5, 6))),
            ValueError,
            r"weight: expected shape \(6, 5\), got \(5, 6\)",
        ),
        (lambda: fl.Embedding(6, 1, weight=np.ones(6)), ValueError, "weight: "),
        (lambda: fl.Embedding(6, 5, weight=1j * np.ones((6, 5))), TypeError, "weight: "),
        (lambda: fl.Embedding(1, 1, weight=[[1e300]]), ValueError, "weight: .* float32"),
        (lambda: fl.Embedding(6, 5)([0, 6]), ValueError, "x: .* 0 to 5, got 0 to 6"),
        (lambda: fl.Embedding(6, 5)([-1, 2]), ValueError, "x: .* got -1 to 2"),
        (lambda: fl.Embedding(6, 5)(np.array([2**64 - 1], np.uint64)), ValueError, "x: "),
        (lambda: fl.Embedding(6, 5)([1.0]), TypeError, "x: .*float64"),
        (lambda: fl.Embedding(6, 5)(np.ones((0, 3))), TypeError, "x: .*float64"),
        (lambda: fl.Embedding(6, 5)([True]), TypeError, "x: .*bool"),
        (lambda: fl.Embedding(6, 5).forward(RAGGED), ValueError, "x: .*ragged"),
        (lambda: fl.Embedding(6, 5)(MASKED), TypeError, "x: .*masked"),
        (lambda: fl.Dropout(-0.1), ValueError, "p: "),
        (lambda: fl.Dropout(1.1), ValueError, "p: "),
        (lambda: fl.Dropout(np.nan), ValueError, "p: "),
        (lambda: fl.Dropout("0.5"), TypeError, "p: "),
        (lambda: fl.Dropout(True), TypeError, "p: "),
        (lambda: fl.Dropout(0.5j), TypeError, "p: "),
        (lambda: fl.Dropout(RAGGED), TypeError, "p: "),
        (lambda: fl.Dropout(rng="seed"), TypeError, "rng"),
        (lambda: fl.Dropout()(np.ones(3, complex)), TypeError, "x: "),
        (lambda: fl.Dropout().forward(["a"]), TypeError, "x: "),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("inputs", [3, 4, 21, 64])
def test_the_gradient_of_one_row_has_no_negative_zero(kernels, inputs, dtype):
    """A sum that begins with 0 is never -0, nor is one of a single term."""
    layer = fl.Linear(inputs, 5, dtype=dtype, rng=0)
    _, tape = layer.forward(-np.ones((1, inputs), dtype))
    weight = layer.backward(tape, np.zeros((1, 5), dtype)).params["weight"]
    assert not weight.any()
    assert not np.signbit(weight).any()
