"""The kernels' door: what it offers, which arrays it takes as they are, and what it refuses."""

import inspect

import numpy as np
import pytest
from cells import CELLS, PLAIN
from compare import assert_close, assert_same_bits
from kernel_case import THRESHOLDS, Case, in_form

import fastlstm as fl
from fastlstm.kernels import DTYPES, load, reference
from fastlstm.kernels.arguments import Activation, Kernels, Masks

UNTOUCHED = 7.0  # what outputs hold beforehand, so that a stray write shows


def parameters(function):
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name != "self"
    ]


def public_functions(module):
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, np.ufunc)
        or (
            getattr(value, "__module__", "") == module.__name__
            and not isinstance(value, type)
            and not name.startswith("_")
        )
    }


def test_signatures(build):
    assert public_functions(build) == set(reference.__all__)
    for name in reference.__all__:
        assert parameters(getattr(build, name)) == parameters(getattr(reference, name)), name


def test_signatures_of_the_reference():
    promised = {name: value for name, value in vars(Kernels).items() if not name.startswith("_")}
    assert set(reference.__all__) == set(promised)
    for name, function in promised.items():
        assert parameters(getattr(reference, name)) == parameters(function), name


def _overlapping(a):
    return np.broadcast_to(a[:1], a.shape)


def _subclass(a):
    return a.view(type("Subclass", (np.ndarray,), {}))


def _misaligned(a):
    memory = np.empty(a.nbytes + 1, np.uint8)
    result = memory[1:].view(a.dtype).reshape(a.shape)
    result[...] = a
    return result


def _another_float(a):
    return a.astype(np.float32 if a.itemsize == 8 else np.float64)


NOT_READY = {
    "a list": lambda a: a.tolist(),
    "a subclass": _subclass,
    "integers": lambda a: a.astype(np.int64),
    "bytes in another order": lambda a: a.astype(a.dtype.newbyteorder()),
    "misaligned": _misaligned,
    "strided features": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "features backwards": lambda a: a[..., ::-1].copy()[..., ::-1],
    "a feature too many": lambda a: np.concatenate([a, a[..., :1]], axis=-1),
    "an axis too many": lambda a: a[None],
    "no axes": lambda a: a.ravel()[:1].reshape(()),
}


class Asked:
    """A call of forward whose arguments are ready, to be changed one by one."""

    def __init__(self, rng, dtype, cell):
        self.case = case = Case(rng, dtype, cell, dict(PLAIN)[cell], (4, 3, 5, 6), layers=2)
        self.arguments = {
            "x": case.x,
            "state": in_form(case.state),
            "lengths": np.array([4, 0, 2], np.intp),
            "resets": rng.random((4, 3)) < 0.5,
            "out": np.full(case.dy.shape, UNTOUCHED, dtype),
        }

    def refused(self, module, **changed):
        """Whether forward returns NotImplemented, and has not written to out."""
        arguments = self.arguments | changed
        stack = self.case.stack(module)
        out = arguments["out"]
        before = out.copy() if isinstance(out, np.ndarray) else None
        result = module.forward(stack, **arguments)
        if before is not None and result is NotImplemented:
            assert_same_bits(np.ascontiguousarray(out), np.ascontiguousarray(before))
        return result is NotImplemented


@pytest.fixture(params=["LSTM", "GRU", "RNN"])
def asked(request, rng, dtype):
    asked = Asked(rng, dtype, request.param)
    assert asked.case.dtype == dtype
    return asked


def test_what_is_ready(module, asked):
    assert not asked.refused(module)
    for name in ("state", "lengths", "resets", "out"):
        assert not asked.refused(module, **{name: None})
    x, resets = asked.arguments["x"], asked.arguments["resets"]
    assert not asked.refused(module, x=np.broadcast_to(x[:, :1], x.shape))
    assert not asked.refused(module, resets=np.asfortranarray(resets))


@pytest.mark.parametrize("change", NOT_READY.values(), ids=NOT_READY)
@pytest.mark.parametrize("name", ["x", "state", "out"])
def test_not_ready(module, asked, name, change):
    value = asked.arguments[name]
    if isinstance(value, tuple):
        for k in range(len(value)):
            assert asked.refused(module, state=(*value[:k], change(value[k]), *value[k + 1 :]))
    else:
        assert asked.refused(module, **{name: change(value)})


def _flat(result):
    """All arrays of a result."""
    if isinstance(result, np.ndarray):
        return [result]
    return [array for part in result for array in _flat(part)]


@pytest.mark.parametrize("which", ["x", "h", "c", "all", "dy", "dh", "dc", "all gradients"])
def test_another_float_is_cast_or_refused(module, asked, which):
    """Where nothing is lost by it, forward and backward give the same bits."""
    case, stack = asked.case, asked.case.stack(module)
    arrays = {"x": case.x, **dict(zip("hc", case.state, strict=False)), "dy": case.dy}
    arrays |= dict(zip(("dh", "dc"), case.dstate, strict=False))
    arrays = {name: np.round(array, 2).astype(np.float32) for name, array in arrays.items()}
    plain = {name: array.astype(case.dtype) for name, array in arrays.items()}
    inputs = [name for name in arrays if "d" not in name]
    changed = {"all": inputs, "all gradients": arrays.keys() - set(inputs)}.get(which, [which])
    given = {n: _another_float(a) if n in changed else a for n, a in plain.items()}

    def state_of(arrays, names):
        return in_form(tuple(arrays[name] for name in names if name in arrays))

    def run(arrays):
        inputs = arrays["x"], state_of(arrays, ("h", "c")), None, None
        result = module.forward(stack, *inputs, keep=True)
        if result is NotImplemented:
            return NotImplemented
        y, state, saved, _ = result
        gradients = arrays["dy"], state_of(arrays, ("dh", "dc"))
        back = module.backward(stack, *inputs, None, saved, *gradients)
        return back if back is NotImplemented else _flat([y.copy(), state, back])

    actual = run(given)
    if actual is not NotImplemented:
        for a, b in zip(actual, run(plain), strict=True):
            assert_same_bits(a, b)


def test_states_that_are_not_ready(module, asked):
    state = asked.arguments["state"]
    parts = state if isinstance(state, tuple) else (state,)
    assert asked.refused(module, state=list(parts))
    assert asked.refused(module, state=(*parts, parts[0]))
    assert asked.refused(module, state=())
    assert asked.refused(module, state=in_form(tuple(part[:1] for part in parts)))
    assert asked.refused(module, state=in_form(tuple(part[:, :2] for part in parts)))
    assert asked.refused(module, state=in_form(tuple(part[:, 0] for part in parts)))
    assert asked.refused(module, state=parts[0] if len(parts) > 1 else parts)


LENGTHS = {
    "list": [4, 0, 2],
    "float": np.array([4.0, 0, 2]),
    "int32": np.array([4, 0, 2], np.int32),
    "too few": np.array([4, 0], np.intp),
    "too many": np.array([4, 0, 2, 1], np.intp),
    "negative": np.array([4, -1, 2], np.intp),
    "above T": np.array([5, 0, 2], np.intp),
    "two axes": np.array([[4, 0, 2]], np.intp),
    "no axes": np.array(4, np.intp),
}


RESETS = {
    "list": np.zeros((4, 3), np.bool_).tolist(),
    "integers": np.zeros((4, 3), np.uint8),
    "too few steps": np.zeros((3, 3), np.bool_),
    "too many rows": np.zeros((4, 4), np.bool_),
    "one axis": np.zeros(4, np.bool_),
    "three axes": np.zeros((4, 3, 1), np.bool_),
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}, {id}")
        for name, values in (("lengths", LENGTHS), ("resets", RESETS))
        for id, value in values.items()
    ],
)
def test_walks_that_are_not_ready(module, asked, name, value):
    assert asked.refused(module, **{name: value})


def test_outs_that_are_not_ready(module, asked, dtype):
    x, out = asked.arguments["x"], asked.arguments["out"]
    read_only = out.copy()
    read_only.flags.writeable = False
    assert asked.refused(module, out=read_only)
    assert asked.refused(module, out=_another_float(out))
    assert asked.refused(module, out=_overlapping(out))
    once = np.lib.stride_tricks.as_strided(out, out.shape, (0, *out.strides[1:]))
    assert asked.refused(module, out=once)
    assert asked.refused(module, out=out[:, :2])
    memory = np.zeros((4, 3, 5 + out.shape[2]), dtype)
    memory[:, :, :5] = x
    assert asked.refused(module, x=memory[:, :, :5], out=memory[:, :, 5:])
    state = asked.arguments["state"]
    for k, part in enumerate(state if isinstance(state, tuple) else (state,)):
        memory = np.zeros(part.size + out.size, dtype)
        own = memory[: part.size].reshape(part.shape)
        changed = (*state[:k], own, *state[k + 1 :]) if isinstance(state, tuple) else own
        overlap = memory[part.size - 1 : -1].reshape(out.shape)
        assert asked.refused(module, state=changed, out=overlap)
    bits = out.view(np.bool_)[:, :, :1]
    bits[...] = False
    assert asked.refused(module, resets=bits[:, :, 0])


def test_one_sequence_has_no_lengths(module, asked):
    x, resets, state = (asked.arguments[name] for name in ("x", "resets", "state"))
    parts = state if isinstance(state, tuple) else (state,)
    changed = {
        "x": x[:, 0],
        "state": in_form(tuple(part[:, 0] for part in parts)),
        "resets": resets[:, 0],
        "out": None,
    }
    assert not asked.refused(module, lengths=None, **changed)
    assert asked.refused(module, lengths=np.array([4], np.intp), **changed)
    assert asked.refused(module, lengths=np.array(4, np.intp), **changed)
    assert asked.refused(module, lengths=None, **changed | {"state": state})


def test_training_takes_no_out(module, asked):
    assert asked.refused(module, keep=True)
    assert not asked.refused(module, keep=True, out=None)


def test_masks_are_for_training(module, asked):
    masks = [Masks()] * 2
    assert asked.refused(module, masks=masks)
    assert asked.refused(module, masks=masks[:1], keep=True, out=None)
    assert not asked.refused(module, masks=masks, keep=True, out=None)
    assert not asked.refused(module, masks=[None, None], keep=True, out=None)


def test_one_step_takes_no_out(module, rng, dtype):
    case = Case(rng, dtype, "LSTM", "plain", (1, 3, 5, 6))
    stack, state = case.stack(module, one_step=True), tuple(part[0] for part in case.state)
    assert module.forward(stack, case.x[0], state) is not NotImplemented
    assert module.forward(stack, case.x, state) is NotImplemented
    assert module.forward(stack, case.x[0], case.state) is NotImplemented
    out = np.empty((3, 6), dtype)
    assert module.forward(stack, case.x[0], state, None, None, out) is NotImplemented


@pytest.mark.parametrize("change", NOT_READY.values(), ids=NOT_READY)
def test_gradients_that_are_not_ready(module, asked, change):
    """And that saved arrays are as they were: the next call finds them whole."""
    case, stack = asked.case, asked.case.stack(module)
    inputs = case.x, in_form(case.state), None, None
    saved = module.forward(stack, *inputs, keep=True)[2]
    dy, dstate = case.dy, case.dstate
    wrong = [(change(dy), in_form(dstate)), (dy[:2], in_form(dstate)), (dy, list(dstate))]
    for k in range(len(dstate)):
        wrong.append((dy, in_form((*dstate[:k], change(dstate[k]), *dstate[k + 1 :]))))
    for gradients in wrong:
        assert module.backward(stack, *inputs, None, saved, *gradients) is NotImplemented
    dx = module.backward(stack, *inputs, None, saved, dy, in_form(dstate))[0]
    assert_close(dx, case.train(reference)["dx"], case.dtype)


LINEAR_NOT_READY = {
    "another float": _another_float,
    **{name: change for name, change in NOT_READY.items() if name != "an axis too many"},
    "a feature too few": lambda a: a[..., :-1].copy(),
    "rows with gaps": lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    "Fortran's order": np.asfortranarray,
}


@pytest.mark.parametrize("change", LINEAR_NOT_READY.values(), ids=LINEAR_NOT_READY)
def test_linear_not_ready(module, rng, dtype, change):
    x = rng.standard_normal((4, 3)).astype(dtype)
    packed = module.pack(np.ones((5, 3), dtype))
    assert module.linear(x, packed, 5, None) is not NotImplemented
    assert module.linear(change(x), packed, 5, None) is NotImplemented


WRONG_SHAPES = {
    "W_ih": [lambda a: a[:-1], lambda a: a[None], lambda a: a[:, 0]],
    "W_hh": [lambda a: a[:-1], lambda a: a[None], lambda a: a[:, :-1]],
    "bias_ih": [lambda a: a[:-1], lambda a: a[None]],
    "bias_hh": [lambda a: a[:-1], lambda a: a[None]],
    "W_hr": [lambda a: a[:, :-1], lambda a: a[None]],
    "peepholes": [lambda a: a[:-1], lambda a: a.reshape(3, -1)],
}
NAMED = {"W_hh": r"W_hh|W_hr"}  # by the error, where it is not the field: both have P


@pytest.mark.parametrize("field", WRONG_SHAPES)
@pytest.mark.parametrize(
    ("cell", "variant"), [("LSTM", "projected, everything"), ("GRU", "plain"), ("RNN", "tanh")]
)
def test_weights_that_do_not_fit(module, rng, dtype, cell, variant, field):
    made = Case(rng, dtype, cell, variant, (1, 1, 3, 8)).cells[0]
    weights = made.weights
    if field not in weights._fields:
        return
    for change in WRONG_SHAPES[field]:
        wrong = change(getattr(weights, field))
        if cell == "RNN" and field == "W_ih" and wrong.ndim == 2:
            continue  # any number of rows is an H
        made.weights = weights._replace(**{field: wrong})
        with pytest.raises(ValueError, match=NAMED.get(field, field)):
            made.build(module)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_both_biases_or_neither(module, rng, dtype, cell):
    made = Case(rng, dtype, cell, dict(PLAIN)[cell], (1, 1, 3, 8)).cells[0]
    weights = made.weights
    for field in ("bias_ih", "bias_hh"):
        made.weights = weights._replace(**{field: None})
        with pytest.raises(ValueError, match="bias_"):
            made.build(module)


@pytest.mark.parametrize(
    ("cell", "variant"), [("LSTM", "projected, peepholes"), ("GRU", "plain"), ("RNN", "tanh")]
)
def test_weights_of_another_float(module, rng, dtype, cell, variant):
    made = Case(rng, dtype, cell, variant, (1, 1, 3, 8)).cells[0]
    weights = made.weights
    for field, value in weights._asdict().items():
        if value is not None:
            made.weights = weights._replace(**{field: _another_float(value)})
            with pytest.raises(ValueError, match=r"dtype|float"):
                made.build(module)


@pytest.mark.parametrize("field", ["input_gain", "hidden_gain", "cell_gain", "cell_bias"])
def test_norms_that_do_not_fit(module, rng, dtype, field):
    made = Case(rng, dtype, "LSTM", "layer norm", (1, 1, 3, 8)).cells[0]
    weights = made.weights
    changes = {
        lambda a: a[:-1]: field,
        lambda a: a[None]: field,
        _another_float: r"dtype|float",
    }
    for change, named in changes.items():
        norm = weights.norm._replace(**{field: change(getattr(weights.norm, field))})
        made.weights = weights._replace(norm=norm)
        with pytest.raises(ValueError, match=named):
            made.build(module)


@pytest.mark.parametrize("kind", [-1, 11, 10**9])
@pytest.mark.parametrize(
    ("cell", "field"),
    [
        *(("LSTM", field) for field in ("gate", "candidate", "output")),
        *(("GRU", field) for field in ("gate", "candidate")),
        ("RNN", "activation"),
    ],
)
def test_unknown_activations(module, rng, dtype, cell, field, kind):
    made = Case(rng, dtype, cell, next(iter(CELLS[cell].variants)), (1, 1, 3, 8)).cells[0]
    made.options = made.options._replace(**{field: Activation(kind)})
    with pytest.raises(ValueError, match="kind"):
        made.build(module)


def test_stacks_that_do_not_fit(module, rng, dtype):
    def packed(I, H, variant="plain"):
        return Case(rng, dtype, "LSTM", variant, (1, 1, I, H)).cells[0].build(module)

    def stack(cells, D=1, one_step=False, threads=1):
        return module.stack(cells, [False, True][:D], False, one_step, threads, THRESHOLDS)

    for threads in (0, -1):
        with pytest.raises(ValueError, match="threads"):
            stack([packed(3, 8)], threads=threads)
    stack([packed(3, 8), packed(3, 8), packed(16, 8), packed(16, 8)], D=2)
    wrong = [
        ([], 1),
        ([packed(3, 8)], 0),
        ([packed(3, 8)] * 3, 2),
        ([packed(3, 8), packed(8, 9)], 1),
        ([packed(3, 8), packed(3, 8, "projected, plain")], 2),
        ([packed(3, 8), packed(3, 8)], 1),
        ([packed(3, 8), packed(4, 8)], 2),
    ]
    for cells, D in wrong:
        with pytest.raises(ValueError, match="cells"):
            stack(cells, D)
    with pytest.raises(ValueError, match=r"cells|one_step"):
        stack([packed(3, 8), packed(8, 8)], one_step=True)


def test_what_another_build_has_packed(compiled, dtype, rng):
    """No build computes with it: the engine turns to the reference, or learns of it."""
    builds = {
        (name, other): load(name, "test")[other] for name in fl.backends() for other in DTYPES
    }
    own = builds.pop((compiled, dtype))
    for (_, other), module in builds.items():
        case = Case(rng, other, "LSTM", "plain", (1, 2, 3, 4))
        assert case.stack(own, cells=case.pack(module)) is NotImplemented
        with pytest.raises((TypeError, ValueError), match=r"stack|PyCapsule"):
            own.forward(case.stack(module), case.x)


@pytest.mark.parametrize(("cell", "variant"), [*PLAIN, ("LSTM", "projected, everything")])
def test_saved_arrays_that_do_not_fit(build, rng, dtype, cell, variant):
    case = Case(rng, dtype, cell, variant, (4, 3, 5, 6), layers=2)
    stack = case.stack(build)
    _, saved = case.forward(build, stack)
    (inner, of_inner), (outer, of_outer) = saved
    wrong = [
        (),
        saved[:1],
        (*saved, saved[0]),
        ((inner[:3], of_inner), saved[1]),
        ((inner[:, :, 1:], of_inner), saved[1]),
        (saved[0], (outer[:, :2], of_outer)),
        (saved[0], (outer, ())),
        (saved[0], (outer, of_outer * 2)),
        (saved[0], (outer, (of_outer[0][1:],))),
    ]
    for k, array in enumerate(of_outer[0]):
        for change in (lambda a: a[:3], lambda a: a[:, :2], lambda a: a[..., 1:], _another_float):
            arrays = (*of_outer[0][:k], change(array), *of_outer[0][k + 1 :])
            wrong.append((saved[0], (outer, (arrays,))))
    for changed in wrong:
        with pytest.raises(ValueError, match="saved"):
            case.backward(build, stack, changed)


def test_cells_packed_for_inference_alone(build, rng, dtype):
    case = Case(rng, dtype, "LSTM", "plain", (4, 3, 5, 6))
    stack = case.stack(build, backward=False)
    _, saved = case.forward(build, stack)
    with pytest.raises(ValueError, match="backward"):
        case.backward(build, stack, saved)


def test_products_that_do_not_fit(build, dtype):
    x, dz, dW = np.ones((4, 5), dtype), np.ones((4, 6), dtype), np.ones((6, 5), dtype)
    packed = build.pack(dW)
    for wrong in (
        (x, build.pack(np.ones((600, 5), dtype)), 6, None),
        (x, packed[:, :, :, :1], 6, None),
        (x, dW, 6, None),
        (x, packed, 600, None),
        (x, packed, 6, np.ones(5, dtype)),
        (x, packed, 6, _another_float(np.ones(6, dtype))),
    ):
        with pytest.raises(ValueError, match=r"packed|bias"):
            build.linear(*wrong)
    build.weight_gradient(dz, x, dW)
    for wrong in (
        (dz[1:], x, dW),
        (dz[:, 1:].copy(), x, dW),
        (dz, x[:, 1:].copy(), dW),
        (dz, x, dW[1:]),
        (dz[:, ::2], x, dW[::2].copy()),
        (dz, x[None], dW),
        (_another_float(dz), x, dW),
        (dz, x, _another_float(dW)),
        (dz, x, dW, np.ones(5, dtype)),
        (dz, x, dW, _another_float(np.ones(6, dtype))),
    ):
        with pytest.raises(ValueError, match=r"x|dW|db|Buffer|ndarray"):
            build.weight_gradient(*wrong)
