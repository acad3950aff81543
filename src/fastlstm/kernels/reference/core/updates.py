"""Steps of optimizers."""

from typing import Any

import numpy as np

from fastlstm.kernels.arguments import Array, Moments, Rule
from fastlstm.kernels.reference.core.walk import quiet


@quiet
def update(rule: Rule, p: Array, moments: Moments, g: Any, /) -> Any:
    """Compute one step: return the new p and running means, or None if g is not finite.

    p and the running means are contiguous, of one shape, and of this build's dtype. Returns
    NotImplemented if g is not.
    """
    if type(g) is not np.ndarray or g.dtype != p.dtype or g.shape != p.shape:
        return NotImplemented
    mean, square, velocity = moments
    if not np.isfinite(g).all():
        return None
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
    return p, (mean, square, velocity)
