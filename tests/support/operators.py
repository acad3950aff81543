"""Random calls of ONNX's operators."""

from dataclasses import dataclass, field, replace

import numpy as np

import fastlstm as fl

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = {"LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h"), "RNN": ("Y", "Y_h")}
WEIGHTS = ("W", "R", "B", "P")
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": 3, "GRU": 2, "RNN": 1}
# How many of alpha and beta each takes.
TAKES = {
    "Sigmoid": 0,
    "Tanh": 0,
    "Relu": 0,
    "Affine": 2,
    "LeakyRelu": 1,
    "ThresholdedRelu": 1,
    "ScaledTanh": 2,
    "HardSigmoid": 2,
    "Elu": 1,
    "Softsign": 0,
    "Softplus": 0,
}


@dataclass
class Call:
    kind: str
    inputs: dict[str, np.ndarray]  # by ONNX's names; those missing are not there
    attributes: dict = field(default_factory=dict)

    def __call__(self):
        """The outputs, by the function."""
        return getattr(fl.onnx, self.kind.lower())(**self.inputs, **self.attributes)

    def operator(self):
        """What holds the weights, and the inputs that remain."""
        weights = {name: value for name, value in self.inputs.items() if name in WEIGHTS}
        rest = {name: value for name, value in self.inputs.items() if name not in WEIGHTS}
        return getattr(fl.onnx, self.kind)(**weights, **self.attributes), rest

    def with_(self, inputs=None, **attributes):
        return replace(
            self,
            inputs=self.inputs | (inputs or {}),
            attributes=self.attributes | attributes,
        )

    @property
    def sizes(self):
        """T, batch, directions, H."""
        T, batch = self.inputs["X"].shape[:2]
        if self.attributes.get("layout"):
            T, batch = batch, T
        directions, _, H = self.inputs["R"].shape
        return T, batch, directions, H


def call(
    rng,
    kind,
    T=5,
    batch=4,
    I=2,
    H=3,
    *,
    dtype=np.float64,
    leave_out=(),
    lengths=None,
    **attributes,
):
    """A call with every input but those left out, and these attributes."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[kind] * H
    shapes = {
        "X": (T, batch, I),
        "W": (directions, rows, I),
        "R": (directions, rows, H),
        "B": (directions, 2 * rows),
        "initial_h": (directions, batch, H),
        "initial_c": (directions, batch, H),
        "P": (directions, 3 * H),
    }
    if kind != "LSTM":
        del shapes["P"], shapes["initial_c"]
    inputs = {
        name: rng.uniform(-1, 1, shape).astype(dtype)
        for name, shape in shapes.items()
        if name not in leave_out
    }
    if lengths is not None:
        inputs["sequence_lens"] = np.array(lengths, np.int32)
    if attributes.get("layout"):
        for name in inputs.keys() & {"X", "initial_h", "initial_c"}:
            inputs[name] = np.ascontiguousarray(inputs[name].swapaxes(0, 1))
    return Call(kind, inputs, {"hidden_size": H} | attributes)


def random_call(rng, kind, dtype=np.float32):
    """Any of all that ONNX Runtime takes, too: layout 0, lengths above zero."""
    T, batch, I, H = (int(rng.integers(1, most + 1)) for most in (6, 5, 7, 20))
    attributes = {"direction": str(rng.choice(["forward", "reverse", "bidirectional"]))}
    directions = 2 if attributes["direction"] == "bidirectional" else 1
    if rng.random() < 0.7:
        names = rng.choice(list(TAKES), ACTIVATIONS[kind] * directions).tolist()
        attributes |= {"activations": names}
        for attribute, least in {"activation_alpha": 1, "activation_beta": 2}.items():
            count = sum(TAKES[name] >= least for name in names)
            if count:
                attributes[attribute] = rng.uniform(0.1, 0.9, count).tolist()
    if rng.random() < 0.4:
        attributes["clip"] = float(rng.uniform(0.2, 1.5))
    if kind == "LSTM":
        attributes["input_forget"] = int(rng.integers(2))
    if kind == "GRU":
        attributes["linear_before_reset"] = int(rng.integers(2))
    optional = ["B", "initial_h", "initial_c", "P"]
    leave_out = [name for name in optional if rng.random() < 0.4]
    lengths = rng.integers(1, T + 1, batch) if rng.random() < 0.5 else None
    made = call(
        rng, kind, T, batch, I, H, dtype=dtype, leave_out=leave_out, lengths=lengths, **attributes
    )
    for name in "WR":  # so that activations without a bound do not run away
        made.inputs[name] *= dtype(made.inputs[name].shape[2] ** -0.5)
    return made
