"""Steps of optimizers."""

import numpy as np

from fastlstm.kernels.arguments import Rule, Update
from fastlstm.kernels.reference.core.walk import quiet


@quiet
def update(rule: Rule, arrays: Update, /) -> bool:
    """Compute one step; returns whether all gradients are finite. If not, the result is undefined.

    All arrays are contiguous and of this build's dtype.
    """
    p, mean, square, velocity, g = arrays[:5]
    finite = bool(np.isfinite(g).all())
    if rule.decay:
        g = g + rule.decay * p
    d = g
    if mean is not None:
        mean = rule.beta1 * mean + (1 - rule.beta1) * g
        if not rule.centered:
            d = mean
    if square is not None:
        square = variance = rule.beta2 * square + (1 - rule.beta2) * (g * g)
        if rule.centered and mean is not None:
            variance = np.maximum(square - mean * mean, 0)  # rounding may make it negative
        d = d / (np.sqrt(variance) + rule.eps)
    if velocity is not None:
        velocity = rule.momentum * velocity + d
        d = d + rule.momentum * velocity if rule.nesterov else velocity
    p = rule.shrink * p - rule.lr * d
    for target, value in zip(arrays[5:], (p, mean, square, velocity), strict=True):
        if target is not None:
            target[...] = value
    return finite
