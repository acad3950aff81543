"""`inspection.gradient_flow` beside torch's autograd, cell by cell, and finite differences."""

import numpy as np
import pytest
from models import Residual
from random_layers import GRU_AND_RNN, VARIANTS, each, example

import fastlstm as fl
from fastlstm.inspection import compare_flow, gradient_flow


def norms(by_step):
    return np.array([np.sqrt((np.asarray(g) ** 2).sum()) for g in by_step])


def own_parameters(torch, layer, k, direction):
    end = f"_l{k}{'_reverse' if direction else ''}"
    arrays = layer.state_dict().items()
    return {n.removesuffix(end): torch.from_numpy(v) for n, v in arrays if n.endswith(end)}


def torch_step(torch, kind, own, x, state):
    """The state after one step, each part as `torch.nn` documents it."""
    z, z_h = x @ own["weight_ih"].T + own["bias_ih"], state[0] @ own["weight_hh"].T + own["bias_hh"]
    if kind == "RNN":
        return ((z + z_h).tanh(),)
    if kind == "GRU":
        (r, u, n), (r_h, u_h, n_h) = z.chunk(3, 1), z_h.chunk(3, 1)
        u = (u + u_h).sigmoid()
        return ((1 - u) * (n + (r + r_h).sigmoid() * n_h).tanh() + u * state[0],)
    i, f, g, o = (z + z_h).chunk(4, 1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    c.retain_grad()
    h = o.sigmoid() * c.tanh()
    return (h @ own["weight_hr"].T if "weight_hr" in own else h), c


def torch_flow(torch, e, loss):
    """The norms that autograd gives, by layer and direction, for a ragged batch with resets."""
    kind, D = type(e.layer).__name__, 2 if e.layer.bidirectional else 1
    first = x = torch.from_numpy(e.x).requires_grad_()
    T, B, _ = e.x.shape
    lengths = e.options.get("lengths", np.full(B, T))
    resets = e.options.get("resets", np.zeros((T, B), bool))
    found = []
    for k in range(e.layer.num_layers):
        outputs = []
        for d in range(D):
            own, walked = own_parameters(torch, e.layer, k, d), {}
            state = [torch.from_numpy(part[k * D + d]) for part in (
                e.state if kind == "LSTM" else (e.state,)
            )]  # fmt: skip
            for t in range(T)[:: -1 if d else 1]:
                cut = resets[t] if not d else np.zeros(B, bool)
                if d and t + 1 < T:
                    cut = resets[t + 1] & (t + 1 < lengths)
                passed = torch.from_numpy(~cut)[:, None]
                new = torch_step(torch, kind, own, x[t], [part * passed for part in state])
                for part in new:
                    part.retain_grad()
                walked[t] = new
                live = torch.from_numpy(t < lengths)[:, None]
                pairs = zip(new, state, strict=True)
                state = [torch.where(live, part, old) for part, old in pairs]
            steps = [walked[t] for t in range(T)]
            found.append(steps)
            live = torch.from_numpy(np.arange(T)[:, None] < lengths)[..., None]
            outputs.append(torch.stack([new[0] for new in steps]) * live)
        x = torch.cat(outputs, 2)
    loss(x, lengths).backward()
    return norms(first.grad), [
        [norms([new[part].grad for new in steps]) for part in range(len(steps[0]))]
        for steps in found
    ]


def at_last(y, lengths):
    """Each row's own last step."""
    return sum(y[n - 1, row].sum() for row, n in enumerate(lengths) if n)


CASES = {
    "one layer": {},
    "two layers": {"num_layers": 2},
    "both directions": {"num_layers": 2, "bidirectional": True},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["LSTM", "projected", "GRU", "RNN"])
@pytest.mark.parametrize("ragged", [False, True])
def test_norms_are_those_of_torchs_autograd(kernels, rng, kind, case, ragged):
    torch = pytest.importorskip("torch")
    own = {"proj_size": 2} if kind == "projected" else {"kind": kind}
    ways = {"lengths": ragged, "resets": ragged}
    e = example(rng, dtype=np.float64, **ways, **own, **CASES[case])
    into_x, by_layer = torch_flow(torch, e, at_last)
    flow = gradient_flow(e.layer, e.x, state=e.state, **e.options)
    np.testing.assert_allclose(flow.input, into_x, rtol=1e-9, atol=1e-15)
    for layer, (hidden, *cell) in zip(flow.layers, by_layer, strict=True):
        np.testing.assert_allclose(layer.hidden, hidden, rtol=1e-9, atol=1e-15)
        assert (layer.cell is None) == (not cell)
        for expected in cell:
            np.testing.assert_allclose(layer.cell, expected, rtol=1e-9, atol=1e-15)
    last = flow.layers[-2 if e.layer.bidirectional else -1]
    assert flow.hidden is last.hidden
    assert flow.half_life is last.half_life
    assert (flow.half_life is None) == (kind == "RNN")


def test_a_loss_of_ones_own(kernels, rng):
    torch = pytest.importorskip("torch")
    e = example(rng, dtype=np.float64, num_layers=2, lengths=True)
    dy = rng.standard_normal((7, 5, 4))
    flow = gradient_flow(e.layer, e.x, dy=dy, state=e.state, **e.options)
    _, by_layer = torch_flow(torch, e, lambda y, _: (y * torch.from_numpy(dy)).sum())
    for layer, (hidden, cell) in zip(flow.layers, by_layer, strict=True):
        np.testing.assert_allclose(layer.hidden, hidden, rtol=1e-9)
        np.testing.assert_allclose(layer.cell, cell, rtol=1e-9)


def test_the_step_of_the_loss(rng):
    e = example(rng, dtype=np.float64, lengths=True)
    lengths = e.options["lengths"]

    def flow_of(**options):
        return gradient_flow(e.layer, e.x, state=e.state, lengths=lengths, **options)

    for step in (0, 3, 6, -1, -3, -7):
        dy = np.zeros((7, 5, 4))
        for row, n in enumerate(lengths):
            place = step if step >= 0 else n + step
            if 0 <= place < n:
                dy[place, row] = 1
        assert dy.any()
        found, expected = flow_of(loss_at=step), flow_of(dy=dy)
        assert np.array_equal(found.hidden, expected.hidden)
        assert np.array_equal(found.input, expected.input)
    listed = [e.x[:n, row] for row, n in enumerate(lengths)]
    found = gradient_flow(e.layer, listed, state=e.state, loss_at=-2)
    assert np.allclose(found.cell, flow_of(loss_at=-2).cell, rtol=1e-13)
    ones = [np.ones((n, 4)) for n in lengths]
    found = gradient_flow(e.layer, listed, state=e.state, dy=ones)
    assert np.allclose(found.cell, flow_of(dy=np.ones((7, 5, 4))).cell, rtol=1e-13)


ONE_WAY = {
    name: options
    for name, options in (VARIANTS | GRU_AND_RNN).items()
    if options.get("num_layers", 1) == 1 and "H" not in options
} | {"everything": VARIANTS["everything"] | {"H": 4, "bidirectional": False}}


@pytest.mark.parametrize("name", ONE_WAY)
def test_variants_by_finite_differences(kernels, rng, name):
    """The loss is at the last step alone, so the state after t is all that it depends on.

    dL/dh_t is then that of h in the state; dL/dc_t also includes the way through h_t.
    """
    e = example(rng, T=4, B=2, dtype=np.float64, **ONE_WAY[name])
    flow = gradient_flow(e.layer, e.x, state=e.state)
    zoneout = getattr(e.layer, "zoneout", (0, 0))
    t, epsilon = 1, 1e-6
    _, state = e.layer(e.x[: t + 1], e.state)

    def loss(changed):
        return e.layer(e.x[t + 1 :], changed)[0][-1].sum()

    def slopes(part_of, change):
        part = part_of(state)
        found = np.zeros_like(part)
        for index in np.ndindex(part.shape):
            ends = []
            for sign in (1, -1):
                new = part.copy()
                new[index] += sign * epsilon
                ends.append(loss(change(new)))
            found[index] = (ends[0] - ends[1]) / (2 * epsilon)
        return found

    if not isinstance(state, tuple):
        np.testing.assert_allclose(
            flow.hidden[t], norms([slopes(lambda s: s, lambda h: h)])[0], 1e-6
        )
        return
    of_h = slopes(lambda s: s[0], lambda h: (h, state[1]))
    np.testing.assert_allclose(flow.hidden[t], norms([of_h])[0], rtol=1e-6)

    def hidden_of(c):
        """h_t where c_t is c: of an LSTM whose step computes this c, whatever its input gate."""
        return state[0] + (output_of(c) - output_of(state[1])) * (1 - zoneout[0])

    trace = fl.inspection.trace(e.layer, e.x, e.state)
    output_of = output_function(e, trace.layers[0], t)
    through = (lambda c: state[0]) if zoneout[1] else hidden_of
    of_c = slopes(lambda s: s[1], lambda c: (through(c), c))
    np.testing.assert_allclose(flow.cell[t], norms([of_c])[0], rtol=1e-6)


def output_function(e, layer, t):
    """The output of step t as a function of its c alone, written out."""
    from fastlstm.kernels.reference.core import activations

    own = {name.removesuffix("_l0"): array for name, array in e.layer.state_dict().items()}
    variant = e.layer.cells.by_layer[0][0].variant
    clip = np.inf if variant.clip is None else variant.clip
    gate, _, output = variant.activations
    peephole = own.get("weight_peephole", np.zeros(12))[8:]
    # The argument of the output gate without its peephole: found by a root of the activation.
    target, low, high = layer.output_gate[t], np.full((2, 4), -40.0), np.full((2, 4), 40.0)
    for _ in range(200):
        middle = (low + high) / 2
        above = activations.activate(*gate, np.clip(middle, -clip, clip)) > target
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    z_o = (low + high) / 2 - peephole * layer.cell[t]

    def compute(c):
        o = activations.activate(*gate, np.clip(z_o + peephole * c[0], -clip, clip))
        argument = c[0]
        if variant.layer_norm:
            centered = argument - argument.mean(-1, keepdims=True)
            argument = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
            argument = argument * own["weight_ln_c"] + own.get("bias_ln_c", 0)
        h = o * activations.activate(*output, argument)
        return (h @ own["weight_hr"].T if "weight_hr" in own else h)[None]

    return compute


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_the_carousel(rng, kind):
    e = example(rng, kind=kind, bidirectional=True, lengths=True, resets=True, dtype=np.float64)
    flow = gradient_flow(e.layer, e.x, state=e.state, **e.options)
    found = fl.inspection.trace(e.layer, e.x, e.state, **e.options)
    lengths, resets = e.options["lengths"], e.options["resets"]
    for d, layer in enumerate(found.layers):
        gate = layer.forget_gate if kind == "LSTM" else layer.update_gate
        logs = [np.log(gate[t, row]) for row in range(5) for t in range(lengths[row])]
        assert np.isclose(flow.layers[d].half_life, np.log(0.5) / np.mean(logs))
        for t in range(7):
            products = []
            for row in range(5):
                if t < lengths[row]:
                    steps = range(t) if d else range(t + 1, lengths[row])
                    product = np.ones(4)
                    for s in steps:
                        cut = resets[s + 1, row] if d else resets[s, row]
                        product = product * gate[s, row] * (not cut)
                    products.append(product)
            assert np.isclose(flow.layers[d].carousel[t], np.mean(products))


def test_the_half_life_of_a_known_gate():
    """Gates of 1/2 halve the cell in each step; with zoneout of c by 1/2, 3/4 are kept."""
    for zoneout, expected in ((0, 1), (0.5, np.log(0.5) / np.log(0.75))):
        lstm = fl.LSTM(3, 4, dtype=np.float64, zoneout=(0, zoneout))
        lstm.load_state_dict({name: 0 * array for name, array in lstm.state_dict().items()})
        flow = gradient_flow(lstm, np.ones((6, 2, 3)))
        assert np.isclose(flow.half_life, expected)
        assert np.allclose(flow.carousel, 0.5 ** ((5 - np.arange(6)) / expected))


def test_a_sequential_with_other_layers(kernels, rng):
    """Beside one that ends with the same LSTM, whose dy is the gradient from above."""
    lstm = fl.LSTM(5, 4, 2, dropout=0.5, rng=0, dtype=np.float64)
    model = fl.Sequential(
        fl.Embedding(9, 5, rng=1, dtype=np.float64),
        lstm,
        fl.Dropout(0.5),
        fl.Last(),
        fl.Linear(4, 3, rng=2, dtype=np.float64),
    )
    x = [[1, 2, 8, 4], [3], [5, 7]]
    flow = gradient_flow(model, x)
    embedded = model[:1](x)
    dy = [np.zeros((len(row), 4)) for row in x]
    for row in dy:
        row[-1] = model.parameters()["4.weight"].sum(axis=0)
    expected = gradient_flow(lstm, embedded, dy=dy)
    assert [layer.name for layer in flow.layers] == ["1.l0", "1.l1"]
    for name in ("hidden", "cell", "carousel", "input"):
        np.testing.assert_allclose(getattr(flow, name), getattr(expected, name), rtol=1e-12)
    with pytest.raises(ValueError, match="loss_at: the output has no steps, so expected -1, got 2"):
        gradient_flow(model, x, loss_at=2)


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_forms_of_x(kernels, rng, batch_first):
    e = example(rng, dtype=np.float64, num_layers=2, bidirectional=True)
    lstm = fl.LSTM(3, 4, 2, bidirectional=True, batch_first=batch_first, dtype=np.float64)
    lstm.load_state_dict(e.layer.state_dict())
    expected = gradient_flow(e.layer, e.x, state=e.state, loss_at=4)
    model = fl.Sequential(lstm, fl.Dropout(0.5))
    x = e.x.swapaxes(0, 1) if batch_first else e.x
    for flow in (
        gradient_flow(lstm, x, state=e.state, loss_at=4),
        gradient_flow(model, x, state=(e.state,), loss_at=4),
    ):
        assert np.array_equal(flow.cell, expected.cell)
        assert np.array_equal(flow.input, expected.input)
    alone = gradient_flow(lstm, e.x[:, 2], state=each(lambda part: part[:, 2], e.state))
    one = gradient_flow(e.layer, e.x[:, 2:3], state=each(lambda part: part[:, 2:3], e.state))
    np.testing.assert_allclose(alone.hidden, one.hidden, rtol=1e-12)


def test_a_model_of_ones_own(rng):
    """L is the sum of x + scale · y at the last step."""
    model, x = Residual(4, rng=rng), rng.standard_normal((7, 2, 4))
    dy = np.zeros((7, 2, 4))
    dy[-1] = model.scale
    flow, expected = gradient_flow(model, x), gradient_flow(model.lstm, x, dy=dy)
    assert flow.layers[0].name == "lstm.l0"
    assert np.array_equal(flow.cell, expected.cell)


class Masking(fl.Module):
    """An LSTM that skips the steps that begin with 0."""

    def __init__(self, lstm):
        self.lstm = lstm

    def __call__(self, x):
        return self.lstm(x, mask=x[..., 0] != 0)[0]

    def forward(self, x):
        (y, _), tape = self.lstm.forward(x, mask=x[..., 0] != 0)
        return y, tape

    def backward(self, tape, dresult):
        grads = self.lstm.backward(tape, dresult)
        return self.collect(x=grads.x, lstm=grads)


def test_a_model_that_masks_steps(kernels, rng):
    model, x = Masking(fl.LSTM(3, 4, rng=0, dtype=np.float64)), rng.standard_normal((7, 2, 3))
    x[[0, 4], 0, 0] = x[[1, 2], 1, 0] = 0
    kept = x[..., 0] != 0
    y, found = model(x), fl.inspection.trace(model, x)
    assert np.array_equal(found.y, y)
    assert np.array_equal(found.layers[0].hidden, y)
    assert np.array_equal(found.layers[0].cell.any(axis=2), kept)
    dy = rng.standard_normal((7, 2, 4))
    compact = np.stack([x[kept[:, row], row] for row in range(2)], axis=1)
    d_compact = np.stack([dy[kept[:, row], row] for row in range(2)], axis=1)
    flow, expected = (
        gradient_flow(model, x, dy=dy),
        gradient_flow(model.lstm, compact, dy=d_compact),
    )
    assert np.array_equal(flow.cell, expected.cell)
    with pytest.raises(ValueError, match="dy: the model masks steps of its own"):
        gradient_flow(model, x)


def test_the_lstms_gradient_lives_where_the_rnns_dies(rng):
    """From the last of 200 steps to the first, as models begin to learn."""
    x = rng.standard_normal((200, 4, 8))
    models = {
        "RNN": fl.RNN(8, 64, rng=0, dtype=np.float64),
        "LSTM": fl.LSTM(8, 64, init="chrono", t_max=200, rng=0, dtype=np.float64),
    }
    flows = compare_flow(models, x).flows
    falls = {name: flow.hidden[-1] / flow.hidden[0] for name, flow in flows.items()}
    assert falls["RNN"] > 1e6 * falls["LSTM"]
    assert falls["LSTM"] < 1e4
    assert flows["LSTM"].half_life > 20


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss_at": 7}, ValueError, "loss_at: expected -7 to 6, got 7"),
        ({"loss_at": 1.5}, TypeError, "loss_at: expected a whole number, got 1.5"),
        ({"loss_at": 2, "dy": np.ones((7, 2, 4))}, ValueError, "loss_at: dy says what"),
        ({"dy": np.ones((7, 2, 3))}, ValueError, "dy: expected shape"),
        ({"model": fl.LSTMCell(3, 4)}, ValueError, "got LSTMCell, which takes one step"),
        ({"model": fl.Linear(3, 4)}, ValueError, "expected one with a recurrent layer"),
    ],
)
def test_what_gradient_flow_refuses(options, error, message):
    with pytest.raises(error, match=message):
        gradient_flow(options.pop("model", fl.LSTM(3, 4)), np.ones((7, 2, 3)), **options)


def test_what_compare_flow_refuses():
    with pytest.raises(TypeError, match=r"models: expected a mapping of names to models, got \{\}"):
        compare_flow({}, np.ones((3, 2, 3)))
    with pytest.raises(TypeError, match="models: expected a mapping"):
        compare_flow([fl.LSTM(3, 4)], np.ones((7, 2, 3)))


def test_the_model_is_as_it_was(rng):
    model = fl.Sequential(fl.Dropout(0.5, rng=0), fl.LSTM(3, 4, 2, dropout=0.5, rng=0))
    before = [module._rng.bit_generator.state for module in model]
    gradient_flow(model, np.ones((7, 2, 3)))
    assert [module._rng.bit_generator.state for module in model] == before
    assert [type(module) for module in model] == [fl.Dropout, fl.LSTM]


def test_zoneout_of_h_alone():
    """One step of one unit: h = m h₀ + (1 - m) o tanh(c), so dh/dc = (1 - m) o (1 - tanh²(c))."""
    layer = fl.LSTM(1, 1, zoneout=(0.25, 0.0), dtype=np.float64, rng=0)
    values = {name: np.zeros_like(value) for name, value in layer.state_dict().items()}
    layer.load_state_dict(values | {"bias_ih_l0": np.array([0.0, 0.0, 2.0, 0.0])})
    c = 0.5 * np.tanh(2.0)
    flow = fl.inspection.gradient_flow(layer, np.zeros((1, 1, 1)))
    np.testing.assert_allclose(flow.cell, [0.75 * 0.5 * (1 - np.tanh(c) ** 2)], rtol=1e-12)
