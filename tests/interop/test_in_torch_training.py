"""Gradients and training within torch, and the operators behind `torch.compile`."""

import copy
import gc
import weakref

import pytest

torch = pytest.importorskip("torch", reason="fastlstm.torch is for torch models")
from torch import nn  # noqa: E402

import fastlstm.torch as door  # noqa: E402
from fastlstm.in_torch import autograd, calls  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*not supported with oneDNN:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # in Inductor
    pytest.mark.usefixtures("torch_on_one_thread"),
]
KINDS = [
    ("LSTM", {}),
    ("LSTM", {"proj_size": 2}),
    ("GRU", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {"bias": False}),
]


def parts(state):
    return state if isinstance(state, tuple) else (state,)


class Model(nn.Module):
    """A convolution, a recurrent stack in both directions and a head."""

    def __init__(self, **options):
        super().__init__()
        self.features = nn.Conv1d(5, 6, 3, padding=1)
        self.stack = nn.LSTM(6, 7, num_layers=2, bidirectional=True, batch_first=True, **options)
        self.head = nn.Linear(14, 3)

    def forward(self, x):
        y, _ = self.stack(self.features(x.transpose(1, 2)).transpose(1, 2))
        return self.head(y)


def both_models(**options):
    torch.manual_seed(4)
    theirs = Model(**options)
    return theirs, door.replace(copy.deepcopy(theirs))


def largest(tensors, others):
    return max((a - b).abs().max().item() for a, b in zip(tensors, others, strict=True))


def random_loss(results):
    """A sum of all numbers with weights of their own, drawn by the seed."""
    generator = torch.Generator().manual_seed(7)
    return sum(
        (tensor * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)).sum()
        for tensor in results
    )


@pytest.mark.parametrize("form", ["steps", "row", "ragged"])
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_gradients_are_torchs(kind, options, form):
    torch.manual_seed(6)
    theirs = getattr(nn, kind)(
        4, 5, 2, bidirectional=True, batch_first=True, dtype=torch.float64, **options
    )
    ours, batch = door.replace(copy.deepcopy(theirs)), () if form == "row" else (3,)
    x = torch.randn(*batch, 6, 4, dtype=torch.float64, requires_grad=True)
    sizes = (options.get("proj_size", 5), 5)[: 2 if kind == "LSTM" else 1]
    state = tuple(
        torch.randn(4, *batch, size, dtype=torch.float64, requires_grad=True) for size in sizes
    )
    found = []
    for layer in (ours, theirs):
        given = x
        if form == "ragged":
            given = nn.utils.rnn.pack_padded_sequence(x, [2, 6, 3], True, enforce_sorted=False)
        y, final = layer(given, state if len(state) > 1 else state[0])
        results = y.data if form == "ragged" else y, *parts(final)
        inputs = x, *state, *layer.parameters()
        found.append([*results, *torch.autograd.grad(random_loss(results), inputs)])
    assert largest(*found) < 1e-12


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_gradients_of_cells_are_torchs(kind):
    torch.manual_seed(6)
    theirs = getattr(nn, kind)(4, 5, dtype=torch.float64)
    ours = door.replace(copy.deepcopy(theirs))
    x = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    found = []
    for cell in (ours, theirs):
        state = None
        for step in x:
            state = cell(step, state)
        loss = random_loss(parts(state))
        found.append(torch.autograd.grad(loss, (x, *cell.parameters())))
    assert largest(*found) < 1e-13


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_loss_of_one_result(which):
    """The gradients of the others are not given at all."""
    torch.manual_seed(6)
    theirs = nn.LSTM(4, 5, proj_size=3)
    found, x = [], torch.randn(6, 2, 4)
    for layer in (door.replace(copy.deepcopy(theirs)), theirs):
        y, (h, c) = layer(x)
        loss = (y, h, c)[which].square().sum()
        found.append(torch.autograd.grad(loss, list(layer.parameters())))
    assert largest(*found) < 1e-5


def test_some_gradients():
    torch.manual_seed(6)
    layer = door.LSTM(4, 5)
    layer.weight_ih_l0.requires_grad_(False)
    x = torch.randn(6, 2, 4)
    layer(x)[0].sum().backward()
    assert layer.weight_ih_l0.grad is None
    assert layer.weight_hh_l0.grad.abs().sum() > 0
    layer.requires_grad_(False)
    assert not layer(x)[0].requires_grad
    x.requires_grad_()
    layer(x)[0].sum().backward()
    assert x.grad.abs().sum() > 0


def test_dropout_is_torchs():
    """The same numbers are dropped as in torch's own layer with that seed."""
    theirs, ours = both_models(dropout=0.4)
    x = torch.randn(3, 9, 5)
    found = []
    for model in (ours, theirs):
        torch.manual_seed(11)
        y = model(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    assert largest(*found) < 1e-5
    again = ours(x)
    assert not torch.equal(again, found[0][0])
    assert torch.equal(ours.eval()(x), ours(x))
    assert largest([ours(x)], [theirs.eval()(x)]) < 1e-6


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "LSTMCell"])
def test_gradcheck(kind):
    torch.manual_seed(6)
    options = {} if "Cell" in kind else {"num_layers": 2, "bidirectional": True}
    layer = getattr(door, kind)(2, 3, dtype=torch.float64, **options)
    names = [name for name, _ in layer.named_parameters()]

    def call(x, *weights):
        result = torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))
        return result if "Cell" in kind else (result[0], *parts(result[1]))

    shape = (2, 2) if "Cell" in kind else (3, 2, 2)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weights = [weight.detach().clone().requires_grad_() for weight in layer.parameters()]
    assert torch.autograd.gradcheck(call, (x, *weights))


def test_gradients_of_gradients_are_refused():
    layer = door.LSTM(4, 5)
    x = torch.randn(6, 2, 4, requires_grad=True)
    (dx,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    (again,) = torch.autograd.grad(layer(x)[0].sum(), x)
    assert torch.equal(dx, again)
    with pytest.raises(RuntimeError, match=r"no gradients of gradients.*restore"):
        dx.square().sum().backward()
    with pytest.raises(RuntimeError, match="no gradients of gradients"):
        torch.autograd.grad(dx.sum(), layer.weight_hh_l0)
    y = layer(x.detach())[0]
    (of_weight,) = torch.autograd.grad(y.sum(), layer.weight_hh_l0, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradients of gradients"):
        of_weight.sum().backward()


def test_backward_twice():
    layer = door.LSTM(4, 5, 2)
    x = torch.randn(6, 2, 4, requires_grad=True)
    loss = layer(x)[0].square().sum()
    inputs = x, *layer.parameters()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    layer.weight_hh_l0.data.zero_()  # the loss was computed before
    second = torch.autograd.grad(loss, inputs, retain_graph=True)
    third = torch.autograd.grad(loss, inputs)
    for a, b, c in zip(first, second, third, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, inputs)


def test_changes_before_backward_are_refused():
    layer = door.LSTM(4, 5)
    for name in ("x", "weight"):
        x = torch.randn(6, 2, 4)
        loss = layer(x)[0].sum()
        with torch.no_grad():
            (x if name == "x" else layer.weight_hh_l0).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_results_may_be_changed():
    torch.manual_seed(6)
    layer, x = door.LSTM(4, 5), torch.randn(6, 2, 4)
    y, _ = layer(x)
    expected = torch.autograd.grad(y.mul(2).sum(), list(layer.parameters()))
    y, _ = layer(x)
    y.mul_(2)
    assert largest(torch.autograd.grad(y.sum(), list(layer.parameters())), expected) == 0


@pytest.fixture
def alive(monkeypatch):
    """What calls have saved and not yet freed."""
    found = weakref.WeakSet()

    class Watched(calls.Saved):
        __slots__ = ("__weakref__",)

        def __init__(self, *arguments):
            super().__init__(*arguments)
            found.add(self)

    monkeypatch.setattr(calls, "Saved", Watched)
    return found


def test_nothing_outlives_its_graph(alive):
    layer, x = door.LSTM(4, 5), torch.randn(6, 2, 4)
    for _ in range(3):
        layer(x)[0].sum().backward()  # used
        loss = layer(x)[0].sum()  # kept, and never used
        loss.backward(retain_graph=True)
        loss.backward()
        y = layer(x)
    del loss
    gc.collect()
    assert len(alive) == 1  # that of the last call
    del y
    gc.collect()
    assert not alive


def test_checkpointing(alive):
    theirs, ours = both_models()
    x = torch.randn(3, 9, 5, requires_grad=True)
    found = []
    for model, reentrant in ((ours, False), (ours, True), (theirs, False)):
        y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant)
        assert not alive
        y.square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    assert largest(found[0], found[2]) < 1e-5
    assert largest(found[1], found[2]) < 1e-5


def test_a_replaced_model_trains_as_torchs_own():
    theirs, ours = both_models()
    x, target = torch.randn(8, 12, 5), torch.randn(8, 12, 3)
    with torch.no_grad():
        assert largest([ours(x)], [theirs(x)]) < 1e-6
    losses = []
    for model in (ours, theirs):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses.append([])
        for step in range(50):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), target)
            loss.backward()
            if not step:
                losses[-1].append([parameter.grad.clone() for parameter in model.parameters()])
            optimizer.step()
            losses[-1].append(loss.item())
    (first, *own), (expected, *others) = losses
    assert largest(first, expected) < 1e-5
    assert own == pytest.approx(others, abs=1e-4)
    assert own[-1] < 0.8 * own[0]


# torch.compile. Its own backend needs a C++ compiler and most of a minute: `-m slow`.


@pytest.mark.parametrize(
    ("backend", "p"),
    [
        ("eager", 0.0),
        ("aot_eager", 0.4),
        pytest.param("inductor", 0.0, marks=pytest.mark.slow),
        pytest.param("inductor", 0.4, marks=pytest.mark.slow),
    ],
)
def test_compiled_models(backend, p, monkeypatch):
    theirs, ours = both_models(dropout=p)
    compiled = torch.compile(ours, fullgraph=True, backend=backend)
    called = []
    own = calls.infer
    monkeypatch.setattr(calls, "infer", lambda *given: called.append(True) or own(*given))
    monkeypatch.setattr(autograd, "call", None)  # the operators compute
    x = torch.randn(3, 9, 5)
    found = []
    for model, run in ((ours, compiled), (theirs, theirs)):
        torch.manual_seed(11)
        y = run(x)
        y.square().sum().backward()
        found.append([y, *(parameter.grad for parameter in model.parameters())])
    if not (p and backend == "inductor"):  # which draws random numbers of its own
        assert largest(*found) < 1e-5
    assert called
    with torch.no_grad():
        ours.eval()
        theirs.eval()
        for shape in ((3, 9, 5), (4, 11, 5), (2, 6, 5)):
            x = torch.randn(shape)
            assert largest([compiled(x)], [theirs(x)]) < 1e-6
        for model in (ours, theirs):
            model.stack.weight_hh_l0.data.neg_()
        assert largest([compiled(x)], [theirs(x)]) < 1e-6
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:fastlstm.torch. torch's own layers compute:UserWarning")
@pytest.mark.parametrize("how", ["bfloat16", "autocast", "ragged"])
def test_what_a_compiled_model_computes_outside_of_its_graph(how):
    torch.manual_seed(4)
    theirs = nn.GRU(5, 6)
    dtype = torch.bfloat16 if how == "bfloat16" else torch.float32
    ours = door.replace(copy.deepcopy(theirs.to(dtype)))
    x = torch.randn(7, 3, 5, dtype=dtype)
    if how == "ragged":
        x = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 2, 2]))
    found = []
    for layer in (torch.compile(ours, backend="aot_eager"), theirs):
        with torch.autocast("cpu", enabled=how == "autocast"):
            y = layer(x)[0]
        y = y.data if how == "ragged" else y
        parameters = list((theirs if layer is theirs else ours).parameters())
        found.append([y, *torch.autograd.grad(y.float().square().sum(), parameters)])
    assert largest(*found) < 1e-5
    torch._dynamo.reset()
    strict = torch.compile(nn.Sequential(ours), fullgraph=True, backend="aot_eager")
    refused = pytest.raises(torch._dynamo.exc.Unsupported, match="outside of the graph")
    with torch.autocast("cpu", enabled=how == "autocast"), refused:
        strict(x)
    torch._dynamo.reset()


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([nn.LSTMCell(5, 6), nn.GRUCell(6, 4), nn.RNNCell(4, 3)])

    def forward(self, x):
        one = two = three = None
        for step in x:
            one = self.cells[0](step, one)
            two = self.cells[1](one[0], two)
            three = self.cells[2](two, three)
        return three


def test_compiled_cells():
    torch.manual_seed(4)
    theirs = Decoder()
    ours = door.replace(copy.deepcopy(theirs))
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    x, found = torch.randn(3, 2, 5), []
    for model, run in ((ours, compiled), (theirs, theirs)):
        y = run(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    assert largest(*found) < 1e-6
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("LSTM", "steps"),
        ("GRU", "row"),
        ("RNN", "steps"),
        ("LSTMCell", "one"),
        ("GRUCell", "one"),
    ],
)
@pytest.mark.parametrize("given", [False, True], ids=["zeros", "state"])
def test_opcheck(kind, form, given):
    torch.manual_seed(6)
    one_step = form == "one"
    layer = getattr(nn, kind)(4, 3, dtype=torch.float64, **{} if one_step else {"num_layers": 2})
    weights = [weight.detach().clone().requires_grad_() for weight in layer.parameters()]
    batch = () if form == "row" else (3,)
    shape = {"one": (3, 4), "row": (5, 4), "steps": (5, 3, 4)}[form]
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    rows = () if one_step else (2,)
    states = 2 if "LSTM" in kind else 1
    state = [
        torch.randn(*rows, *batch, 3, dtype=torch.float64, requires_grad=True)
        for _ in range(states if given else 0)
    ]
    mode = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "RNN_TANH"}[kind.removesuffix("Cell")]
    options = mode, 1 if one_step else 2, False, False, one_step
    torch.library.opcheck(torch.ops.fastlstm.recurrent.default, (x, state, weights, *options))


def test_the_operators_refuse_gradients_of_gradients():
    weights = [torch.randn(12, 4), torch.randn(12, 3)]
    x = torch.randn(5, 2, 4, requires_grad=True)
    options = "LSTM", 1, False, False, False
    y, _, _ = torch.ops.fastlstm.recurrent(x, [], weights, *options)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradients of gradients"):
        dx.sum().backward()
