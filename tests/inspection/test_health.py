"""`summary` and `diagnose`, on layers that are built to have what they find."""

import numpy as np
import pytest
from models import Residual

import fastlstm as fl
from fastlstm.inspection import diagnose, summary

T, B, I, H = 30, 4, 3, 8


@pytest.fixture
def x(rng):
    return rng.standard_normal((T, B, I)).astype(np.float32)


def changed(layer, **changes):
    """The layer with rows of parameters replaced: name = (rows, values)."""
    arrays = layer.state_dict()
    for name, (rows, values) in changes.items():
        arrays[name][rows] = values
    layer.load_state_dict(arrays)
    return layer


def found(diagnosis):
    return {(finding.layer, finding.what) for finding in diagnosis.findings}


HEALTHY = {
    "lstm": lambda: fl.LSTM(I, H, 2, bidirectional=True, forget_bias=1, rng=0),
    "chrono": lambda: fl.LSTM(I, H, init="chrono", t_max=T, rng=0),
    "keras": lambda: fl.LSTM(I, H, init="keras", batch_first=True, rng=0),
    "variant": lambda: fl.LSTM(
        I, H, forget_bias=2, proj_size=3, peepholes=True, layer_norm=True, zoneout=(0.1, 0.1), rng=0
    ),
    "gru": lambda: fl.GRU(I, H, rng=0),
    "rnn": lambda: fl.RNN(I, H, init="keras", rng=0),
    "model": lambda: fl.Sequential(
        fl.Linear(I, 5, rng=0), fl.Dropout(0.5), fl.LSTM(5, H, forget_bias=1, rng=0), fl.Last()
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_has_no_finding(name, x):
    model = HEALTHY[name]()
    if name == "keras":
        x = np.ascontiguousarray(x.swapaxes(0, 1))
    diagnosis = diagnose(model, x)
    assert diagnosis.findings == ()
    assert str(diagnosis).endswith("No finding.")
    for layer in diagnosis.layers:
        assert layer.name in str(diagnosis)


@pytest.mark.parametrize("bias", [-20.0, 20.0])
@pytest.mark.parametrize("gate", ["input_gate", "forget_gate", "candidate", "output_gate"])
def test_saturated_gates(gate, bias, x):
    place = ["input_gate", "forget_gate", "candidate", "output_gate"].index(gate)
    rows = slice(place * H, place * H + H)
    layer = changed(fl.LSTM(I, H, forget_bias=1, rng=0), bias_ih_l0=(rows, bias))
    diagnosis = diagnose(layer, x)
    assert ("l0", "saturated") in found(diagnosis)
    finding = next(f for f in diagnosis.findings if f.what == "saturated")
    assert finding.value == 1
    assert f"{gate.replace('_', ' ')} is saturated in 100%" in finding.advice
    assert diagnosis.layers[0].saturated[gate] == ((1, 0) if bias < 0 else (0, 1))
    for other in {"input_gate", "forget_gate", "candidate", "output_gate"} - {gate}:
        assert sum(diagnosis.layers[0].saturated[other]) < 0.5


def test_the_share_is_of_valid_steps(rng):
    """One unit of four is saturated; padding does not count."""
    layer = fl.LSTM(I, 4, forget_bias=1, rng=0)
    layer = changed(layer, bias_ih_l0=([12], -20.0))
    x = rng.standard_normal((6, 2, I)).astype(np.float32)
    diagnosis = diagnose(layer, x, lengths=[6, 1])
    assert diagnosis.layers[0].saturated["output_gate"] == (0.25, 0)
    assert "saturated" not in {f.what for f in diagnosis.findings}
    assert ("l0", "saturated") in found(diagnose(layer, x, lengths=[6, 1], saturated=0.2))


def test_saturated_hidden_states_of_an_rnn(x):
    layer = fl.RNN(I, H, init="keras", rng=0)
    arrays = layer.state_dict()
    arrays["weight_ih_l0"] *= 100
    layer.load_state_dict(arrays)
    assert ("l0", "saturated") in found(diagnose(layer, x))
    relu = fl.RNN(I, H, nonlinearity="relu", rng=0)
    assert diagnose(relu, x).layers[0].saturated == {}


@pytest.mark.parametrize("direction", ["", "_reverse"])
def test_a_unit_without_weights_is_constant(direction, x):
    layer = fl.LSTM(I, H, 2, bidirectional=True, forget_bias=1, rng=0)
    candidates = [2 * H + 5, 2 * H + 7]  # c stays zero
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    zeros = {f"{name}_l1{direction}": (candidates, 0.0) for name in names}
    diagnosis = diagnose(changed(layer, **zeros), x)
    assert found(diagnosis) == {(f"l1{direction}", "constant units")}
    (finding,) = diagnosis.findings
    assert finding.value == 2
    assert "2 of 8 units (5, 7)" in finding.advice
    health = next(layer for layer in diagnosis.layers if layer.name == f"l1{direction}")
    assert health.constant_units.tolist() == [5, 7]


def test_padding_does_not_move_a_constant_unit(x):
    layer = fl.RNN(I, H, init="keras", rng=0)
    layer = changed(layer, weight_ih_l0=(3, 0.0), weight_hh_l0=(3, 0.0), bias_ih_l0=(3, 0.5))
    diagnosis = diagnose(layer, x, lengths=[T, 2, 5, T])
    assert diagnosis.layers[0].constant_units.tolist() == [3]


def gates_of_biases(layer, values):
    """A layer with no weights, whose gates are σ of these biases, by gate."""
    arrays = {name: 0 * array for name, array in layer.state_dict().items()}
    arrays["bias_ih_l0"][:] = np.repeat(values, layer.hidden_size)
    arrays["weight_ih_l0"][2 * layer.hidden_size : 3 * layer.hidden_size] = 0.5  # candidates
    layer.load_state_dict(arrays)
    return layer


@pytest.mark.parametrize("kind", [fl.LSTM, fl.GRU])
def test_time_constants(kind, x):
    values = [0, np.log(9), 0, 0] if kind is fl.LSTM else [0, np.log(9), 0]  # keeps 0.9 a step
    layer = gates_of_biases(kind(I, H), values)
    diagnosis = diagnose(layer, x)
    np.testing.assert_allclose(diagnosis.layers[0].time_constants, -1 / np.log(0.9), rtol=1e-5)
    assert "time constant" not in {f.what for f in diagnosis.findings}
    finding = next(f for f in diagnose(layer, x, memory=0.5).findings if f.what == "time constant")
    assert finding.value == pytest.approx(-1 / np.log(0.9), rel=1e-5)
    assert "9.5 steps (median), 9.5 (longest), of 30" in finding.advice
    assert ("init='chrono'" if kind is fl.LSTM else "update gate") in finding.advice


def test_norms_and_singular_values(x):
    layer = fl.LSTM(I, H, forget_bias=1, rng=0)
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((H, H)))[0]
    layer = changed(
        layer,
        weight_hh_l0=(slice(H), 12 * rotation),
        weight_ih_l0=(slice(H, 2 * H), 1e-6),
    )
    diagnosis = diagnose(layer, x)
    health = diagnosis.layers[0]
    assert health.singular_values["input_gate"] == pytest.approx(12, rel=1e-5)
    R = layer.weight_hh_l0.astype(float)
    assert health.singular_values["all"] == pytest.approx(
        np.sqrt(np.linalg.eigvalsh(R.T @ R).max()), rel=1e-5
    )
    assert health.weight_norms["input_gate"][1] == pytest.approx(12 * np.sqrt(H), rel=1e-5)
    assert health.weight_norms["forget_gate"][0] == pytest.approx(1e-6 * np.sqrt(I * H), rel=1e-5)
    values = {finding.what: finding.value for finding in diagnosis.findings}
    assert values["singular value"] == pytest.approx(12, rel=1e-5)
    assert values["weights"] > 1e5


def chain(factor):
    """h' = factor ∗ h + x + 5 with relu."""
    layer, one = fl.RNN(2, 2, nonlinearity="relu", dtype=np.float64), np.eye(2)
    arrays = one, factor * one, [5.0, 5], [0.0, 0]
    layer.load_state_dict(dict(zip(layer.parameters(), arrays, strict=True)))
    return layer


@pytest.mark.parametrize(("factor", "is_found"), [(0.9, False), (0.5, True), (2.0, True)])
def test_the_gradient_at_the_first_step(factor, is_found, rng):
    x = rng.standard_normal((25, 3, 2)) / 2
    diagnosis = diagnose(chain(factor), x)
    assert diagnosis.reach == pytest.approx(factor**24)
    assert found(diagnosis) == ({("model", "gradient")} if is_found else set())
    ragged = diagnose(chain(factor), x, lengths=[11, 1, 11])
    assert ragged.reach == pytest.approx(factor**10)
    if is_found:
        (finding,) = diagnosis.findings
        assert ("LSTM" if factor < 1 else "clip_grad_norm") in finding.advice


def test_findings_name_the_layer_within_a_model(rng):
    lstm = fl.LSTM(5, H, forget_bias=1, rng=0)
    lstm = changed(lstm, bias_ih_l0=(slice(3 * H, 4 * H), -20.0))
    model = fl.Sequential(fl.Embedding(9, 5, rng=0), fl.Sequential(fl.Dropout(0.5), lstm))
    ids = rng.integers(9, size=(12, B))
    assert ("1.1.l0", "saturated") in found(diagnose(model, ids, lengths=[12, 1, 3, 2]))


def test_one_step_has_nothing_to_move(x):
    assert diagnose(fl.GRU(I, H, rng=0), x[:1, :1]).findings == ()


def test_what_does_not_fit_raises(x):
    with pytest.raises(ValueError, match="still: expected a finite number"):
        diagnose(fl.GRU(I, H), x, still=-1)
    with pytest.raises(ValueError, match="x: expected at least one step"):
        diagnose(fl.GRU(I, H), x, lengths=[0] * B)
    with pytest.raises(TypeError, match="model: expected a layer"):
        summary(3)


def rows(table):
    return [(row.name, row.kind, row.shape, row.multiply_adds) for row in table.rows]


def test_the_summary_of_a_model():
    model = fl.Sequential(
        fl.Embedding(9, I),
        fl.Dropout(0.5),
        fl.LSTM(I, [4, 5], 2, bidirectional=True, learn_initial_state=True),
        fl.Sequential(fl.Last(), fl.Linear(10, 2)),
    )
    table = summary(model)
    assert rows(table) == [
        ("0", "Embedding", ("T", "B", I), 0),
        ("1", "Dropout", ("T", "B", I), 0),
        ("2.l0", "LSTM, both directions", ("T", "B", 8), 2 * 16 * (I + 4)),
        ("2.l1", "LSTM, both directions", ("T", "B", 10), 2 * 20 * (8 + 5)),
        ("3.0", "Last", ("B", 10), 0),
        ("3.1", "Linear", ("B", 2), 20),
    ]
    assert table.parameters == model.num_parameters()
    assert table.bytes == 4 * model.num_parameters()
    assert table.multiply_adds == 224 + 520 * 2 // 2 + 520 * 0 + 20
    of_ids = summary(model, (7, 3))
    assert [row.shape for row in of_ids.rows] == [
        *((7, 3, size) for size in (I, I, 8, 10)),
        (3, 10),
        (3, 2),
    ]
    text = str(of_ids).splitlines()
    assert text[-1].split() == ["total", f"{table.parameters:,}", "764", f"{table.bytes:,}"]
    assert "(7, 3, 10)" in text[5]


def test_the_summary_of_other_modules():
    layer = fl.LSTM(I, H, proj_size=5, peepholes=True, batch_first=True, dtype=np.float64)
    (row,) = summary(layer).rows
    assert (row.name, row.shape) == ("l0", ("B", "T", 5))
    assert row.multiply_adds == 4 * H * (I + 5) + 5 * H
    assert row.bytes == 8 * layer.num_parameters()
    assert rows(summary(fl.GRUCell(I, H))) == [("", "GRUCell", ("B", H), 3 * H * (I + H))]
    assert summary(fl.Sequential(fl.Linear(I, 2), fl.Activation("relu"))).multiply_adds == 2 * I
    assert summary(fl.Backwards(fl.RNN(I, H))).multiply_adds == H * (I + H)
    own = summary(Residual(I), np.ones((5, 2, I)))
    assert [row.shape for row in own.rows] == [(5, 2, I), ("T", "B", I)]
    assert own.multiply_adds is None
    assert own.parameters == Residual(I).num_parameters()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_masked_steps_are_no_part_of_a_diagnosis(kind, rng):
    """Zeros on the left of each row and within, which a Masking skips: as without them."""
    layer = getattr(fl, kind)(I, H, 2, batch_first=True, rng=0)
    x = rng.standard_normal((B, T, I))
    places = np.sort([rng.permutation(T + 9)[:T] for _ in range(B)])
    places[0] = np.arange(9, T + 9)
    padded = np.zeros((B, T + 9, I))
    padded[np.arange(B)[:, None], places] = x
    found, plain = diagnose(fl.Masking(layer), padded), diagnose(layer, x)
    assert found.reach == pytest.approx(plain.reach, rel=1e-4)
    assert [one.what for one in found.findings] == [one.what for one in plain.findings]
    for ours, theirs in zip(found.layers, plain.layers, strict=True):
        assert ours.saturated == theirs.saturated
        assert (ours.constant_units == theirs.constant_units).all()
        if kind != "RNN":
            np.testing.assert_allclose(ours.time_constants, theirs.time_constants, rtol=1e-5)


def test_an_input_gate_that_lets_in_half_of_what_leaks_out():
    """i = 0.03 is closed, but 1 - f = 0.04: a long memory needs it."""
    layer = fl.LSTM(3, 8, dtype=np.float64, rng=0)
    values = {name: np.zeros_like(value) for name, value in layer.state_dict().items()}
    values["bias_ih_l0"][:16] = np.repeat(np.log([0.03 / 0.97, 0.96 / 0.04]), 8)
    layer.load_state_dict(values)
    findings = fl.inspection.diagnose(layer, np.ones((30, 4, 3))).findings
    assert not [one for one in findings if one.what == "saturated" and "input gate" in one.advice]


def test_forget_rows_of_coupled_gates_are_not_measured():
    """They have no effect."""
    (health,) = fl.inspection.diagnose(
        fl.LSTM(3, 8, coupled=True, rng=0), np.ones((5, 2, 3))
    ).layers
    assert list(health.weight_norms) == ["input_gate", "candidate", "output_gate"]
    assert list(health.singular_values) == ["input_gate", "candidate", "output_gate", "all"]
