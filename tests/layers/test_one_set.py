"""A call computes with one set of parameters; copies have sets of their own."""

import copy
import pickle
import sys
import threading
from collections import Counter
from contextvars import copy_context

import numpy as np
import pytest
from compare import assert_same_bits

import fastlstm as fl
from fastlstm import optim


class Scaled(fl.Module):
    """A model of one's own, with a child and a parameter, which counts its calls."""

    def __init__(self, size, rng=None):
        self.calls, self.size = 0, size
        self.inner = fl.Linear(size, size, rng=rng)
        self.define(scale=np.linspace(0.5, 1.5, size, dtype=np.float32))

    def __call__(self, x):
        self.calls += 1
        return self.scale * self.inner(x)

    def forward(self, x):
        y, tape = self.inner.forward(x)
        return self.scale * y, (tape, y)

    def backward(self, tape, dresult):
        tape, y = tape
        grads = self.inner.backward(tape, self.scale * dresult)
        dscale = (y * dresult).reshape(-1, self.size).sum(axis=0)
        return self.collect(x=grads.x, inner=grads, scale=dscale)


class Between(fl.Module):
    """Passes x on, and does something in the middle of a call of the model around it."""

    act = staticmethod(lambda: None)

    def __call__(self, x):
        self.act()
        return x

    def forward(self, x):
        self.act()
        return x, None

    def backward(self, tape, dresult):
        self.act()
        return fl.Gradients(x=dresult)


def build(rng, between=None):
    inner = fl.Sequential(fl.Linear(4, 4, rng=rng), Scaled(4, rng=rng), fl.LSTM(4, 5, rng=rng))
    modules = [fl.LSTM(3, 4, 2, rng=rng), inner, fl.GRU(5, 2, bidirectional=True, rng=rng)]
    if between is not None:
        modules.insert(1, between)
        inner = fl.Sequential(inner[0], between, inner[1], inner[2])
        modules[2] = inner
    return fl.Sequential(*modules)


def two_sets(model, rng):
    old = model.state_dict()
    return old, {name: array + rng.uniform(-1, 1, array.shape) for name, array in old.items()}


def flat(grads):
    return [grads.x, *grads.params.values()]


def train(model, x):
    (y, _), tape = model.forward(x)
    return [y, *flat(model.backward(tape, np.ones_like(y)))]


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def load(model, weights):
    return lambda: model.load_state_dict(weights)


def step(model, weights):
    grads = fl.Gradients(params={name: array * 0 + 1 for name, array in weights.items()})
    return lambda: optim.SGD(lr=0.5).step(model, grads)


@pytest.mark.parametrize("change", [load, step])
@pytest.mark.parametrize("run", [lambda m, x: [m(x)[0]], train], ids=["call", "train"])
def test_parameters_change_in_the_middle_of_a_call(kernels, rng, run, change):
    between = Between()
    model = build(rng, between)
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    old, new = two_sets(model, rng)
    expected = run(model, x)
    between.act = lambda: in_a_thread(change(model, new))
    for actual, wanted in zip(run(model, x), expected, strict=True):
        assert_same_bits(actual, wanted)
    after = model.state_dict()
    assert all((after[name] != old[name]).any() for name in old)
    between.act = lambda: None
    fresh = build(rng, Between())
    fresh.load_state_dict(after)
    for actual, wanted in zip(run(model, x), run(fresh, x), strict=True):
        assert_same_bits(actual, wanted)


@pytest.mark.parametrize("run", [lambda m, x: [m(x)[0]], train], ids=["call", "train"])
def test_calls_beside_a_thread_that_loads(kernels, rng, run):
    model = build(rng)
    x = rng.standard_normal((6, 2, 3)).astype(np.float32)
    allowed = []
    sets = two_sets(model, rng)
    for weights in sets:
        model.load_state_dict(weights)
        allowed.append([array.tobytes() for array in run(model, x)])
    stop, mixed = threading.Event(), Counter()

    def call():
        while not stop.is_set():
            mixed[[array.tobytes() for array in run(model, x)] in allowed] += 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    # In this context, whose backend is that of the right results.
    threads = [threading.Thread(target=copy_context().run, args=(call,)) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        while mixed.total() < 200:
            for weights in sets:
                model.load_state_dict(weights)
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert not mixed[False]


def test_a_state_dict_is_one_set(rng):
    model = fl.Sequential(*(fl.Linear(1, 1, rng=rng) for _ in range(20)))
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            for value in (0, 1):
                model.load_state_dict({name: a * 0 + value for name, a in zeros.items()})

    zeros = {name: array * 0 for name, array in model.state_dict().items()}
    model.load_state_dict(zeros)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(300):
            assert len({float(array.flat[0]) for array in model.parameters().values()}) == 1
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()


def test_what_is_set_on_a_module_counts_at_once(rng):
    model = fl.Sequential(fl.Dropout(0.0, rng=rng), fl.Sequential(Scaled(3, rng=rng)))
    x = np.ones((5, 3), np.float32)
    model(x), model.forward(x)
    model[0].p = 1.0
    assert_same_bits(model.forward(x)[0], model[1](0 * x))
    own = model[1][0]
    calls = own.calls
    model(x), model(x)
    assert own.calls == calls + 2
    own.inner = fl.Linear(3, 3, rng=rng)
    assert_same_bits(model(x), own.scale * own.inner(x))
    own.extra = 3
    del own.extra
    assert not hasattr(own, "extra")


def test_a_call_may_change_its_own_module(rng):
    class Adapts(Scaled):
        def __call__(self, x):
            self.inner.load_state_dict({"weight": 2 * np.eye(3), "bias": np.zeros(3)})
            y = self.inner(x)
            self.inner = other
            return y

    own, other = Adapts(3, rng=rng), fl.Linear(3, 3, rng=rng)
    inner = own.inner
    x = rng.standard_normal((2, 3)).astype(np.float32)
    assert_same_bits(fl.Sequential(own)(x), 2 * x)
    assert_same_bits(inner.weight, 2 * np.eye(3, dtype=np.float32))
    assert own.inner is other
    assert "inner.weight" in own.parameters()


def test_a_models_own_modules_remain_its_layers(rng):
    lstm, linear = fl.LSTM(3, 4, rng=rng), fl.Linear(4, 2, rng=rng)
    model = fl.Sequential(lstm, linear)
    x = np.ones((5, 2, 3), np.float32)
    (y, _), tape = model.forward(x)
    assert model[0] is lstm
    assert list(model) == [lstm, linear]
    grads = linear.backward(tape.tapes[1], np.ones_like(y))  # a layer takes its own tape
    assert grads.x.shape == (5, 2, 4)
    with pytest.raises(ValueError, match="tape"):
        fl.Linear(4, 2).backward(model.forward(x)[1].tapes[1], np.ones_like(y))
    size = len(pickle.dumps(fl.Sequential(lstm, linear)))
    assert len(pickle.dumps(model)) == size
    assert repr(model) == repr(pickle.loads(pickle.dumps(model))) == repr(copy.deepcopy(model))


def test_random_numbers_go_on(rng):
    """The layers of a model draw from the generators that they were given."""
    x = np.ones((50, 4), np.float32)
    dropout = fl.Dropout(0.5, rng=7)
    alone = [dropout.forward(x)[0] for _ in range(3)]
    model = fl.Sequential(fl.Dropout(0.5, rng=7))
    for count, expected in enumerate(alone):
        assert_same_bits(model.forward(x)[0], expected)
        model[0].note = count  # a change, after which the model binds its layers anew


MODULES = {
    "LSTM": lambda rng: fl.LSTM(3, 4, rng=rng),
    "LSTMCell": lambda rng: fl.LSTMCell(3, 4, rng=rng),
    "Linear": lambda rng: fl.Linear(3, 4, rng=rng),
    "own": lambda rng: Scaled(3, rng=rng),
    "Sequential": lambda rng: fl.Sequential(fl.Linear(3, 3, rng=rng), Scaled(3, rng=rng)),
    "nested": lambda rng: fl.Sequential(fl.Sequential(fl.Sequential(fl.LSTM(3, 4, rng=rng)))),
}


def outputs(module, x):
    result = module(x)
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize("called", [False, True])
def test_a_shallow_copy_is_independent(kernels, rng, make, called):
    module = make(rng)
    x = rng.standard_normal((2, 3)).astype(np.float32)
    if called:
        outputs(module, x)
    other = copy.copy(module)
    assert type(other) is type(module)
    assert repr(other) == repr(module)
    expected, before = outputs(module, x), module.state_dict()
    assert_same_bits(outputs(other, x), expected)
    zeros = {name: array * 0 for name, array in before.items()}
    other.load_state_dict(zeros)
    assert_same_bits(outputs(module, x), expected)
    assert not outputs(other, x).any()
    step(other, before)()
    for name, array in module.state_dict().items():
        assert_same_bits(array, before[name])
        assert (other.state_dict()[name] == -0.5).all()
    module.load_state_dict(zeros)
    assert outputs(other, x).any()
    other.note = 1
    assert not hasattr(module, "note")


SOURCES = {
    "new": lambda m: m,
    "loaded": lambda m: m.load_state_dict(m.state_dict()),
    "strided": lambda m: m.load_state_dict({n: a.T.copy().T for n, a in m.state_dict().items()}),
    "assigned": lambda m: m.assign(m.state_dict()),
    "stepped": lambda m: step(m, m.state_dict())(),
    "deep copy": copy.deepcopy,
    "copy": copy.copy,
    "pickled": lambda m: pickle.loads(pickle.dumps(m, protocol=5)),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_a_parameter_cannot_be_opened(rng, make, source):
    module = make(rng)
    made = source(module)
    module = made if isinstance(made, fl.Module) else module
    for array in module.parameters().values():
        for view in (array, array[:1], array.T, array.view()):
            with pytest.raises(ValueError, match="WRITEABLE"):
                view.flags.writeable = True
            with pytest.raises(ValueError, match="WRITEABLE"):
                view.setflags(write=True)
        assert array.flags.c_contiguous
    if isinstance(module, fl.LSTM):
        with pytest.raises(ValueError, match="WRITEABLE"):
            module.weight_ih_l0.flags.writeable = True
    if isinstance(module, Scaled):
        with pytest.raises(ValueError, match="WRITEABLE"):
            module.scale.flags.writeable = True


def test_assigned_arrays_cannot_change(rng):
    layer = fl.Linear(3, 2, rng=rng)
    memory = np.ones((4, 3), np.float32)
    own = np.zeros(2, np.float32)
    layer.assign({"weight": memory[:2], "bias": own})
    memory[...] = 5
    assert (layer.weight == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        own[...] = 5
    read_only = memory.view()
    read_only.flags.writeable = False
    layer.assign({"weight": read_only[:2], "bias": own})
    memory[...] = 6
    assert (layer.weight == 5).all()


@pytest.mark.parametrize(
    ("name", "bad", "error"),
    [
        ("0.bias", np.zeros(3, np.float32), ValueError),
        ("0.bias", np.zeros(2), TypeError),
        ("1.weight", [[0.0, 0.0]], TypeError),
        ("1.weight", np.ma.zeros((1, 2), np.float32), TypeError),
        ("1.bias", None, TypeError),
    ],
)
def test_assign_is_all_or_nothing(rng, name, bad, error):
    model = fl.Sequential(fl.Linear(3, 2, rng=rng), fl.Linear(2, 1, rng=rng))
    before = model.state_dict()
    with pytest.raises(error, match=rf"arrays\['{name}'\]"):
        model.assign({key: array + 1 for key, array in before.items()} | {name: bad})
    for key, array in model.parameters().items():
        assert_same_bits(array, before[key])
