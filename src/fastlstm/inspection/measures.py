"""What tells how the gates of a layer do: saturation, time constants, weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastlstm.checks import quiet
from fastlstm.inspection.trace import LayerTrace

# The gates of each kind of layer, in the order of the weights' rows. The number is the place of the
# gate's activation in the option `activations`.
GATES = {
    "LSTM": {"input_gate": 0, "forget_gate": 0, "candidate": 1, "output_gate": 0},
    "GRU": {"reset_gate": 0, "update_gate": 0, "candidate": 1},
    "RNN": {"hidden": 0},
}
KEEPS = {"LSTM": "forget_gate", "GRU": "update_gate"}  # the gate that says how much is kept
LOWEST = {"sigmoid": 0.0, "hard_sigmoid": 0.0, "tanh": -1.0, "softsign": -1.0}  # the highest is 1


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
            line = f"  {plain(gate):<12}  |W| {of_w:<8.3g}  |R| {of_r:<8.3g}"
            line += f"  σ(R) {self.singular_values[gate]:<8.3g}"
            if gate in self.saturated:
                low, high = self.saturated[gate]
                line += f"  saturated {low:.0%} low, {high:.0%} high"
            lines.append(line.rstrip())
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


def measure(
    layer: LayerTrace, module: Any, suffix: str, live: np.ndarray, limits: Limits
) -> LayerHealth:
    """Measure a layer and direction of a module, whose parameters' names end so."""
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
        if not (name == "forget_gate" and getattr(module, "coupled", False))  # without effect
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


def _shares(values: np.ndarray, activation: str, limits: Limits) -> tuple[float, float]:
    is_low = values < (limits.low if LOWEST[activation] == 0 else -limits.high)
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


def plain(gate: str) -> str:
    """The name of a gate in a sentence."""
    return {"hidden": "hidden state"}.get(gate, gate.replace("_", " "))
