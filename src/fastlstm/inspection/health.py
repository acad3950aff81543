"""What is wrong with a model, from one call of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import quiet, read_number
from fastlstm.engine.reading.mask import within
from fastlstm.inspection.inference import Inference
from fastlstm.inspection.trace import LayerTrace, trace

# By kind: the arrays that weights give, in the order of their rows, each with the place of its
# activation in the option `activations`.
GATES = {
    "LSTM": {"input_gate": 0, "forget_gate": 0, "candidate": 1, "output_gate": 0},
    "GRU": {"reset_gate": 0, "update_gate": 0, "candidate": 1},
    "RNN": {"hidden": 0},
}
KEEPS = {"LSTM": "forget_gate", "GRU": "update_gate"}  # the gate that says how much is kept
LOWEST = {"sigmoid": 0.0, "hard_sigmoid": 0.0, "tanh": -1.0, "softsign": -1.0}  # the highest is 1
ADVICE = {
    "saturated": "bring x to mean 0 and variance 1, lower the learning rate, or add weight decay",
    "constant": "lower the learning rate or begin anew with another rng; if they stay, take fewer",
    "LSTM": "forget_bias=1 or init='chrono' with t_max about the length of sequences",
    "GRU": "a positive bias of the update gate, rows H to 2H of bias_ih, by load_state_dict",
    "open": "a smaller bias of the gate, and resets= where sequences begin",
    "weights": "init='keras', or a look at what was loaded into it",
    "exploding": "optim.clip_grad_norm, a lower learning rate, or init='keras'",
    "RNN": "an LSTM with forget_bias=1, whose cell carries the gradient",
    "finite": "a lower learning rate and optim.clip_grad_norm, from the last good checkpoint",
}


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes
    ----------
    layer : str
        The layer and direction, as `trace` names it: "1.l0_reverse"; "model" for the whole.
    what : str
        "saturated", "constant units", "time constant", "weights", "singular value" or "gradient".
    value : float
        The number that is beyond its limit.
    advice : str
        A sentence that says what was found and what to try.
    """

    layer: str
    what: str
    value: float
    advice: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.advice}"


@dataclass(frozen=True, eq=False)
class LayerHealth:
    """What was measured of one layer and direction.

    Attributes
    ----------
    name, kind : str
        As in `trace`.
    saturated : dict of str to (float, float)
        For each gate, and for a candidate (of an RNN, the hidden state): the share of steps, rows
        and units at its low and at its high end. Only for activations that are bounded.
    constant_units : array of int
        The units of the output that hardly move.
    time_constants : array (H,), or None
        In steps: -1 / log f, where f is the geometric mean of a unit's forget gate (of a GRU, its
        update gate). After so many steps, 1/e of a content is left. None for an RNN.
    weight_norms : dict of str to (float, float)
        For each gate, the Frobenius norms of its rows of W and of R.
    singular_values : dict of str to float
        The largest singular value of each gate's rows of R, and as "all" that of the whole R.
    """

    name: str
    kind: str
    saturated: dict[str, tuple[float, float]]
    constant_units: np.ndarray
    time_constants: np.ndarray | None
    weight_norms: dict[str, tuple[float, float]]
    singular_values: dict[str, float]

    def __str__(self) -> str:
        lines = [f"{self.name}, {self.kind}: {len(self.constant_units)} constant units"]
        if self.time_constants is not None:
            lines[0] += (
                f", time constant {np.median(self.time_constants):.3g} steps (median), "
                f"{self.time_constants.max():.3g} (longest)"
            )
        lines[0] += f", largest singular value of R {self.singular_values['all']:.3g}"
        for gate, (of_w, of_r) in self.weight_norms.items():
            line = f"  {_plain(gate):<12}  |W| {of_w:<8.3g}  |R| {of_r:<8.3g}"
            line += f"  σ(R) {self.singular_values[gate]:<8.3g}"
            if gate in self.saturated:
                low, high = self.saturated[gate]
                line += f"  saturated {low:.0%} low, {high:.0%} high"
            lines.append(line.rstrip())
        return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` measured and found; `str` of it is a report.

    Attributes
    ----------
    findings : tuple of Finding
        Empty for a healthy model.
    layers : tuple of LayerHealth
        One for each layer and direction.
    reach : float
        The norm of the gradient of the last outputs by the first step's input, over that by the
        last step's. NaN if no row has two steps.
    """

    findings: tuple[Finding, ...]
    layers: tuple[LayerHealth, ...]
    reach: float

    def __str__(self) -> str:
        lines = [str(layer) for layer in self.layers]
        lines.append(f"gradient at the first step over that at the last: {self.reach:.3g}")
        lines += [f"- {finding}" for finding in self.findings] or ["No finding."]
        return "\n".join(lines)


class Limits(NamedTuple):
    """The limits of `diagnose`."""

    low: float
    high: float
    saturated: float
    still: float
    memory: float
    unbalanced: float
    singular_value: float
    vanished: float
    exploded: float


def diagnose(
    model: Any,
    x: Any,
    *,
    state: Any = None,
    lengths: Any = None,
    low: float = 0.05,
    high: float = 0.95,
    saturated: float = 0.75,
    still: float = 1e-3,
    memory: float = 0.05,
    unbalanced: float = 100.0,
    singular_value: float = 10.0,
    vanished: float = 1e-6,
    exploded: float = 1e6,
) -> Diagnosis:
    """Look for what keeps a model from learning, in a call of inference and its gradient.

    Parameters
    ----------
    model, x, state, lengths
        As in `saliency`. x should be typical, and as long as what is to be learned.
    low, high : float
        A gate is saturated below `low` or above `high`. Candidates and an RNN's hidden state, which
        go down to -1, are saturated below ``-high``.
    saturated : float
        The share of saturated values from which there is a finding. Not counted are what a long
        memory needs: open forget gates up to a time constant of 100 times the steps of x, and
        closed input gates that let in at least half of what leaks out, 1 - f.
    still : float
        A unit is constant if its output moves less than this over all steps and rows.
    memory : float
        The part of the steps of x that the longest time constant must reach.
    unbalanced : float
        How many times the norm of one gate's weights may be that of another's, in W and in R.
    singular_value : float
        The largest singular value that a gate's rows of R may have.
    vanished, exploded : float
        The bounds of `Diagnosis.reach`.

    Returns
    -------
    Diagnosis

    Raises
    ------
    TypeError, ValueError
        As in `saliency` and `trace`, or a limit is negative.

    References
    ----------
    Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", for
    singular values and gradients; Tallec & Ollivier 2018, "Can recurrent neural networks warp
    time?", for time constants.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> from fastlstm import inspection
    >>> x = np.random.default_rng(0).standard_normal((100, 4, 3))
    >>> inspection.diagnose(fl.LSTM(3, 8, init="chrono", t_max=100, rng=0), x).findings
    ()
    >>> for finding in inspection.diagnose(fl.LSTM(3, 8, forget_bias=-3, rng=0), x).findings:
    ...     print(finding.layer, finding.what)
    l0 time constant
    model gradient
    """
    numbers = (low, high, saturated, still, memory, unbalanced, singular_value, vanished, exploded)
    read = [
        read_number(name, number, 0, np.inf)
        for name, number in zip(Limits._fields, numbers, strict=True)
    ]
    limits = Limits(*read)
    inference = Inference(model, x, state, lengths)
    traced = trace(model, x, state=state, lengths=lengths)
    live = traced.mask  # [T, B]
    if live is None:
        live = within(inference.batch.lengths, len(traced.x)).T
    if not live.any():
        raise ValueError("x: expected at least one step, got none")
    modules = dict(model._parts())
    findings: list[Finding] = []
    layers = []
    for layer in traced.layers:
        at = layer.name.rfind(".") + 1
        module = modules[layer.name[:at]]
        health = _measure(layer, module, "_" + layer.name[at:], live, limits)
        findings += _of_layer(health, layer, live, limits)
        layers.append(health)
    with quiet():
        _, dx = inference.gradient(inference.x, None)
        reach = _reach(inference.batch.by_row(dx), live.T)
    kind = "RNN" if any(layer.kind == "RNN" for layer in layers) else layers[-1].kind
    findings += _of_gradient(reach if dx.any() else 0.0, kind, limits)
    return Diagnosis(tuple(findings), tuple(layers), reach)


def _measure(
    layer: LayerTrace, module: Any, suffix: str, live: np.ndarray, limits: Limits
) -> LayerHealth:
    if layer.kind not in GATES:
        raise ValueError(f"model: expected layers of kind {', '.join(GATES)}, got {layer.kind}")
    names = list(GATES[layer.kind])
    W, R = (
        np.asarray(module.parameters()[name + suffix], np.float64)
        for name in ("weight_ih", "weight_hh")
    )
    blocks = {
        name: (w, r)
        for name, w, r in zip(names, np.split(W, len(names)), np.split(R, len(names)), strict=True)
        if not (name == "forget_gate" and getattr(module, "coupled", False))  # has no effect
    }
    kept = KEEPS.get(layer.kind)
    constants = None
    with quiet():
        if kept is not None:
            logs = np.log(layer.arrays[kept][live].clip(0, 1).astype(np.float64)).mean(axis=0)
            constants = np.where(logs < 0, -1 / logs, np.inf)
        return LayerHealth(
            layer.name,
            layer.kind,
            {
                name: _shares(layer.arrays[name][live], activation, limits)
                for name, activation in _bounded(layer, module)
            },
            _constant_units(layer.hidden[live], limits.still),
            constants,
            {name: (_norm(w), _norm(r)) for name, (w, r) in blocks.items()},
            {name: _largest(r) for name, (_, r) in blocks.items()} | {"all": _largest(R)},
        )


def _bounded(layer: LayerTrace, module: Any) -> Iterator[tuple[str, str]]:
    """The arrays whose activation is bounded, and its name."""
    activations = (module.nonlinearity,) if layer.kind == "RNN" else module.activations
    for name, place in GATES[layer.kind].items():
        activation = activations[place]
        kind = activation if isinstance(activation, str) else activation[0]
        if kind in LOWEST:
            yield name, kind


def _is_low(values: np.ndarray, lowest: float, limits: Limits) -> np.ndarray:
    return np.asarray(values < (limits.low if lowest == 0 else -limits.high))


def _shares(values: np.ndarray, activation: str, limits: Limits) -> tuple[float, float]:
    is_low = _is_low(values, LOWEST[activation], limits)
    return float(is_low.mean()), float((values > limits.high).mean())


def _constant_units(hidden: np.ndarray, still: float) -> np.ndarray:
    """Of hidden [n, H]."""
    if len(hidden) < 2:
        return np.empty(0, np.intp)
    return np.flatnonzero(np.ptp(hidden, axis=0) < still)


def _norm(weights: np.ndarray) -> float:
    return float(np.linalg.norm(weights))


def _largest(weights: np.ndarray) -> float:
    """The largest singular value."""
    return float(np.linalg.norm(weights, 2)) if np.isfinite(weights).all() else float("nan")


def _of_layer(
    health: LayerHealth, layer: LayerTrace, live: np.ndarray, limits: Limits
) -> Iterator[Finding]:
    name, steps = health.name, int(live.sum(axis=0).max())
    for gate, (low, high) in health.saturated.items():
        needed = _share_of_memory(gate, layer, health, live, limits)
        share = low + high - needed
        if share > limits.saturated:
            text = f"{_plain(gate)} is saturated in {share:.0%} of steps and units"
            text += f" ({low:.0%} at its low end, {high:.0%} at its high end)"
            advice = ADVICE["saturated"]
            if gate == KEEPS.get(health.kind):
                advice = ADVICE[health.kind if low > high else "open"]
            yield Finding(name, "saturated", share, f"{text}: try {advice}.")
    if len(health.constant_units):
        units = ", ".join(map(str, health.constant_units[:5]))
        more = ", …" if len(health.constant_units) > 5 else ""
        text = f"{len(health.constant_units)} of {layer.hidden.shape[-1]} units ({units}{more})"
        text += f" move less than {limits.still:g} over all steps and rows"
        value = float(len(health.constant_units))
        yield Finding(name, "constant units", value, f"{text}: try {ADVICE['constant']}.")
    constants = health.time_constants
    if constants is not None and constants.max() < limits.memory * steps:
        what = "forget gates close" if health.kind == "LSTM" else "update gates close"
        text = f"{what} too early, after {np.median(constants):.2g} steps (median), "
        text += f"{constants.max():.2g} (longest), of {steps}"
        value = float(constants.max())
        yield Finding(name, "time constant", value, f"{text}: try {ADVICE[health.kind]}.")
    for part, weights in enumerate("WR"):
        norms = {gate: pair[part] for gate, pair in health.weight_norms.items()}
        small, large = min(norms, key=lambda gate: norms[gate]), max(norms, key=lambda g: norms[g])
        if not np.isfinite(list(norms.values())).all():
            text = f"{weights} holds NaN or infinity"
            yield Finding(name, "weights", float("nan"), f"{text}: try {ADVICE['finite']}.")
        elif norms[large] > limits.unbalanced * norms[small]:
            value = norms[large] / norms[small] if norms[small] else float("inf")
            text = f"{weights} of the {_plain(large)} is {value:.3g} times that of the "
            text += f"{_plain(small)} in norm"
            yield Finding(name, "weights", value, f"{text}: try {ADVICE['weights']}.")
    gates = {gate: value for gate, value in health.singular_values.items() if gate != "all"}
    worst = max(gates, key=lambda gate: gates[gate])
    if gates[worst] > limits.singular_value:
        text = f"the largest singular value of R is {gates[worst]:.3g} in the {_plain(worst)}, so "
        text += "that gradients can explode"
        yield Finding(name, "singular value", gates[worst], f"{text}: try {ADVICE['exploding']}.")


def _share_of_memory(
    gate: str, layer: LayerTrace, health: LayerHealth, live: np.ndarray, limits: Limits
) -> float:
    """The share of values that are saturated as a long memory needs it."""
    values = layer.arrays[gate][live]
    if gate == KEEPS.get(health.kind) and health.time_constants is not None:
        steps = live.sum(axis=0).max()
        bounded = health.time_constants <= 100 * steps
        return float(((values > limits.high) & bounded).mean())
    if gate == "input_gate":
        leak = 1 - layer.forget_gate[live]
        return float(((values < limits.low) & (values >= leak / 2)).mean())
    return 0.0


def _reach(dx: np.ndarray, live: np.ndarray) -> float:
    """The norm of dx [B, T, ...] at the first of the live steps [B, T] over that at the last."""
    long = live.sum(axis=1) > 1
    if not long.any():
        return float("nan")
    live, rows = live[long], np.arange(int(long.sum()))
    first, last = live.argmax(axis=1), live.shape[1] - 1 - live[:, ::-1].argmax(axis=1)
    norms = (np.linalg.norm(dx[long][rows, at].astype(np.float64)) for at in (first, last))
    return float(next(norms) / next(norms))


def _of_gradient(reach: float, kind: str, limits: Limits) -> Iterator[Finding]:
    text = f"the gradient at the first step is {reach:.2g} times that at the last"
    if reach < limits.vanished or not reach:
        yield Finding("model", "gradient", reach, f"{text}, it vanishes: try {ADVICE[kind]}.")
    if reach > limits.exploded:
        advice = ADVICE["exploding"]
        yield Finding("model", "gradient", reach, f"{text}, it explodes: try {advice}.")


def _plain(gate: str) -> str:
    return {"hidden": "hidden state"}.get(gate, gate.replace("_", " "))
