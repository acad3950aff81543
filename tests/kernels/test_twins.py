"""Every compiled build computes what the reference does, asked directly."""

import numpy as np
import pytest
from cells import CELLS, PLAIN, SOFT
from compare import assert_close, assert_gradients_close, assert_same_bits
from kernel_case import Case, in_form
from walks import KINDS, walk

from fastlstm.kernels import reference

UNTOUCHED = 7.0  # what outputs hold beforehand, so that a stray write shows


def assert_all_close(actual, expected, dtype):
    assert actual.keys() == expected.keys()
    has_norm = any("weight_ln" in name for name in expected)
    for name in expected:
        if name.startswith("d") or "_" in name or (has_norm and "saved" in name):
            # With layer norm, 1 / sqrt(variance) of up to 300 enlarges rounding errors.
            slack = 100 if has_norm else 1
            assert_gradients_close(actual[name], expected[name], dtype, name, slack)
        else:
            assert actual[name].shape == expected[name].shape, name
            assert_close(actual[name], expected[name], dtype, name)


def assert_twins(build, case):
    assert_all_close(case.train(build), case.train(reference), case.dtype)
    assert_all_close(case.infer(build), case.infer(reference), case.dtype)


def runs():
    """Every variant at every size it has, and with every walk at the first of them."""
    for cell, kind in CELLS.items():
        for variant in kind.variants:
            for place, sizes in enumerate(kind.sizes(variant)):
                for steps in ("reverse", "ragged-resets") if place else KINDS:
                    yield pytest.param(
                        *(cell, variant, sizes, steps), id=f"{cell}-{variant}-{sizes}-{steps}"
                    )


@pytest.mark.parametrize(("cell", "variant", "sizes", "kind"), list(runs()))
def test_cells(build, rng, dtype, cell, variant, sizes, kind):
    assert_twins(build, Case(rng, dtype, cell, variant, sizes, walk(rng, *sizes[:2], kind)))


@pytest.mark.parametrize("sizes", [(1000, 1, 1, 40), (300, 3, 5, 24)], ids=str)
@pytest.mark.parametrize(("cell", "variant"), PLAIN)
def test_long_sequences(build, rng, dtype, cell, variant, sizes):
    assert_twins(build, Case(rng, dtype, cell, variant, sizes))


@pytest.mark.parametrize("kind", ["plain", "ragged-resets"])
@pytest.mark.parametrize(
    ("cell", "variant"), [*PLAIN, ("LSTM", "projected, everything"), ("GRU", "published, soft")]
)
def test_two_layers_of_two_directions(build, rng, dtype, cell, variant, kind):
    sizes = 7, 6, 3, 20
    steps = walk(rng, *sizes[:2], kind)
    case = Case(rng, dtype, cell, variant, sizes, steps, layers=2, bidirectional=True)
    assert_twins(build, case)


@pytest.mark.parametrize("sizes", [(0, 3, 2, 5), (4, 0, 2, 5), (0, 0, 2, 5)], ids=str)
@pytest.mark.parametrize(("cell", "variant"), [*PLAIN, ("LSTM", "projected, everything")])
def test_no_steps_or_no_rows(build, rng, dtype, cell, variant, sizes):
    case = Case(rng, dtype, cell, variant, sizes, layers=2, bidirectional=True)
    assert_twins(build, case)
    lengths = np.zeros(sizes[1], np.intp)
    assert_all_close(
        case.infer(build, lengths=lengths), case.infer(reference, lengths=lengths), dtype
    )


@pytest.mark.parametrize(("cell", "variant"), PLAIN)
def test_strided_input_and_output(build, rng, dtype, cell, variant):
    T, B, I, _ = sizes = 6, 5, 3, 20
    case = Case(rng, dtype, cell, variant, sizes)
    expected = case.infer(reference)
    P = case.sizes[0]
    batch_first = np.ascontiguousarray(case.x.transpose(1, 0, 2)).transpose(1, 0, 2)
    wide = np.full((T, B, I + 2), np.nan, dtype)
    wide[:, :, 1:-1] = case.x
    guarded = np.full((B, T, 3 * P), UNTOUCHED, dtype)
    for x in (batch_first, wide[:, :, 1:-1], case.x[::-1].copy()[::-1]):
        out = guarded.transpose(1, 0, 2)[:, :, P : 2 * P]
        out[...] = UNTOUCHED
        actual = case.infer(build, x=x, out=out)
        assert actual["y"] is out
        assert_all_close(actual, expected, dtype)
        assert (guarded[:, :, :P] == UNTOUCHED).all()
        assert (guarded[:, :, 2 * P :] == UNTOUCHED).all()


@pytest.mark.parametrize("kind", ["plain", "ragged-resets-reverse"])
@pytest.mark.parametrize(("cell", "variant"), PLAIN)
def test_batch_first(module, rng, dtype, cell, variant, kind):
    sizes = 6, 5, 3, 20
    case = Case(rng, dtype, cell, variant, sizes, walk(rng, *sizes[:2], kind), layers=2)
    expected = case.train(reference)
    stack, resets = case.stack(module, batch_first=True), case.walk.resets
    inputs = (
        np.ascontiguousarray(case.x.swapaxes(0, 1)),
        in_form(case.state),
        case.walk.lengths,
        None if resets is None else np.ascontiguousarray(resets.T),
    )
    y, _, saved, _ = module.forward(stack, *inputs, keep=True)
    assert y.flags.c_contiguous
    (inner, _), (outer, _) = saved
    assert outer is y
    assert inner.shape == (*sizes[:2], case.sizes[0])
    assert_close(np.ascontiguousarray(y.swapaxes(0, 1)), expected["y"], dtype)
    dy = np.ascontiguousarray(case.dy.swapaxes(0, 1))
    dx, _, _ = module.backward(stack, *inputs, None, saved, dy, in_form(case.dstate))
    assert dx.shape == inputs[0].shape
    assert_close(np.ascontiguousarray(dx.swapaxes(0, 1)), expected["dx"], dtype)
    out = np.full((*y.shape[:2], 2 * y.shape[2]), UNTOUCHED, dtype)
    y = module.forward(stack, *inputs, out[:, :, : y.shape[2]])[0]
    assert_close(np.ascontiguousarray(y.swapaxes(0, 1)), expected["y"], dtype)
    assert (out[:, :, y.shape[2] :] == UNTOUCHED).all()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("cell", "variant"), PLAIN)
def test_one_sequence(module, rng, dtype, cell, variant, batch_first):
    """Without the axis B in x, state, resets and their gradients."""
    case = Case(rng, dtype, cell, variant, (6, 1, 3, 20), layers=2, bidirectional=True)
    case.walk.resets = rng.random((6, 1)) < 0.3
    expected = case.train(reference)
    state, dstate = (in_form(tuple(p[:, 0] for p in parts)) for parts in (case.state, case.dstate))
    stack = case.stack(module, batch_first=batch_first)
    inputs = case.x[:, 0], state, None, case.walk.resets[:, 0]
    y, final, saved, _ = module.forward(stack, *inputs, keep=True)
    dx, dstate, _ = module.backward(stack, *inputs, None, saved, case.dy[:, 0], dstate)
    assert_close(y, expected["y"][:, 0], dtype)
    assert_close(dx, expected["dx"][:, 0], dtype)
    for name, parts in (("state", final), ("dstate", dstate)):
        for k, part in enumerate(parts if len(case.sizes) > 1 else (parts,)):
            assert_close(part, expected[f"{name} {k}"][:, 0], dtype)


@pytest.mark.parametrize("rows", [(), (1,), (5,)], ids=["no rows' axis", "1 row", "5 rows"])
@pytest.mark.parametrize(("cell", "variant"), PLAIN)
def test_one_step(module, rng, dtype, cell, variant, rows):
    """Without the axis T in x, y and their gradients, and L * D in the state and its gradient."""
    B = rows[0] if rows else 1
    case = Case(rng, dtype, cell, variant, (1, B, 3, 20))
    expected = case.train(reference)
    x, dy = case.x.reshape(*rows, -1), case.dy.reshape(*rows, -1)
    state, dstate = (
        in_form(tuple(part.reshape(*rows, part.shape[-1]) for part in parts))
        for parts in (case.state, case.dstate)
    )
    stack = case.stack(module, one_step=True)
    y, final = module.forward(stack, x, state)
    kept_y, kept_final, saved, _ = module.forward(stack, x, state, keep=True)
    dx, dstate, gradients = module.backward(stack, x, state, None, None, None, saved, dy, dstate)
    final, kept_final, dstate = (
        state if isinstance(state, tuple) else (state,) for state in (final, kept_final, dstate)
    )
    assert_same_bits(y, final[0])
    for name, array in (("y", y), ("y", kept_y), ("dx", dx)):
        assert_close(array, expected[name].reshape(*rows, -1), dtype, name)
    for k, size in enumerate(case.sizes):
        for parts in (final, kept_final):
            assert_close(parts[k], expected[f"state {k}"].reshape(*rows, size), dtype)
        assert_close(dstate[k], expected[f"dstate {k}"].reshape(*rows, size), dtype)
    for name, gradient in zip(case.names, gradients[0], strict=True):
        assert_gradients_close(gradient, expected[f"cell 0, {name}"], dtype, name)


@pytest.mark.parametrize(("cell", "variant"), PLAIN)
def test_none_is_zeros(module, rng, dtype, cell, variant):
    case = Case(rng, dtype, cell, variant, (4, 3, 2, 20), layers=2, bidirectional=True)
    stack, zeros = case.stack(module), in_form(tuple(map(np.zeros_like, case.state)))
    results = []
    for state, dy, dstate in ((None, None, None), (zeros, np.zeros_like(case.dy), zeros)):
        y, final, saved, _ = module.forward(stack, case.x, state, keep=True)
        inputs = case.x, state, None, None, None
        ones = in_form(tuple(map(np.ones_like, case.state)))
        with_dy = module.backward(stack, *inputs, saved, dy, ones)
        saved = module.forward(stack, case.x, state, keep=True)[2]
        with_dstate = module.backward(stack, *inputs, saved, np.ones_like(case.dy), dstate)
        gradients = [g for result in (with_dy, with_dstate) for g in sum(result[2], ())]
        states = [final, with_dy[1], with_dstate[1]]
        parts = [p for s in states for p in (s if isinstance(s, tuple) else (s,))]
        results.append([y, with_dy[0], with_dstate[0], *parts, *gradients])
    for of_none, of_zeros in zip(*results, strict=True):
        assert_same_bits(of_none, of_zeros)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("lead", [(), (1,), (7,), (3, 4), (2, 0, 3), (2, 3, 2, 2)], ids=str)
@pytest.mark.parametrize(("K", "N"), [(3, 4), (130, 37), (17, 96), (1100, 5), (1, 1)])
def test_linear(build, rng, dtype, K, N, lead, bias):
    x = rng.standard_normal((*lead, K)).astype(dtype)
    matrix = (rng.uniform(-1, 1, (N, K)) / K**0.5).astype(dtype)
    added = rng.standard_normal(N).astype(dtype) if bias else None
    x.flags.writeable = False
    expected = reference.linear(x, reference.pack(matrix), N, added)
    actual = build.linear(x, build.pack(matrix), N, added)
    assert actual.shape == (*lead, N)
    assert_close(actual, expected, dtype)


@pytest.mark.parametrize(
    "sizes",
    [
        *[(35, 3, 4), (10, 33, 40), (360, 20, 17), (9001, 13, 70), (1, 6, 5), (0, 3, 4)],
        *[(7, 1, 130), (4, 3, 0), (1, 3, 0), (300, 40, 0), (0, 3, 0), (4, 0, 3), (0, 0, 3)],
        *[(300, 45, 1), (30, 77, 3), (2, 147, 7), (600, 7, 2), (40, 20, 12)],
    ],
    ids=str,
)
def test_weight_gradient(build, rng, dtype, sizes):
    K, M, N = sizes
    dz = (rng.standard_normal((K, M)) / max(K, 1) ** 0.5).astype(dtype)
    x = rng.standard_normal((K, N)).astype(dtype)
    for array in (dz, x):
        array.flags.writeable = False
    results = []
    for module in (build, reference):
        guarded = np.full((M + 2, N), UNTOUCHED, dtype)
        guarded_bias = np.full(M + 2, UNTOUCHED, dtype)
        module.weight_gradient(dz, x, guarded[1:-1])
        alone = guarded.copy()
        module.weight_gradient(dz, x, guarded[1:-1], guarded_bias[1:-1])
        assert_same_bits(guarded, alone)
        results.append((guarded, guarded_bias))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, dtype)


@pytest.mark.parametrize("outputs", [1, 4, 7, 8, 12, 16, 31, 40])
def test_linear_of_rows_alone(build, rng, dtype, outputs):
    x = rng.standard_normal((25, 30)).astype(dtype)
    packed = build.pack(rng.standard_normal((outputs, 30)).astype(dtype))
    alone = np.concatenate([build.linear(row[None], packed, outputs, None) for row in x])
    for count in range(1, len(x) + 1):
        assert_same_bits(build.linear(x[:count], packed, outputs, None), alone[:count])


@pytest.mark.parametrize("columns", [2, 3, 4, 7, 8, 9, 16, 20, 33])
@pytest.mark.parametrize("rows", [1, 2, 5, 12, 45, 100])
def test_weight_gradient_of_columns_alone(build, rng, dtype, rows, columns):
    dz = rng.standard_normal((270, rows)).astype(dtype)
    x = rng.standard_normal((270, columns)).astype(dtype)
    dW, alone = np.empty((rows, columns), dtype), np.empty((columns, rows, 1), dtype)
    build.weight_gradient(dz, x, dW)
    for column, of_column in enumerate(alone):
        build.weight_gradient(dz, np.ascontiguousarray(x[:, column : column + 1]), of_column)
    assert_same_bits(dW, np.hstack(list(alone)))


# T, B, I, H of products dz · W (K is H, N is I) and sums dzᵀ · x over steps and rows that do not
# fill their tiles, or take several.
PRODUCTS = [(5, 2, 40, 33), (40, 9, 17, 20), (4, 1, 37, 130), (3, 20, 96, 17)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", PRODUCTS, ids=str)
def test_products_and_sums(build, rng, dtype, sizes, kind):
    """Of an RNN, where nothing else is."""
    case = Case(rng, dtype, "RNN", "tanh", sizes, walk(rng, *sizes[:2], kind))
    assert_all_close(case.train(build), case.train(reference), dtype)


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_activations(build, rng, dtype, name):
    x = np.concatenate([rng.uniform(-20, 20, 1001), rng.uniform(-1, 1, 1000)]).astype(dtype)
    before = x.copy()
    assert_close(getattr(build, name)(x), getattr(reference, name)(x), dtype)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("name", ["activate", "activation_slope"])
@pytest.mark.parametrize("activation", SOFT)
def test_activations_with_parameters(build, rng, dtype, name, activation):
    """The others are compared with the truth in test_more_activations."""
    x = rng.uniform(-5, 5, 101).astype(dtype)
    actual, expected = (getattr(module, name)(*activation, x) for module in (build, reference))
    assert_close(actual, expected, dtype)
