"""The LSTM's variants in scalar float64 Python, sharing nothing with the library.

Written from the papers: peepholes from Gers, Schraudolph & Schmidhuber 2002, section 2.2; coupled
gates from Greff et al. 2017, appendix (CIFG); layer norm from Ba, Kiros & Hinton 2016, eq. 20 to 22
with the statistics of each gate by itself; zoneout from Krueger et al. 2017, section 3.3; recurrent
dropout from Gal & Ghahramani 2016; clip and activations from the ONNX specification's LSTM.
"""

from dataclasses import dataclass
from math import sqrt

from oracle import ACTIVATIONS, dot, run


@dataclass
class Options:
    coupled: bool = False
    activations: tuple = ("sigmoid", "tanh", "tanh")
    clip: float | None = None
    zoneout: tuple = (0.0, 0.0)

    def activation(self, place, x):
        name, *parameters = (
            (self.activations[place],)
            if isinstance(self.activations[place], str)
            else self.activations[place]
        )
        return ACTIVATIONS[name](x, *parameters)

    def gate(self, place, x):
        if self.clip is not None:
            x = min(self.clip, max(-self.clip, x))
        return self.activation(place, x)


def normalized(values):
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / sqrt(variance + 1e-5) for value in values]


def preactivations(weights, x, h, size):
    """[4][size], without peepholes."""
    blocks = []
    for block in range(4):
        rows = range(block * size, (block + 1) * size)
        from_x = [dot(weights["weight_ih"][row], x) for row in rows]
        from_h = [dot(weights["weight_hh"][row], h) for row in rows]
        if "weight_ln_ih" in weights:
            gain_x, gain_h = weights["weight_ln_ih"], weights["weight_ln_hh"]
            from_x = [n * gain_x[row] for n, row in zip(normalized(from_x), rows, strict=True)]
            from_h = [n * gain_h[row] for n, row in zip(normalized(from_h), rows, strict=True)]
        blocks.append([a + b for a, b in zip(from_x, from_h, strict=True)])
        if "bias_ih" in weights:
            for unit, row in enumerate(rows):
                blocks[-1][unit] += weights["bias_ih"][row] + weights["bias_hh"][row]
    return blocks


def cell(weights, options, x, h, c, keep_h=None, keep_c=None, mask=None):
    """One step of one row: the new h and c. Without `keep`, zoneout is its expectation."""
    size = len(c)
    seen = h if mask is None else [a * b for a, b in zip(h, mask, strict=True)]
    z = preactivations(weights, x, seen, size)
    peephole = weights.get("weight_peephole", [0.0] * (3 * size))
    fresh, show = [], []
    for unit in range(size):
        write = options.gate(0, z[0][unit] + peephole[unit] * c[unit])
        keep = options.gate(0, z[1][unit] + peephole[size + unit] * c[unit])
        if options.coupled:
            keep = 1 - write
        value = options.gate(1, z[2][unit])
        fresh.append(keep * c[unit] + write * value)
        show.append(options.gate(0, z[3][unit] + peephole[2 * size + unit] * fresh[unit]))
    shown = fresh
    if "weight_ln_c" in weights:
        bias = weights.get("bias_ln_c", [0.0] * size)
        shown = [
            n * gain + b
            for n, gain, b in zip(normalized(fresh), weights["weight_ln_c"], bias, strict=True)
        ]
    new_h = [a * options.activation(2, b) for a, b in zip(show, shown, strict=True)]
    if "weight_hr" in weights:
        new_h = [dot(row, new_h) for row in weights["weight_hr"]]
    if keep_h is None:
        keep_h = [options.zoneout[0]] * len(h)
    if keep_c is None:
        keep_c = [options.zoneout[1]] * size
    return (
        [m * a + (1 - m) * b for m, a, b in zip(keep_h, h, new_h, strict=True)],
        [m * a + (1 - m) * b for m, a, b in zip(keep_c, c, fresh, strict=True)],
    )


def lstm(parameters, options, x, h0, c0, lengths=None, resets=None, masks=None):
    """A whole stack over a batch: y [T][B][…], and the last h and c of every slot [slot][B].

    `masks` has for every slot (layer, direction) a dict of what training drew, if anything:
    kept_h [T][B][P], kept_c [T][B][H], mask [B][P].
    """

    def step(weights, x, h, c, place):
        slot, t, b = place
        drawn = masks[slot] if masks else {}
        return cell(
            weights,
            options,
            x,
            h,
            c,
            drawn["kept_h"][t][b] if "kept_h" in drawn else None,
            drawn["kept_c"][t][b] if "kept_c" in drawn else None,
            drawn["mask"][b] if "mask" in drawn else None,
        )

    return run(step, parameters, x, (h0, c0), lengths, resets)
