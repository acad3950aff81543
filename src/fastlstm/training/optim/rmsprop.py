"""RMSprop."""

from collections.abc import Sequence

import numpy as np

from fastlstm.checks import read_flag, read_number
from fastlstm.kernels.arguments import Rule
from fastlstm.training.optim.base import Optimizer


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012, lecture 6e; centered: Graves 2013, eq. 38 to 45), in torch's form.

    v ← α v + (1 - α) g² from zero, and p ← p - lr · g / (√v + ε). With `centered`, m ← α m +
    (1 - α) g, and v - m² replaces v under the root. With momentum μ, b ← μ b + g / (√v + ε), and
    p ← p - lr · b.

    Parameters
    ----------
    lr : float
        Learning rate.
    alpha : float
        α, in [0, 1).
    eps : float
        ε.
    weight_decay : float
        λ: adds λ · p to the gradient.
    momentum : float
        μ; 0 for no momentum.
    centered : bool
        Whether the mean gradient is subtracted.
    freeze : tuple of str
        Prefixes of names of parameters that no step changes, as ("0.",) for the first layer of a
        Sequential.
    skip_nonfinite : bool
        Whether a step on gradients with an infinity or NaN is skipped, and counted in the attribute
        `skipped`, instead of refused.

    Examples
    --------
    >>> import numpy as np, fastlstm as fl
    >>> layer = fl.Linear(2, 1, bias=False, dtype="float64", rng=0)
    >>> before, grads = layer.weight, fl.Gradients(params={"weight": np.array([[3.0, -0.5]])})
    >>> fl.optim.RMSprop(lr=0.1).step(layer, grads)
    >>> (layer.weight - before).round(6).tolist()
    [[-1.0, 1.0]]
    """

    _fixed = "alpha", "eps", "momentum", "centered"

    def __init__(
        self,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        freeze: Sequence[str] = (),
        skip_nonfinite: bool = False,
    ):
        super().__init__(lr, weight_decay, freeze, skip_nonfinite)
        self.alpha = read_number("alpha", alpha, 0, 1, open_above=True)
        self.eps = read_number("eps", eps, 0, np.inf, open_above=True)
        self.momentum = read_number("momentum", momentum, 0, np.inf, open_above=True)
        self.centered = read_flag("centered", centered)
        centering = ("mean",) if self.centered else ()
        self._moment_names = ("square", *centering, *(("velocity",) if self.momentum else ()))

    def _rule(self) -> Rule:
        return Rule(
            self.lr,
            self.weight_decay,
            beta1=self.alpha,
            beta2=self.alpha,
            eps=self.eps,
            momentum=self.momentum,
            centered=self.centered,
        )
