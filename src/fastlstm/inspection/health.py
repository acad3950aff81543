"""What is wrong with a model, from one call of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import quiet, read_number
from fastlstm.engine.reading.mask import within
from fastlstm.inspection.calls.inference import Inference
from fastlstm.inspection.measures import KEEPS, LayerHealth, Limits, measure, plain
from fastlstm.inspection.trace import LayerTrace, trace

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
        health = measure(layer, module, "_" + layer.name[at:], live, limits)
        findings += _of_layer(health, layer, live, limits)
        layers.append(health)
    with quiet():
        _, dx = inference.gradient(inference.x, None)
        reach = _reach(inference.batch.by_row(dx), live.T)
    kind = "RNN" if any(layer.kind == "RNN" for layer in layers) else layers[-1].kind
    findings += _of_gradient(reach if dx.any() else 0.0, kind, limits)
    return Diagnosis(tuple(findings), tuple(layers), reach)


def _of_layer(
    health: LayerHealth, layer: LayerTrace, live: np.ndarray, limits: Limits
) -> Iterator[Finding]:
    name, steps = health.name, int(live.sum(axis=0).max())
    for gate, (low, high) in health.saturated.items():
        needed = _share_of_memory(gate, layer, health, live, limits)
        share = low + high - needed
        if share > limits.saturated:
            text = f"{plain(gate)} is saturated in {share:.0%} of steps and units"
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
            text = f"{weights} of the {plain(large)} is {value:.3g} times that of the "
            text += f"{plain(small)} in norm"
            yield Finding(name, "weights", value, f"{text}: try {ADVICE['weights']}.")
    gates = {gate: value for gate, value in health.singular_values.items() if gate != "all"}
    worst = max(gates, key=lambda gate: gates[gate])
    if gates[worst] > limits.singular_value:
        text = f"the largest singular value of R is {gates[worst]:.3g} in the {plain(worst)}, so "
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
