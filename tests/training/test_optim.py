"""Optimizers and clipping against plain loops and torch."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest

import fastlstm as fl
from fastlstm import optim

SETTINGS = {
    "SGD": ("SGD", {"lr": 0.3}),
    "SGD, decay": ("SGD", {"lr": 0.3, "weight_decay": 0.2}),
    "SGD, momentum": ("SGD", {"lr": 0.1, "momentum": 0.7}),
    "SGD, all": ("SGD", {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.2, "nesterov": True}),
    "Adam": ("Adam", {"lr": 0.1}),
    "Adam, all": (
        "Adam",
        {"lr": 0.1, "betas": (0.6, 0.8), "eps": 0.03, "weight_decay": 0.2},
    ),
    "AdamW": ("AdamW", {"lr": 0.1, "betas": (0.6, 0.8), "eps": 0.03, "weight_decay": 0.2}),
    "RMSprop": ("RMSprop", {"lr": 0.1}),
    "RMSprop, all": (
        "RMSprop",
        {
            "lr": 0.1,
            "alpha": 0.7,
            "eps": 0.03,
            "weight_decay": 0.2,
            "momentum": 0.6,
            "centered": True,
        },
    ),
}
crossed = pytest.mark.parametrize(("name", "options"), SETTINGS.values(), ids=SETTINGS)


class ByLoops:
    """One number's way: Sutskever 2013 and Graves 2013 as torch has them, Kingma & Ba 2015 and
    Loshchilov & Hutter 2019."""

    def __init__(self, name, options):
        self.name = name
        self.lr = options["lr"]
        self.decay = options.get("weight_decay", 0.0)
        self.momentum = options.get("momentum", 0.0)
        self.nesterov = options.get("nesterov", False)
        self.beta1, self.beta2 = options.get("betas", (0.9, 0.999))
        self.eps = options.get("eps", 1e-8)
        self.alpha = options.get("alpha", 0.99)
        self.centered = options.get("centered", False)
        self.first = self.second = self.third = 0.0
        self.t = 0

    def step(self, p, g, is_vector):
        self.t += 1
        if self.name == "AdamW":
            p = p if is_vector else p - self.lr * self.decay * p
        else:
            g = g + self.decay * p
        if self.name == "SGD":
            if self.momentum:
                self.first = self.momentum * self.first + g
                g = g + self.momentum * self.first if self.nesterov else self.first
            return p - self.lr * g
        if self.name == "RMSprop":
            self.first = self.alpha * self.first + (1 - self.alpha) * g
            self.second = self.alpha * self.second + (1 - self.alpha) * g * g
            variance = self.second - self.first**2 if self.centered else self.second
            self.third = self.momentum * self.third + g / (variance**0.5 + self.eps)
            return p - self.lr * self.third
        self.first = self.beta1 * self.first + (1 - self.beta1) * g
        self.second = self.beta2 * self.second + (1 - self.beta2) * g * g
        mean = self.first / (1 - self.beta1**self.t)
        variance = self.second / (1 - self.beta2**self.t)
        return p - self.lr * mean / (variance**0.5 + self.eps)


def random_grads(rng, module):
    return fl.Gradients(
        params={n: rng.standard_normal(p.shape) for n, p in module.parameters().items()}
    )


def assert_unchanged(module, before):
    for name, array in module.parameters().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


@crossed
def test_steps_by_loops(rng, name, options):
    module = fl.Linear(3, 2, dtype=np.float64, rng=rng)
    opt = getattr(optim, name)(**options)
    rules = {
        (n, index): ByLoops(name, options)
        for n, p in module.parameters().items()
        for index in np.ndindex(p.shape)
    }
    values = {key: module.parameters()[key[0]][key[1]] for key in rules}
    for count in range(6):
        if count == 3:
            opt.lr = 0.02
            for rule in rules.values():
                rule.lr = 0.02
        grads = random_grads(rng, module)
        kept = copy.deepcopy(grads)
        opt.step(module, grads)
        for key, rule in rules.items():
            values[key] = rule.step(values[key], grads.params[key[0]][key[1]], key[0] == "bias")
            np.testing.assert_allclose(module.parameters()[key[0]][key[1]], values[key], rtol=1e-12)
        for n, array in grads.params.items():
            np.testing.assert_array_equal(array, kept.params[n])


@crossed
def test_steps_as_torch(rng, dtype, name, options):
    torch = pytest.importorskip("torch")
    module = fl.Sequential(
        fl.Linear(5, 7, dtype=dtype, rng=rng), fl.LSTM(7, 3, dtype=dtype, rng=rng)
    )
    theirs = [torch.tensor(p, requires_grad=True) for p in module.parameters().values()]
    opt, their_opt = getattr(optim, name)(**options), getattr(torch.optim, name)(theirs, **options)
    opt.decay_all = True  # as torch's AdamW
    for _ in range(5):
        grads = random_grads(rng, module)
        for tensor, gradient in zip(theirs, grads.params.values(), strict=True):
            tensor.grad = torch.tensor(gradient.astype(dtype))
        opt.step(module, grads)
        their_opt.step()
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for array, tensor in zip(module.parameters().values(), theirs, strict=True):
        assert array.dtype == dtype
        np.testing.assert_allclose(array, tensor.detach().numpy(), tolerance, tolerance)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_defaults_as_torch(name):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
    ours = getattr(optim, name)()
    for key in ("lr", "momentum", "weight_decay", "nesterov", "betas", "eps", "alpha", "centered"):
        assert getattr(ours, key, None) == theirs.get(key), key


def test_both_are_optimizers():
    assert isinstance(optim.SGD(), optim.Optimizer)
    assert isinstance(optim.Adam(), optim.Optimizer)


@crossed
def test_old_arrays_never_move(rng, name, options):
    module = fl.Linear(3, 2, rng=rng)
    opt = getattr(optim, name)(**options)
    for _ in range(3):
        held, before = dict(module.parameters()), module.state_dict()
        opt.step(module, random_grads(rng, module))
        for n, array in held.items():
            np.testing.assert_array_equal(array, before[n])
            new = module.parameters()[n]
            assert not np.shares_memory(array, new)
            assert not new.flags.writeable
            assert new.flags.c_contiguous
            assert (new != array).any()


@crossed
def test_parameters_are_nobody_elses(rng, name, options):
    """Neither the gradients nor the optimizer share memory with what the module holds."""
    module = fl.Linear(3, 2, dtype=np.float64, rng=rng)
    opt = getattr(optim, name)(**options | {"lr": 1.0})
    grads = random_grads(rng, module)
    opt.step(module, grads)
    twin, twin_module = copy.deepcopy(opt), copy.deepcopy(module)
    for array in grads.params.values():
        array[...] = np.nan
    grads = random_grads(rng, module)
    opt.step(module, grads)
    twin.step(twin_module, grads)
    assert_unchanged(module, twin_module.parameters())
    assert all(np.isfinite(array).all() for array in module.parameters().values())


@crossed
@pytest.mark.parametrize("first", [True, False])
def test_a_failed_step_changes_nothing(rng, name, options, first):
    module = fl.Sequential(fl.Linear(3, 2, rng=rng), fl.Linear(2, 4, rng=rng))
    opt = getattr(optim, name)(**options)
    if not first:
        opt.step(module, random_grads(rng, module))
    good, before, memory = random_grads(rng, module), module.state_dict(), pickle.dumps(opt)
    bad = [
        {n: g for n, g in good.params.items() if n != "1.bias"},
        good.params | {"2.bias": np.ones(3)},
        good.params | {"1.bias": np.ones(3)},
        good.params | {"1.bias": np.ones((4, 1))},
        good.params | {"1.bias": np.ones(4, complex)},
        good.params | {"1.bias": None},
    ]
    for params in bad:
        with pytest.raises((ValueError, TypeError), match=r"^grads.*(1\.bias|2\.bias)"):
            opt.step(module, fl.Gradients(params=params))
        assert_unchanged(module, before)
        assert pickle.dumps(opt) == memory
    twin, other = pickle.loads(memory), copy.deepcopy(module)
    opt.step(module, good)
    twin.step(other, good)
    assert_unchanged(module, other.parameters())


def test_one_optimizer_serves_one_module(rng):
    module, other = fl.Linear(3, 2, rng=rng), fl.Linear(3, 2, rng=rng)
    before, grads, opt = other.state_dict(), random_grads(rng, other), optim.Adam()
    opt.step(module, grads)
    with pytest.raises(ValueError, match=r"^module: "):
        opt.step(other, grads)
    watched = weakref.ref(module)
    del module
    gc.collect()
    assert watched() is None
    with pytest.raises(ValueError, match=r"^module: "):  # its moments are still the first one's
        opt.step(other, grads)
    assert_unchanged(other, before)


@crossed
@pytest.mark.parametrize("through", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_with_a_copy_of_the_module(rng, name, options, through):
    module = fl.Linear(3, 2, rng=rng)
    opt = getattr(optim, name)(**options)
    opt.step(module, random_grads(rng, module))
    twin_module, twin = through((module, opt))
    assert repr(twin) == repr(opt)
    grads = random_grads(rng, module)
    opt.step(module, grads)
    twin.step(twin_module, grads)
    assert_unchanged(twin_module, module.parameters())
    with pytest.raises(ValueError, match=r"^module: "):
        twin.step(module, grads)


@pytest.mark.parametrize("freeze", [("weight",), ("unknown",)])
def test_freeze_set_between_steps(rng, freeze):
    """Running means of other parameters, and unknown prefixes, are refused at any step."""
    layer, optimizer = fl.Linear(3, 2, rng=0), fl.optim.Adam()
    grads = fl.Gradients(params={name: np.ones_like(p) for name, p in layer.parameters().items()})
    optimizer.step(layer, grads)
    before = layer.state_dict()
    optimizer.freeze = freeze
    with pytest.raises(ValueError, match=r"module|freeze"):
        optimizer.step(layer, grads)
    for name, array in before.items():
        np.testing.assert_array_equal(layer.parameters()[name], array)


def test_parameters_set_between_steps(rng):
    """A step begins at the parameters that the module has, and refuses other names and shapes."""

    class Model(fl.Module):
        def __init__(self):
            self.layer = fl.Linear(3, 2, bias=False, rng=0)

    model, optimizer = Model(), fl.optim.Adam(lr=0.5)
    grads = fl.Gradients(params={"layer.weight": np.ones((2, 3), np.float32)})
    optimizer.step(model, grads)
    model.load_state_dict({"layer.weight": np.full((2, 3), 10, np.float32)})
    optimizer.step(model, grads)  # Adam's step on a constant gradient is the learning rate
    np.testing.assert_allclose(model.layer.weight, 9.5, rtol=1e-6)
    model.layer = fl.Linear(3, 4, bias=False, rng=0)
    with pytest.raises(ValueError, match="module"):
        optimizer.step(model, fl.Gradients(params={"layer.weight": np.ones((4, 3), np.float32)}))


def test_a_copy_goes_on_with_the_same_parameters_only(rng):
    module = fl.Linear(3, 2, rng=rng)
    opt = optim.Adam()
    opt.step(module, random_grads(rng, module))
    for other in (
        fl.Linear(3, 2, bias=False),
        fl.Linear(2, 3),
        fl.Linear(3, 2, dtype=np.float64),
    ):
        with pytest.raises(ValueError, match=r"^module: "):
            copy.deepcopy(opt).step(other, random_grads(rng, other))


@crossed
def test_training_reduces_the_loss(kernels, rng, name, options):
    model = fl.Sequential(fl.LSTM(2, 6, rng=rng), fl.Linear(6, 1, rng=rng))
    opt = getattr(optim, name)(**options | {"weight_decay": 0.0, "lr": 0.02})
    x = rng.standard_normal((5, 9, 2))
    target = x[:, :, :1] * 0.5
    values = []
    for _ in range(60):
        (y, _), tape = model.forward(x)
        loss, dy = fl.losses.mse(y, target)
        values.append(loss)
        opt.step(model, model.backward(tape, dy))
    assert values[-1] < 0.9 * values[0]


@crossed
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_resumed_optimizer_has_the_same_bits(rng, dtype, name, options, before):
    module = fl.Sequential(
        fl.Embedding(300, 150, dtype=dtype, rng=rng), fl.LSTM(150, 3, dtype=dtype, rng=rng)
    )
    opt = getattr(optim, name)(**options)
    for _ in range(before):
        opt.step(module, random_grads(rng, module))
    opt.lr = 0.07
    state, twin_module = opt.state_dict(), copy.deepcopy(module)
    assert all(isinstance(value, (int, float, np.ndarray)) for value in state.values())
    read = {key: np.array(value) for key, value in state.items()}  # as a file of arrays gives them
    twin = getattr(optim, name)(**options | {"lr": 1.0})
    twin.load_state_dict(read)
    for value in read.values():
        value[...] = 0  # they were copied
    for _ in range(3):
        grads = random_grads(rng, module)
        opt.step(module, grads)
        twin.step(twin_module, grads)
        assert_unchanged(twin_module, module.parameters())
    assert twin.lr == 0.07
    assert twin.steps == opt.steps == before + 3


def test_a_loaded_optimizer_serves_another_module(rng):
    module, other = fl.Linear(3, 2, rng=rng), fl.Linear(3, 2, rng=rng)
    opt = optim.Adam()
    opt.step(module, random_grads(rng, module))
    opt.load_state_dict(opt.state_dict())
    opt.step(other, random_grads(rng, other))


def test_a_centered_variance_is_never_negative():
    """Equal gradients have none; rounding makes v - m² negative without care."""
    module = fl.Linear(50, 20)
    grads = fl.Gradients(
        params={
            n: np.linspace(1, 2, p.size).reshape(p.shape) for n, p in module.parameters().items()
        }
    )
    opt = optim.RMSprop(alpha=0.5, centered=True)
    for _ in range(60):
        opt.step(module, grads)
        assert all(np.isfinite(array).all() for array in module.parameters().values())


def test_names_in_a_state():
    module = fl.Linear(2, 1)
    opt = optim.RMSprop(momentum=0.5, centered=True)
    assert opt.state_dict() == {"lr": 0.01, "steps": 0, "skipped": 0}
    opt.step(module, fl.Gradients(params=module.state_dict()))
    assert list(opt.state_dict()) == [
        *("lr", "steps", "skipped", "square.weight", "square.bias"),
        *("mean.weight", "mean.bias", "velocity.weight", "velocity.bias"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("lr"), "missing names .*lr"),
        (lambda s: s.pop("mean.bias"), r"missing names .*mean\.bias"),
        (lambda s: s.update(velocity=s["mean.bias"]), "state of this Adam, got 'velocity'"),
        (lambda s: s.update({"velocity.bias": s["mean.bias"]}), "got 'velocity.bias'"),
        (lambda s: s.update({"mean.bias": s["mean.bias"].astype(int)}), "float32 or float64"),
        (lambda s: s.update(steps=-1), "steps"),
        (lambda s: s.update(steps=1.5), "steps"),
        (lambda s: s.update(steps=0), "mean"),
        (lambda s: s.update(lr=np.nan), "lr"),
        (lambda s: [s.pop(key) for key in list(s) if "." in key], "running means of Adam"),
    ],
)
def test_a_bad_state_changes_nothing(rng, change, message):
    module, opt = fl.Linear(3, 2, rng=rng), optim.Adam()
    opt.step(module, random_grads(rng, module))
    memory, state = pickle.dumps(opt), opt.state_dict()
    change(state)
    with pytest.raises((ValueError, TypeError), match=f"^state_dict.*{message}"):
        opt.load_state_dict(state)
    assert pickle.dumps(opt) == memory
    with pytest.raises(TypeError, match=r"^state_dict: "):
        opt.load_state_dict(list(state))


def test_a_state_of_another_model_is_refused_at_the_step(rng):
    module, opt = fl.Linear(3, 2, rng=rng), optim.Adam()
    opt.step(module, random_grads(rng, module))
    for other in (fl.Linear(2, 3), fl.Linear(3, 2, dtype=np.float64), fl.Embedding(2, 3)):
        fresh = optim.Adam()
        fresh.load_state_dict(opt.state_dict())
        with pytest.raises(ValueError, match=r"^module: "):
            fresh.step(other, random_grads(rng, other))


@crossed
def test_frozen_parameters_stay(rng, name, options):
    module = fl.Sequential(fl.Linear(3, 2, rng=rng), fl.LSTM(2, 4, rng=rng), fl.Linear(4, 2))
    twin, before = copy.deepcopy(module), dict(module.parameters())
    frozen = "0.", "1.weight_hh"
    opt, free = getattr(optim, name)(**options, freeze=frozen), getattr(optim, name)(**options)
    for _ in range(3):
        grads = random_grads(rng, module)
        free.step(twin, grads)
        grads.params["0.weight"][...] = np.nan  # nobody reads it
        opt.step(module, grads)
    for n, array in module.parameters().items():
        expected = before[n] if n.startswith(frozen) else twin.parameters()[n]
        np.testing.assert_array_equal(array, expected, err_msg=n)
    assert not any(".0." in key or "weight_hh" in key for key in opt.state_dict())
    resumed = getattr(optim, name)(**options, freeze=frozen)
    resumed.load_state_dict(opt.state_dict())
    resumed.step(module, random_grads(rng, module))


def test_an_unknown_prefix_is_refused(rng):
    module = fl.Sequential(fl.Linear(3, 2, rng=rng))
    before = module.state_dict()
    with pytest.raises(ValueError, match=r"^freeze: .*0\.weight.*got '1\.'"):
        optim.SGD(freeze=("0.", "1.")).step(module, random_grads(rng, module))
    assert_unchanged(module, before)


@crossed
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of", ["0.weight", "1.bias"])
@pytest.mark.parametrize("first", [True, False])
def test_a_step_on_nonfinite_gradients_is_refused(rng, name, options, value, of, first):
    module = fl.Sequential(fl.Linear(300, 200, rng=rng), fl.Linear(200, 4, rng=rng))
    opt = getattr(optim, name)(**options)
    if not first:
        opt.step(module, random_grads(rng, module))
    before, memory, bad = module.state_dict(), pickle.dumps(opt), random_grads(rng, module)
    bad.params[of].flat[-1] = value
    with pytest.raises(ValueError, match=rf"^grads\.params\['{of}'\]: .*finite"):
        opt.step(module, bad)
    assert_unchanged(module, before)
    assert pickle.dumps(opt) == memory
    opt.skip_nonfinite = True
    opt.step(module, bad)
    assert_unchanged(module, before)
    assert (opt.skipped, opt.steps) == (1, 1 - first)
    opt.skipped, opt.skip_nonfinite = 0, False
    assert pickle.dumps(opt) == memory


def test_large_gradients_are_finite():
    module = fl.Linear(2, 2, bias=False)
    grads = fl.Gradients(params={"weight": np.full((2, 2), 3e38, np.float32)})
    optim.SGD(lr=1e-38).step(module, grads)  # their sum is beyond float32's range


def test_weight_decay_of_adamw_spares_vectors(rng):
    module = fl.LSTM(3, 4, peepholes=True, layer_norm=True, learn_initial_state=True, rng=rng)
    zeros = fl.Gradients(params={n: 0 * p for n, p in module.parameters().items()})
    for decay_all in (False, True):
        before = module.state_dict()
        optim.AdamW(lr=0.1, weight_decay=0.5, decay_all=decay_all).step(module, zeros)
        for n, array in module.parameters().items():
            factor = 0.95 if decay_all or array.ndim == 2 else 1.0
            np.testing.assert_allclose(array, factor * before[n], rtol=1e-6, err_msg=n)


def test_small_and_large_parameters_of_both_dtypes(rng):
    """Small ones are updated together, large ones in pieces; the bits are those of each alone."""

    class Both(fl.Module):
        def __init__(self):
            shapes = {"a": (3,), "b": (70_001,), "c": (2, 5), "d": (), "e": (0, 4), "f": (40_000,)}
            for k, (n, shape) in enumerate(shapes.items()):
                self.define(**{n: rng.standard_normal(shape).astype(("f4", "f8")[k % 3 > 1])})

    module, opt = Both(), optim.Adam(lr=0.1)
    alone = {n: (fl.Module(), optim.Adam(lr=0.1)) for n in module.parameters()}
    for n, (single, _) in alone.items():
        single.define(**{n: getattr(module, n)})
    for _ in range(2):
        grads = random_grads(rng, module)
        opt.step(module, grads)
        for n, (single, single_opt) in alone.items():
            single_opt.step(single, fl.Gradients(params={n: grads.params[n]}))
            np.testing.assert_array_equal(getattr(module, n), getattr(single, n))


def test_gradients_of_any_strides(rng):
    module = fl.Linear(300, 200, dtype=np.float64, rng=rng)
    twin, grads = copy.deepcopy(module), random_grads(rng, module)
    optim.Adam().step(module, grads)
    turned = {n: np.asfortranarray(array) for n, array in grads.params.items()}
    optim.Adam().step(twin, fl.Gradients(params=turned))
    assert_unchanged(module, twin.parameters())


def clip_by_loops(groups, max_norm):
    total = 0.0
    for grads in groups:
        for array in grads.params.values():
            for value in array.ravel().tolist():
                total += value * value
    norm = total**0.5
    return norm, min(1.0, max_norm / norm)


@pytest.mark.parametrize("max_norm", [0.1, 3.0, 1e4])
@pytest.mark.parametrize("several", [False, True])
def test_clip_by_loops(rng, dtype, max_norm, several):
    groups = [
        fl.Gradients(
            x=rng.standard_normal(3),
            state=rng.standard_normal(2),
            params={"a": rng.standard_normal((4, 3)).astype(dtype).T, "b": np.ones(5, dtype)},
        )
        for _ in range(3 if several else 1)
    ]
    before = copy.deepcopy(groups)
    arrays = [group.params["a"] for group in groups]
    expected, scale = clip_by_loops(groups, max_norm)
    norm = optim.clip_grad_norm(groups if several else groups[0], max_norm)
    assert type(norm) is float
    np.testing.assert_allclose(norm, expected, rtol=1e-12)
    for group, old, array in zip(groups, before, arrays, strict=True):
        assert group.params["a"] is array
        for n, changed in group.params.items():
            np.testing.assert_allclose(changed, old.params[n] * scale, rtol=1e-6)
        np.testing.assert_array_equal(group.x, old.x)
        np.testing.assert_array_equal(group.state, old.state)
    if scale < 1:
        np.testing.assert_allclose(clip_by_loops(groups, max_norm)[0], max_norm, rtol=1e-6)


def test_clip_as_torch(rng):
    torch = pytest.importorskip("torch")
    arrays = {"a": rng.standard_normal((40, 30)), "b": rng.standard_normal(50)}
    tensors = [torch.zeros(a.shape, dtype=torch.float64) for a in arrays.values()]
    for tensor, array in zip(tensors, arrays.values(), strict=True):
        tensor.grad = torch.tensor(array)
    expected = torch.nn.utils.clip_grad_norm_(tensors, 2.5).item()
    norm = optim.clip_grad_norm(fl.Gradients(params=arrays), 2.5)
    np.testing.assert_allclose(norm, expected, rtol=1e-12)
    for tensor, array in zip(tensors, arrays.values(), strict=True):
        np.testing.assert_allclose(array, tensor.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_clip_leaves_what_is_not_finite(value):
    grads = fl.Gradients(params={"a": np.array([3.0, value]), "b": np.array([4.0])})
    norm = optim.clip_grad_norm(grads, 1.0)
    assert not np.isfinite(norm)
    np.testing.assert_array_equal(grads.params["a"], [3.0, value])
    np.testing.assert_array_equal(grads.params["b"], [4.0])


def test_clip_accumulates_in_float64():
    big = fl.Gradients(params={"a": np.full(4, 1e25, np.float32)})
    np.testing.assert_allclose(optim.clip_grad_norm(big, 1.0), 2e25, rtol=1e-6)
    np.testing.assert_allclose(big.params["a"], 0.5, rtol=1e-6)
    many = fl.Gradients(params={"a": np.full(3_000_000, 0.1, np.float32)})
    expected = float(np.float32(0.1)) * 3e6**0.5
    np.testing.assert_allclose(optim.clip_grad_norm(many, 1e9), expected, rtol=1e-12)


@pytest.mark.parametrize("exponent", [-320, -200, -160, 160, 200, 300])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e100])
def test_clip_of_numbers_whose_squares_no_float64_has(rng, exponent, max_norm):
    numbers = rng.uniform(1, 2, 7)
    a, b = 10.0**exponent * numbers[:4], 10.0**exponent * numbers[4:]
    expected = float(np.linalg.norm(numbers)) * 10.0**exponent
    grads = fl.Gradients(params={"a": a.copy(), "b": b.copy()})
    norm = optim.clip_grad_norm([grads, fl.Gradients(params={"c": np.zeros(2)})], max_norm)
    np.testing.assert_allclose(norm, expected, rtol=1e-3 if exponent < -300 else 1e-12)
    scale = min(1.0, max_norm / expected)
    for actual, before in ((grads.params["a"], a), (grads.params["b"], b)):
        np.testing.assert_allclose(actual, before * scale, rtol=1e-12)


def test_clip_of_large_float32():
    grads = fl.Gradients(params={"a": np.full(100, 1e30, np.float32)})
    np.testing.assert_allclose(optim.clip_grad_norm(grads, 1e-9), 1e31, rtol=1e-6)
    np.testing.assert_allclose(grads.params["a"], 1e-10, rtol=1e-6)  # the factor is 1e-40


@crossed
@pytest.mark.parametrize("value", [1e38, 1e-38, 1e300, 1e-300])
def test_no_warning_of_a_gradient_of_any_size(rng, dtype, name, options, value):
    """Nor an error, where NumPy is asked for it; the numbers are torch's."""
    torch = pytest.importorskip("torch")
    if dtype == np.float32 and 1e38 < value < np.inf:
        pytest.skip("beyond float32's range")
    module = fl.Linear(1, 2, dtype=dtype, rng=rng)
    theirs = [torch.tensor(p.copy(), requires_grad=True) for p in module.parameters().values()]
    opt, their_opt = getattr(optim, name)(**options), getattr(torch.optim, name)(theirs, **options)
    opt.decay_all = True  # as torch's AdamW
    for sign in (1, -1, 1):
        grads = fl.Gradients(
            params={n: np.full_like(p, sign) for n, p in module.parameters().items()}
        )
        for tensor, gradient in zip(theirs, grads.params.values(), strict=True):
            with np.errstate(all="ignore"):
                gradient *= dtype.type(value)
            tensor.grad = torch.tensor(gradient)
        with np.errstate(all="raise"):
            opt.step(module, grads)
            optim.clip_grad_norm(grads, 1.0)
        their_opt.step()
        if value not in (1e38, 1e300):  # where torch computes in another order, and overflows
            for array, tensor in zip(module.parameters().values(), theirs, strict=True):
                np.testing.assert_allclose(array, tensor.detach().numpy(), 1e-5, 1e-7)


def test_clip_of_nothing():
    assert optim.clip_grad_norm([], 1.0) == 0
    zeros = fl.Gradients(params={"a": np.zeros(3)})
    assert optim.clip_grad_norm(zeros, 1.0) == 0
    np.testing.assert_array_equal(zeros.params["a"], 0)


def test_clip_measures_with_an_infinite_norm():
    locked = np.array([3.0, 4.0])
    locked.flags.writeable = False
    assert optim.clip_grad_norm(fl.Gradients(params={"a": locked}), np.inf) == 5.0


def test_reprs():
    assert repr(optim.AdamW(freeze=["0."], decay_all=True)) == (
        "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01, decay_all=True, "
        "freeze=('0.',))"
    )
    assert repr(optim.SGD(0.1)) == "SGD(lr=0.1, momentum=0.0, weight_decay=0.0, nesterov=False)"
    assert repr(optim.Adam()) == ("Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.0)")


def set_lr(value):
    opt = optim.Adam()
    try:
        opt.lr = value
    finally:
        assert opt.lr == 1e-3


GRADS = fl.Gradients(params={"a": np.ones(2)})
LOCKED = fl.Gradients(params={"a": np.broadcast_to(1.0, 3)})
MASKED = fl.Gradients(params={"a": np.ma.ones(3)})
NONE = fl.Gradients(params=None)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.SGD(-1.0), ValueError, "lr: "),
        (lambda: optim.SGD("fast"), TypeError, "lr: "),
        (lambda: optim.Adam(np.inf), ValueError, "lr: "),
        (lambda: set_lr(-1.0), ValueError, "lr: "),
        (lambda: set_lr(None), TypeError, "lr: "),
        (lambda: optim.SGD(momentum=-0.1), ValueError, "momentum: "),
        (lambda: optim.SGD(weight_decay=np.nan), ValueError, "weight_decay: "),
        (lambda: optim.SGD(nesterov=1, momentum=0.9), TypeError, "nesterov: "),
        (lambda: optim.SGD(nesterov=True), ValueError, "nesterov: "),
        (lambda: optim.Adam(betas=0.9), ValueError, "betas: "),
        (lambda: optim.Adam(betas=(0.9,)), ValueError, "betas: "),
        (lambda: optim.Adam(betas=(1.0, 0.9)), ValueError, r"betas\[0\]: "),
        (lambda: optim.Adam(betas=(0.9, -0.1)), ValueError, r"betas\[1\]: "),
        (lambda: optim.Adam(eps=-1e-8), ValueError, "eps: "),
        (lambda: optim.Adam(weight_decay=True), TypeError, "weight_decay: "),
        (lambda: optim.AdamW(decay_all=1), TypeError, "decay_all: "),
        (lambda: optim.RMSprop(alpha=1), ValueError, "alpha: "),
        (lambda: optim.RMSprop(centered=None), TypeError, "centered: "),
        (lambda: optim.Adam(freeze="0."), TypeError, "freeze: "),
        (lambda: optim.Adam(freeze=(0,)), TypeError, "freeze: "),
        (lambda: optim.Adam(skip_nonfinite=None), TypeError, "skip_nonfinite: "),
        (lambda: optim.SGD().step(np.ones(3), GRADS), TypeError, "module: "),
        (lambda: optim.SGD().step(fl.Linear(3, 2), {"weight": 1}), TypeError, "grads: "),
        (lambda: optim.SGD().step(fl.Linear(3, 2), np.ones(3)), TypeError, "grads: "),
        (lambda: optim.SGD().step(fl.Linear(3, 2), NONE), TypeError, "grads.params: .*NoneType"),
        (
            lambda: optim.Adam().step(fl.Linear(3, 2), fl.Gradients(params=np.ones(2))),
            TypeError,
            "grads.params: .*ndarray",
        ),
        (
            lambda: optim.Adam().step(
                fl.Linear(1, 1, bias=False), fl.Gradients(params={"weight": np.ma.ones((1, 1))})
            ),
            TypeError,
            r"grads.params\['weight'\]: .*masked",
        ),
        (lambda: optim.clip_grad_norm(NONE, 1.0), TypeError, "grads.params: .*NoneType"),
        (lambda: optim.clip_grad_norm([GRADS, NONE], 1.0), TypeError, r"grads\[1\].params: "),
        (lambda: optim.clip_grad_norm(np.ones(3), 1.0), TypeError, "grads: "),
        (lambda: optim.clip_grad_norm([GRADS, MASKED], 1.0), TypeError, "grads: "),
        (lambda: optim.clip_grad_norm(GRADS, 0.0), ValueError, r"max_norm: .* in \(0, inf\]"),
        (lambda: optim.clip_grad_norm(GRADS, -1.0), ValueError, "max_norm: "),
        (lambda: optim.clip_grad_norm(GRADS, np.nan), ValueError, "max_norm: "),
        (lambda: optim.clip_grad_norm(GRADS, None), TypeError, "max_norm: "),
        (lambda: optim.clip_grad_norm(GRADS.params, 1.0), TypeError, "grads: "),
        (lambda: optim.clip_grad_norm([GRADS, None], 1.0), TypeError, "grads: "),
        (lambda: optim.clip_grad_norm([GRADS, LOCKED], 1.0), TypeError, "grads: .*writable"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
    np.testing.assert_array_equal(GRADS.params["a"], 1.0)


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_parameters_are_no_learning_rate(kind):
    """As torch's optimizers take them. The message has a line, not all the numbers."""
    layer = fl.LSTM(3, 40)
    for given in (layer, layer.parameters(), list(layer.parameters().values())):
        with pytest.raises(TypeError, match=r"^lr: expected a number.*step\(module, grads\)$"):
            getattr(fl.optim, kind)(given)
    for given in (np.zeros((30, 30)), set(range(900)), dict.fromkeys(range(900)).keys()):
        with pytest.raises(TypeError, match=r"^lr: expected a number, got ") as caught:
            getattr(fl.optim, kind)(given)
        assert len(str(caught.value)) < 100
        assert "\n" not in str(caught.value)


def test_an_array_under_two_names_is_clipped_once():
    shared, other = np.full(3, 2.0), np.full(4, 1.0)
    grads = fl.Gradients(params={"a": shared, "b": other, "c": shared})
    norm = optim.clip_grad_norm(grads, 1.0)
    assert norm == pytest.approx(28**0.5)
    np.testing.assert_allclose(shared, 2 / norm)
    np.testing.assert_allclose(other, 1 / norm)


@pytest.mark.parametrize(
    ("opt", "name", "value"),
    [
        (optim.SGD(0.1), "momentum", 0.9),
        (optim.SGD(0.1, 0.5), "nesterov", True),
        (optim.Adam(), "betas", (1.0, 0.9)),
        (optim.AdamW(), "eps", 1e-6),
        (optim.RMSprop(), "centered", True),
        (optim.RMSprop(), "alpha", 0.5),
    ],
)
def test_what_cannot_be_set_later(opt, name, value):
    before = getattr(opt, name)
    with pytest.raises(AttributeError, match=f"{name}: expected a new optimizer for another value"):
        setattr(opt, name, value)
    assert getattr(opt, name) == before
    for wrong in (-1.0, np.nan, "much"):
        with pytest.raises((ValueError, TypeError), match="weight_decay: expected a number"):
            opt.weight_decay = wrong
    opt.weight_decay = 0.25
    assert opt.weight_decay == 0.25


def test_state_dict_has_copies():
    layer = fl.Linear(3, 2, rng=0)
    adam = fl.optim.Adam()
    _, tape = layer.forward(np.ones((4, 3), np.float32))
    adam.step(layer, layer.backward(tape, np.ones((4, 2), np.float32)))
    state = adam.state_dict()
    before = state["mean.weight"].copy()
    state["mean.weight"][...] = 7
    np.testing.assert_array_equal(adam.state_dict()["mean.weight"], before)
