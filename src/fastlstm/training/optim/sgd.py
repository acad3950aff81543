"""Stochastic gradient descent."""

from collections.abc import Sequence

import numpy as np

from fastlstm.checks import read_flag, read_number
from fastlstm.kernels.arguments import Rule
from fastlstm.training.optim.base import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent: p ← p - lr · g.

    With momentum μ, v ← μ v + g from v = 0 replaces g. With `nesterov`, g + μ v replaces g
    (Sutskever et al. 2013, in the form of torch.optim.SGD).

    Parameters
    ----------
    lr : float
        Learning rate.
    momentum : float
        μ; 0 for no momentum.
    weight_decay : float
        λ: adds λ · p to the gradient.
    nesterov : bool
        Whether to use Nesterov's form of momentum; needs a momentum above 0.
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
    >>> fl.optim.SGD(lr=0.1).step(layer, grads)
    >>> (layer.weight - before).round(6).tolist()
    [[-0.3, 0.05]]
    """

    _fixed = "momentum", "nesterov"

    def __init__(
        self,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        freeze: Sequence[str] = (),
        skip_nonfinite: bool = False,
    ):
        super().__init__(lr, weight_decay, freeze, skip_nonfinite)
        self.momentum = read_number("momentum", momentum, 0, np.inf, open_above=True)
        self.nesterov = read_flag("nesterov", nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: needs a momentum above 0, got 0")
        self._moment_names = ("velocity",) if self.momentum else ()

    def _rule(self) -> Rule:
        return Rule(self.lr, self.weight_decay, momentum=self.momentum, nesterov=self.nesterov)
