"""The parameters of recurrent layers: how they begin, their doors, and copies of them."""

import copy
import pickle

import numpy as np
import pytest
from compare import assert_close, assert_same_bits, assert_same_result
from random_layers import GRU_AND_RNN, OPTIONS, example

import fastlstm as fl

I, H = 3, 4
NAMES = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
ALL = OPTIONS | GRU_AND_RNN
all_options = pytest.mark.parametrize("options", ALL.values(), ids=ALL)


@pytest.mark.parametrize("layer", [fl.LSTM, fl.GRU, fl.RNN])
def test_a_seed_decides_the_weights(layer):
    first, second = (layer(3, 4, num_layers=2, rng=7).state_dict() for _ in range(2))
    for name, array in first.items():
        assert_same_bits(array, second[name], name)
    other = layer(3, 4, num_layers=2, rng=8)
    assert (other.weight_ih_l0 != first["weight_ih_l0"]).all()


@pytest.mark.parametrize(
    ("layer", "options"), [(fl.LSTM, {"proj_size": 20}), (fl.GRU, {}), (fl.RNN, {})]
)
def test_initial_weights_follow_torch(rng, layer, options):
    model = layer(30, 25, num_layers=2, rng=rng, **options)
    for name, array in model.state_dict().items():
        assert np.abs(array).max() <= 1 / 5, name
        assert np.abs(array).max() > 0.9 / 5, name
        assert abs(array.mean()) < 0.05, name


@pytest.mark.parametrize("bias", [0.0, 1.0, -2.5])
def test_forget_bias(rng, bias):
    lstm = fl.LSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=bias, rng=rng)
    for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse"):
        total = getattr(lstm, "bias_ih" + suffix) + getattr(lstm, "bias_hh" + suffix)
        np.testing.assert_allclose(total[4:8], bias)
        assert (total[:4] != bias).all()
        assert (total[8:] != bias).all()


def test_names_and_shapes_are_those_of_torch():
    lstm = fl.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2)
    shapes = {name: array.shape for name, array in lstm.state_dict().items()}
    expected = {}
    for layer, inputs in enumerate([3, 4]):
        for side in ("", "_reverse"):
            suffix = f"_l{layer}{side}"
            expected |= {
                "weight_ih" + suffix: (20, inputs),
                "weight_hh" + suffix: (20, 2),
                "bias_ih" + suffix: (20,),
                "bias_hh" + suffix: (20,),
                "weight_hr" + suffix: (2, 5),
            }
    assert shapes == expected
    assert list(shapes) == list(expected)
    assert lstm.num_parameters() == sum(np.prod(shape) for shape in expected.values())


@all_options
def test_state_dict_round_trip(rng, dtype, options):
    case, other = example(rng, **options, dtype=dtype), example(rng, **options, dtype=dtype)
    given = case.lstm.state_dict()
    other.lstm.load_state_dict(given)
    expected = case()
    for array in given.values():
        array[...] = np.nan  # the layer took copies
    assert_same_result(other.lstm(case.x, case.state), expected)
    assert_same_result(case(), expected)


@all_options
def test_load_state_dict_after_a_call(kernels, rng, options):
    """No packed copy of the old weights survives."""
    first, second = example(rng, **options), example(rng, **options)
    first(), first.forward()
    first.lstm.load_state_dict(second.lstm.state_dict())
    assert_same_result(first.lstm(second.x, second.state), second())


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("options", [{"proj_size": 2}, *GRU_AND_RNN.values()], ids=str)
def test_copies(kernels, rng, clone, options):
    case = example(rng, num_layers=2, bidirectional=True, lengths=True, **options)
    expected = case()
    other = clone(case.lstm)
    assert_same_result(other(case.x, case.state, **case.options), expected)
    other.load_state_dict(
        {name: np.zeros_like(array) for name, array in other.state_dict().items()}
    )
    assert_same_result(case(), expected)
    assert not other.weight_ih_l0.flags.writeable


def test_a_pickle_opens_under_another_backend(kernels, rng):
    case = example(rng)
    y, _ = case()
    with fl.use_backend("reference"):
        other, _ = pickle.loads(pickle.dumps(case.lstm))(case.x, case.state)
    assert_close(other, y, np.float32)


@all_options
def test_repr_builds_the_layer(rng, options):
    case = example(rng, **options)
    said = repr(case.layer)
    rebuilt = eval(said, {"LSTM": fl.LSTM, "GRU": fl.GRU, "RNN": fl.RNN})
    assert repr(rebuilt) == said
    rebuilt.load_state_dict(case.layer.state_dict())
    assert_same_result(rebuilt(case.x, case.state), case())


@pytest.fixture
def lstm(rng):
    """A layer whose parameters must be the same after the test as before it."""
    lstm = fl.LSTM(I, H, rng=rng)
    before = lstm.state_dict()
    yield lstm
    for name, array in lstm.state_dict().items():
        assert_same_bits(array, before[name], name)


def raises(name):
    return pytest.raises((ValueError, TypeError), match=rf"\b{name}\b")


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4 * H + 1, I)),
        np.zeros(()),
        np.zeros((4 * H, I), complex),
        np.zeros((4 * H, I), object),
        "weights",
        None,
        [[1.0, 2.0], [3.0]],
        np.array([None, "a", []], object),
        np.ma.zeros((4 * H, I)),
        [np.ma.zeros(I)] * (4 * H),
        np.full((4 * H, I), 1e39),
    ],
    ids=lambda bad: f"{type(bad).__name__} of {getattr(bad, 'dtype', 'no dtype')}",
)
@pytest.mark.parametrize("name", NAMES)
def test_load_state_dict_is_atomic(lstm, name, bad):
    given = {key: array + 1 for key, array in lstm.state_dict().items()}
    with raises(name):
        lstm.load_state_dict(given | {name: bad})


@pytest.mark.parametrize("name", NAMES)
def test_load_state_dict_is_strict(lstm, name):
    given = {key: array + 1 for key, array in lstm.state_dict().items()}
    with raises(name):
        lstm.load_state_dict({key: given[key] for key in given if key != name})
    with raises("weight_hr_l0"):
        lstm.load_state_dict(given | {"weight_hr_l0": given[name]})


@pytest.mark.parametrize("prefix", ["module.", "model.lstm.", "_orig_mod."])
def test_load_state_dict_names_a_common_prefix(lstm, prefix):
    given = {prefix + name: array + 1 for name, array in lstm.state_dict().items()}
    advice = f"begin with '{prefix}': pass prefix='{prefix}'; missing"
    with pytest.raises(ValueError, match=f"all names {advice}"):
        lstm.load_state_dict(given)
    larger = given | {"step": np.zeros(()), "fc.weight": np.zeros((2, 3))}
    with pytest.raises(ValueError, match=f"the missing names {advice}"):
        lstm.load_state_dict(larger)
    with pytest.raises(ValueError, match="missing") as raised:
        lstm.load_state_dict({name: larger[name] for name in [*larger][1:]})  # not all
    assert "pass prefix" not in str(raised.value)


@pytest.mark.parametrize("prefix", ["", "module.", "model_"])
def test_load_state_dict_takes_names_under_a_prefix(lstm, rng, prefix):
    given = {prefix + name: array + 1 for name, array in lstm.state_dict().items()}
    other = fl.LSTM(I, H, rng=rng)
    larger = given | {"fc.weight": np.zeros((2, 3)), 5: None} if prefix else given
    assert other.load_state_dict(larger, prefix=prefix) == ([], [])
    for name, array in lstm.state_dict().items():
        assert_same_bits(other.parameters()[name], array + 1, name)
    with pytest.raises(ValueError, match=rf"unknown names \['{prefix}weight_hr_l0'\]"):
        lstm.load_state_dict(given | {f"{prefix}weight_hr_l0": np.zeros(3)}, prefix=prefix)
    with pytest.raises(ValueError, match=f"missing names .*'{prefix}o.weight_ih_l0'"):
        lstm.load_state_dict(given, prefix=f"{prefix}o.")
    with pytest.raises(ValueError, match=rf"state_dict\['{prefix}bias_hh_l0'\]: expected shape"):
        lstm.load_state_dict(given | {f"{prefix}bias_hh_l0": np.zeros(3)}, prefix=prefix)


@pytest.mark.parametrize("prefix", ["", "lstm."])
def test_load_state_dict_that_is_not_strict(rng, prefix):
    lstm, other = (fl.LSTM(I, H, rng=rng) for _ in range(2))
    old, given = lstm.state_dict(), other.state_dict()
    del given["bias_hh_l0"]
    given = {prefix + name: array for name, array in given.items()}
    given[f"{prefix}weight_hr_l0"] = "is not read"
    found = lstm.load_state_dict(given, strict=False, prefix=prefix)
    assert found.missing_keys == ["bias_hh_l0"]
    assert found.unexpected_keys == [f"{prefix}weight_hr_l0"]
    for name, array in lstm.state_dict().items():
        expected = old[name] if name == "bias_hh_l0" else other.parameters()[name]
        assert_same_bits(array, expected, name)
    before = lstm.state_dict()
    given[f"{prefix}bias_ih_l0"] = np.zeros(4 * H + 1)
    with pytest.raises(ValueError, match=r"bias_ih_l0'\]: expected shape"):
        lstm.load_state_dict(given, False, prefix=prefix)
    for name, array in lstm.state_dict().items():
        assert_same_bits(array, before[name], name)
    assert lstm.load_state_dict({}, strict=False) == (NAMES, [])


def test_load_state_dict_reads_its_arguments(lstm):
    given = lstm.state_dict()
    with pytest.raises(TypeError, match="strict: expected True or False"):
        lstm.load_state_dict(given, "no")
    with pytest.raises(TypeError, match="prefix: expected text"):
        lstm.load_state_dict(given, prefix=None)


def test_load_state_dict_takes_torchs_tensors(rng):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.LSTM(I, H)
    lstm = fl.LSTM(I, H, rng=rng)
    lstm.load_state_dict(dict(theirs.named_parameters()))  # which require grad
    for name, tensor in theirs.state_dict().items():
        assert_same_bits(lstm.parameters()[name], tensor.numpy(), name)
    bad = dict(theirs.named_parameters()) | {"bias_hh_l0": torch.zeros(4 * H, device="meta")}
    with pytest.raises(TypeError, match=r"state_dict\['bias_hh_l0'\]: .*tensor"):
        lstm.load_state_dict(bad)


def test_load_state_dict_takes_what_is_like_a_tensor(lstm):
    class Tensor:
        """Gives its array away only after it left the graph and the device."""

        def __init__(self, array, steps=("detach", "cpu")):
            self.array, self.steps = array, steps
            self.dtype = array.dtype

        def detach(self):
            return Tensor(self.array, self.steps[1:])

        cpu = detach

        def numpy(self):
            if self.steps:
                raise RuntimeError("requires grad")
            return self.array

        def __array__(self, dtype=None, copy=None):
            return self.numpy()

    given = {name: Tensor(array) for name, array in lstm.state_dict().items()}
    lstm.load_state_dict(given)
    with pytest.raises(TypeError, match=r"state_dict\['bias_hh_l0'\]"):
        lstm.load_state_dict(given | {"bias_hh_l0": Tensor(given["bias_hh_l0"].array, "abc")})
    with pytest.raises(TypeError, match=r"^x: expected an array, got Tensor"):
        lstm(Tensor(np.zeros((2, I))))


@pytest.mark.parametrize("given", [None, 3, "weights", [], [("weight_ih_l0", 0)]], ids=repr)
def test_load_state_dict_takes_a_mapping(lstm, given):
    with raises("state_dict"):
        lstm.load_state_dict(given)


def test_parameters_have_two_doors_only(lstm):
    with pytest.raises(ValueError, match="read-only"):
        lstm.weight_ih_l0[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        lstm.parameters()["bias_hh_l0"][0] = 1
    with pytest.raises((AttributeError, TypeError, ValueError), match="weight_hh_l0"):
        lstm.weight_hh_l0 = np.zeros((4 * H, H), np.float32)
    with pytest.raises(TypeError):
        lstm.parameters()["bias_hh_l0"] = np.zeros(4 * H)
    lstm.state_dict()["weight_ih_l0"][...] = 0


@all_options
def test_assign_takes_arrays_over(kernels, rng, options):
    """Without a copy: the layer has their memory, and they become read-only."""
    case, other = example(rng, **options), example(rng, **options)
    case()
    given = other.layer.state_dict()
    case.layer.assign(given)
    for name, array in given.items():
        assert case.layer.parameters()[name] is getattr(case.layer, name)
        assert np.shares_memory(case.layer.parameters()[name], array)
        assert not array.flags.writeable
    assert_same_result(case.layer(other.x, other.state), other())
