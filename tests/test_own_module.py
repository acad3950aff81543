"""`fl.Module` as a user's base class: see support/models.py."""

import copy
import pickle

import numpy as np
import pytest
from compare import assert_same_bits
from models import Branches, Recurrent, Residual, TwoResults
from slopes import assert_slope_along

import fastlstm as fl

SIZE = 3
MODELS = [Residual, Branches, TwoResults]
NAMES = {
    Residual: ["scale", *(f"lstm.{name}" for name in fl.LSTM(SIZE, SIZE).parameters())],
    Branches: [
        *(f"gru.{name}" for name in fl.GRU(SIZE, SIZE, bidirectional=True).parameters()),
        *("dense.0.weight", "dense.0.bias", "dense.1.weight", "dense.1.bias"),
    ],
}
NAMES[TwoResults] = [*(f"block.{name}" for name in NAMES[Residual]), "line.weight", "line.bias"]


@pytest.fixture(params=MODELS, ids=lambda model: model.__name__)
def model(request, rng):
    return request.param(SIZE, rng=rng)


@pytest.fixture
def x(rng):
    return rng.standard_normal((5, 2, SIZE))


def results(result):
    return result if isinstance(result, tuple) else (result,)


def assert_same_results(actual, expected):
    for a, b in zip(results(actual), results(expected), strict=True):
        assert_same_bits(a, b)


def random_gradient(rng, result):
    gradients = tuple(rng.standard_normal(part.shape) for part in results(result))
    return gradients if len(gradients) > 1 else gradients[0]


def test_parameters_are_those_of_the_children_too(model):
    arrays = model.parameters()
    assert list(arrays) == list(model.state_dict()) == NAMES[type(model)]
    assert model.num_parameters() == sum(array.size for array in arrays.values())
    assert not any(array.flags.writeable for array in arrays.values())


def test_finite_differences(kernels, rng, model, x):
    result, tape = model.forward(x)
    assert_same_results(model(x), result)
    dresult = random_gradient(rng, result)
    grads = model.backward(tape, dresult)

    def loss():
        return sum(map(np.vdot, results(dresult), results(model(x))))

    assert_slope_along(grads.x, loss, x, rng, "x")
    arrays = model.state_dict()
    assert sorted(grads.params) == sorted(arrays)

    def loss_of_arrays():
        model.load_state_dict(arrays)
        return loss()

    for name, array in arrays.items():
        assert_slope_along(grads.params[name], loss_of_arrays, array, rng, name)


def test_state_dict_round_trip(kernels, rng, model, x):
    other = type(model)(SIZE, rng=rng)
    before = other.state_dict()
    other.load_state_dict(model.state_dict())
    assert_same_results(other(x), model(x))
    with pytest.raises(ValueError, match="missing names"):
        other.load_state_dict({"scale": np.ones(SIZE)})
    bad = before | {list(before)[-1]: np.ones(SIZE + 1)}
    with pytest.raises(ValueError, match="expected shape"):
        other.load_state_dict(bad)
    assert_same_results(other(x), model(x))  # as it was before the errors


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_models_of_their_own(kernels, model, x, clone):
    expected = model(x)
    other = clone(model)
    assert_same_results(other(x), expected)
    zeros = {name: np.zeros_like(array) for name, array in other.state_dict().items()}
    other.load_state_dict(zeros)
    assert not any(array.any() for array in other.parameters().values())
    assert_same_results(model(x), expected)


def test_steps_of_an_optimizer(kernels, rng, model, x):
    target = [part + 1 for part in results(model(x))]
    optimizer, losses = fl.optim.Adam(lr=0.02), []
    for _ in range(30):
        result, tape = model.forward(x)
        pairs = [fl.losses.mse(*pair) for pair in zip(results(result), target, strict=True)]
        gradient = tuple(gradient for _, gradient in pairs)
        grads = model.backward(tape, gradient if len(gradient) > 1 else gradient[0])
        fl.optim.clip_grad_norm(grads, 10.0)
        optimizer.step(model, grads)
        losses.append(sum(loss for loss, _ in pairs))
    assert losses[-1] < losses[0] / 2


def test_a_copy_goes_on_training(kernels, rng, x):
    """A step does not reach from a copy into the original, nor from a tape to the next values."""
    model = Residual(SIZE, rng=rng)
    expected, tape = model.forward(x)
    other = copy.deepcopy(model)
    fl.optim.SGD(lr=0.1).step(other, model.backward(tape, expected))
    assert_same_bits(model(x), expected)
    assert (other(x) != expected).any()


def test_repr():
    assert repr(Residual(SIZE)) == "Residual(3)"
    assert repr(fl.Sequential(Residual(SIZE))) == "Sequential(\n  (0): Residual(3)\n)"


def test_within_a_sequential(kernels, rng, x):
    model = fl.Sequential(Residual(SIZE, rng=rng), fl.Linear(SIZE, 2, dtype=np.float64, rng=rng))
    assert list(model.parameters())[:2] == ["0.scale", "0.lstm.weight_ih_l0"]
    y, tape = model.forward(x)
    assert_same_bits(y, model[1](model[0](x)))
    grads = model.backward(tape, y)
    assert grads.x.shape == x.shape
    assert set(grads.params) == set(model.parameters())
    fl.optim.SGD(lr=0.1).step(model, grads)


def test_a_recurrent_model_within_a_sequential(kernels, rng, x):
    model = fl.Sequential(Recurrent(SIZE, rng=rng), fl.LSTM(SIZE, 2, dtype=np.float64, rng=rng))
    lengths = np.array([5, 3])
    y, (h, (h_of_lstm, _)) = model(x, lengths=lengths)
    first, expected_h = model[0](x, lengths=lengths)
    assert_same_bits(h, expected_h)
    assert_same_bits(y, model[1](first, lengths=lengths)[0])
    result, tape = model.forward(x, (h, None), lengths=lengths)
    grads = model.backward(tape, result[0], (h, None))
    assert grads.state[0].shape == h.shape
    fl.optim.SGD(lr=0.1).step(model, grads)
    assert h_of_lstm.shape == (1, 2, 2)


def test_another_child_takes_the_place_of_one(kernels, rng, x):
    model = Residual(SIZE, rng=rng)
    model.lstm = fl.LSTM(SIZE, SIZE, bias=False, dtype=np.float64, rng=rng)
    assert list(model.parameters()) == ["scale", "lstm.weight_ih_l0", "lstm.weight_hh_l0"]
    y, tape = model.forward(x)
    fl.optim.SGD(lr=0.1).step(model, model.backward(tape, y))
    model.lstm = None
    assert list(model.parameters()) == ["scale"]


def test_parameters_of_its_own():
    class Own(fl.Module):
        pass

    model, given = Own(), np.ones(2, np.float32)
    assert model.parameters() == {}
    model.define(first=given)
    model.define(second=np.zeros((1, 3)), third=0.5)
    given[0] = 7  # a copy was taken
    assert {name: array.shape for name, array in model.parameters().items()} == {
        "first": (2,),
        "second": (1, 3),
        "third": (),
    }
    np.testing.assert_array_equal(model.first, [1, 1])
    assert [array.dtype for array in model.parameters().values()] == ["f4", "f8", "f8"]
    with pytest.raises(ValueError, match="read-only"):
        model.first[0] = 2


@pytest.mark.parametrize("value", [np.arange(3), 1 + 2j, "text", None, [1, 2]])
def test_a_parameter_is_of_floats(value):
    model = Residual(SIZE)
    with pytest.raises(TypeError, match="scale: expected dtype float32 or float64"):
        model.define(scale=value)
    assert list(model.parameters()) == NAMES[Residual]


@pytest.mark.parametrize("value", [np.ones(SIZE), None, fl.Linear(1, 1)], ids=str)
def test_a_parameter_is_not_assigned(value):
    model = Residual(SIZE)
    with pytest.raises(AttributeError, match="scale"):
        model.scale = value
    assert list(model.parameters()) == NAMES[Residual]


def test_a_parameter_is_not_deleted():
    model = Residual(SIZE)
    with pytest.raises(AttributeError, match="scale: a parameter cannot be deleted"):
        del model.scale
    assert list(model.parameters()) == NAMES[Residual]
    assert model.scale.shape == (SIZE,)


@pytest.mark.parametrize(
    "clone",
    [
        copy.copy,
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: model,
    ],
    ids=["copy", "deepcopy", "pickle", "itself"],
)
def test_attributes_are_the_parameters_of_this_moment(rng, clone):
    model = clone(Residual(SIZE))
    names = {"scale": model, "weight_ih_l0": model.lstm, "bias_hh_l0": model.lstm}
    for _ in range(2):
        for name, module in names.items():
            assert name in dir(module)
            assert getattr(module, name) is module.parameters()[name]
            assert not getattr(module, name).flags.writeable
        old = model.state_dict()
        new = {name: rng.random(array.shape, array.dtype) for name, array in old.items()}
        model.load_state_dict(new)
        assert_same_bits(model.scale, new["scale"])
        assert_same_bits(model.lstm.bias_hh_l0, new["lstm.bias_hh_l0"])


def test_repr_shows_no_parameter_as_an_argument():
    class Scaled(fl.Module):
        def __init__(self, scale):
            self.define(scale=scale)

    assert repr(Scaled(np.ones(2))) == repr(type("Scaled", (fl.Module,), {})())


def test_an_unknown_attribute():
    with pytest.raises(AttributeError, match="'Residual' object has no attribute 'gru'"):
        Residual(SIZE).gru  # noqa: B018


@pytest.mark.parametrize(
    "part",
    [
        {"gru": fl.Gradients()},  # no such child
        {"offset": np.zeros(SIZE)},  # no such parameter
        {"lstm": np.zeros(SIZE)},  # of a child, but no Gradients
    ],
)
def test_collect_takes_what_the_model_has(part):
    (name,) = part
    with pytest.raises(ValueError, match=f"{name}: expected Gradients of a child"):
        Residual(SIZE).collect(**part)


def test_a_part_that_is_missing_is_named_by_the_optimizer():
    model = Residual(SIZE)
    grads = model.collect(scale=np.zeros(SIZE))
    with pytest.raises(ValueError, match=r"missing names \['lstm\.bias_hh_l0'"):
        fl.optim.SGD().step(model, grads)


def test_what_a_subclass_does_not_write():
    class Empty(fl.Module):
        pass

    for call in (lambda: Empty()(0), lambda: Empty().forward(0), lambda: Empty().backward(0, 0)):
        with pytest.raises(NotImplementedError, match=r"Empty: expected a .* of its own"):
            call()


ONES = np.ones(2)


class Unkept(fl.Module):
    """Keeps none of its arguments."""

    def __init__(self, size, *, scale=ONES):
        self.line = fl.Linear(size, size)


def test_repr_of_a_model_that_keeps_no_arguments():
    assert repr(Unkept(2)) == (
        "Unkept(\n  (line): Linear(in_features=2, out_features=2, bias=True)\n)"
    )


def test_a_deleted_child_is_gone():
    model = Branches(SIZE)
    del model.gru
    assert [name.split(".")[0] for name in model.parameters()] == ["dense"] * 4


def test_a_child_stands_once():
    model = Branches(SIZE)
    with pytest.raises(ValueError, match="twin: expected another module than the child gru"):
        model.twin = model.gru


@pytest.mark.parametrize("name", ["lstm", "size", "forward"])
def test_define_takes_new_names(name):
    with pytest.raises(ValueError, match=f"{name}: expected a new name"):
        Residual(SIZE).define(**{name: np.ones(2)})


def test_assign_is_complete():
    model = Residual(SIZE)
    before = model.parameters()
    with pytest.raises(ValueError, match="arrays"):
        model.assign({"lstm.weight_ih_l0": np.ones((4 * SIZE, SIZE))})
    assert all(array is before[name] for name, array in model.parameters().items())


def test_collect_tells_a_child_from_an_array():
    with pytest.raises(TypeError, match="x: expected an array, got Gradients"):
        Residual(SIZE).collect(x=fl.Gradients())
